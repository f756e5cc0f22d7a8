"""Where a gain comes from: borders of right and found, seeds, and what the tables show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_experiments.comparison.analysis import causes
from rag_experiments.comparison.analysis.causes import FOUND, IN_SPITE, READER_MISS, RETRIEVER_MISS, RIGHT
from rag_experiments.comparison.analysis.table import Group
from rag_experiments.comparison.records.run_records import RunRecord


def row(key: str, rank: int, answer: str | None = "yes", depth: int = 6, **metrics: float) -> dict[str, Any]:
    ids = [f"x{i}" for i in range(depth)]
    if rank:
        ids[rank - 1] = f"gold-{key}"
    return {
        "id": key,
        "question": f"question {key}",
        "retrieved_ids": ids,
        "gold_ids": [f"gold-{key}"],
        "answer": answer,
        "references": ["yes"],
        "metrics": metrics,
    }


def made(name: str, rows: list[dict[str, Any]], seed: int = 0, k: int | None = 4) -> RunRecord:
    config = {"seed": seed, "retriever": {"k": k}} if k else {"seed": seed}
    run = RunRecord(Path(name), name, "completed", {}, config, {}, {}, {})
    run._predictions = {"test": {one["id"]: one for one in rows}, "dev": {}}
    return run


def group(*runs: RunRecord, label: str = "g") -> Group:
    return Group(list(runs), label)


@pytest.mark.parametrize(
    ("judge", "figures", "expected"),
    [
        ("exact_match", {"exact_match": 1.0}, RIGHT),
        ("exact_match", {"exact_match": 0.99}, READER_MISS),
        ("f1", {"f1": 0.5}, RIGHT),
        ("f1", {"f1": 0.49, "exact_match": 1.0}, READER_MISS),
        ("f1", {"exact_match": 1.0}, None),  # its worth is unknown
        (None, {"f1": 1.0}, FOUND),
    ],
)
def test_right_is_an_exact_match_or_half_an_f1(
    judge: str | None, figures: dict[str, float], expected: str | None
) -> None:
    assert causes.cause(row("q", 2, **figures), 4, judge) == expected


@pytest.mark.parametrize(("rank", "expected"), [(4, RIGHT), (5, IN_SPITE), (0, IN_SPITE)])
def test_found_is_among_the_k_that_the_reader_was_given(rank: int, expected: str) -> None:
    assert causes.cause(row("q", rank, f1=1.0), 4, "f1") == expected
    assert causes.cause(row("q", rank, f1=1.0) | {"given_ids": None}, 4, "f1") == expected
    assert causes.cause(row("q", rank, f1=1.0) | {"given_ids": []}, 4, "f1") == IN_SPITE


def test_an_answer_that_was_never_made_is_judged_by_the_retriever_alone() -> None:
    assert causes.cause(row("q", 1, answer=None, f1=0.0), 4, "f1") == FOUND
    assert causes.cause(row("q", 0, answer=None, f1=1.0), 4, "f1") == RETRIEVER_MISS
    assert causes.cause(row("q", 1, answer="", f1=0.0), 4, "f1") == READER_MISS, "an empty answer is one"


def test_k_is_the_runs_own_and_the_default_where_it_has_none() -> None:
    rows = [row("q", 5, f1=1.0)]
    assert causes.causes_of(made("a", rows, k=5), "test", "f1") == {"q": RIGHT}
    assert causes.causes_of(made("a", rows, k=4), "test", "f1") == {"q": IN_SPITE}
    assert causes.causes_of(made("a", rows, k=None), "test", "f1") == {"q": IN_SPITE}
    unknown = row("u", 1, f1=1.0) | {"gold_ids": []}
    assert causes.causes_of(made("a", [unknown]), "test", "f1") == {}


def test_the_judge_is_exact_match_where_any_answer_is_exactly_right() -> None:
    never = made("a", [row("1", 1, exact_match=0.0, f1=0.2)])
    once = made("b", [row("1", 1, exact_match=1.0, f1=1.0)])
    assert causes.judged_by([never], "test") == "f1"
    assert causes.judged_by([never, once], "test") == "exact_match"
    assert causes.judged_by([made("c", [row("1", 1, answer=None, exact_match=1.0, f1=1.0)])], "test") is None
    assert causes.judged_by([made("d", [row("1", 1, recall=1.0)])], "test") is None
    assert causes.judged_by([once], "dev") is None


def test_shares_are_over_all_seeds() -> None:
    one = made("a", [row("1", 1, f1=1.0), row("2", 0, f1=0.0)], seed=0)
    two = made("b", [row("1", 1, f1=0.0), row("2", 0, f1=0.0)], seed=1)
    assert causes.shares(group(one, two), "test", "f1") == {RIGHT: 0.25, READER_MISS: 0.25, RETRIEVER_MISS: 0.5}
    assert causes.shares(group(one), "dev", "f1") == {}


def test_moves_are_averaged_over_pairs_of_equal_seeds_and_over_every_pair_where_none_is() -> None:
    right, wrong = [row("1", 1, f1=1.0)], [row("1", 1, f1=0.0)]
    base = group(made("a0", right, 0), made("a1", wrong, 1))
    same = group(made("b0", right, 0), made("b1", right, 1))
    assert causes.moves(base, same, "test", "f1") == {(RIGHT, RIGHT): 0.5, (READER_MISS, RIGHT): 0.5}
    assert [(b.name, c.name) for b, c in causes.seed_pairs(base.counted, same.counted)] == [("a0", "b0"), ("a1", "b1")]
    other = group(made("c7", wrong, 7))
    assert causes.moves(base, other, "test", "f1") == {(RIGHT, READER_MISS): 0.5, (READER_MISS, READER_MISS): 0.5}
    assert len(causes.seed_pairs(base.counted, other.counted)) == 2


def test_wins_are_by_the_metrics_own_direction_and_ties_by_rounding() -> None:
    before = group(
        made("a", [row("1", 1, f1=0.5), row("2", 1, f1=0.5), row("3", 1, f1=0.5), row("4", 1), row("5", 1, f1=0.1)])
    )
    after = group(
        made(
            "b",
            [row("1", 1, f1=1.0), row("2", 1, f1=0.25), row("3", 1, f1=0.5 + 1e-12), row("4", 1), row("5", 1, f1=0.6)],
        )
    )
    found = causes.outcomes(before, after, "test/f1")
    assert found is not None
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert [key for key, _ in found.questions] == ["1", "5", "2", "3"]  # most changed first, equals by id
    assert found.questions[0] == ("1", pytest.approx(0.5))
    assert causes.outcomes(before, after, "test/gone") is None
    assert causes.outcomes(before, after, "dev/f1") is None


def test_the_table_of_causes_and_of_moves() -> None:
    base = group(made("a", [row("1", 1, f1=1.0), row("2", 0, f1=0.0), row("3", 1, f1=0.0)]), label="base")
    cand = group(made("b", [row("1", 1, f1=1.0), row("2", 1, f1=1.0), row("3", 1, f1=0.0)]), label="cand")
    grid = causes.causes_grid([base, cand], "test", "f1")
    assert grid is not None
    assert grid.headers == ["run", RIGHT, READER_MISS, RETRIEVER_MISS]
    assert grid.rows == [["base", "33.3%", "33.3%", "33.3%"], ["cand", "66.7%", "33.3%", "0.0%"]]
    assert grid.numeric == [False, True, True, True]
    assert grid.notes == ["Right: F1 of at least 0.5 (no answer is exactly a reference)."]
    assert causes.causes_grid([base], "test", "exact_match") is None
    moved = causes.moves_grid(base, cand, "test", "f1")
    assert moved is not None
    assert moved.headers == ["", RIGHT, READER_MISS, RETRIEVER_MISS]
    assert moved.rows == [[RIGHT, "1", "0", "0"], [READER_MISS, "0", "1", "0"], [RETRIEVER_MISS, "1", "0", "0"]]
    assert moved.numeric == [False, True, True, True]
    assert moved.title == "questions: baseline (rows) → cand (columns)"
    assert causes.moves_grid(base, cand, "dev", "f1") is None


def changed(wins: int, losses: int) -> Any:
    count = wins + losses + 1
    before = [row(str(i), 1, answer="old " + "x " * 30, f1=0.0 if i < wins else 1.0) for i in range(count)]
    after = [row(str(i), 3, answer="", f1=0.0 if wins <= i < wins + losses else 1.0) for i in range(count)]
    return causes.changed_grid(group(made("a", before)), group(made("b", after), label="cand"), "test/f1")


@pytest.mark.parametrize(
    ("wins", "losses", "shown", "left"),
    [(9, 9, (3, 3), 12), (9, 1, (5, 1), 4), (1, 9, (1, 5), 4), (2, 2, (2, 2), 0), (7, 0, (6, 0), 1)],
)
def test_of_the_changed_questions_as_many_won_as_lost_are_shown(wins, losses, shown, left) -> None:
    grid = changed(wins, losses)
    signs = [line[0][0] for line in grid.rows]
    assert signs == ["+"] * shown[0] + ["-"] * shown[1]
    assert grid.notes == (
        [f"{left} more changed: see --output report.html, or the dashboard's Questions."] if left else []
    )


def test_a_changed_question_is_shown_with_both_answers_or_else_both_ranks() -> None:
    grid = changed(1, 0)
    assert grid.headers == ["change", "question", "answer: baseline", "answer: candidate"]
    (line,) = grid.rows
    assert line[:2] == ["+1.00", "question 0"]
    assert line[2].startswith("old x x")
    assert (len(line[2]), line[2][-1]) == (36, "…")
    assert line[3] == "(none)"
    before = group(made("a", [row("1", 0, answer=None, f1=0.0), row("2", 1, answer=None, f1=1.0)]))
    after = group(made("b", [row("1", 2, answer=None, f1=0.5), row("2", 1, answer=None, f1=1.0)]))
    grid = causes.changed_grid(before, after, "test/f1")
    assert grid is not None
    assert grid.headers[2:] == ["gold at rank: baseline", "gold at rank: candidate"]
    assert grid.rows == [["+0.50", "question 1", "not in 6", "2"]]
    assert causes.changed_grid(before, before, "test/f1") is None
    assert causes.changed_grid(before, after, "dev/f1") is None


def test_long_texts_are_clipped_on_one_line() -> None:
    assert causes._clipped("a\n b", 5) == "a b"
    assert causes._clipped("abcde", 5) == "abcde"
    assert causes._clipped("abcdef", 5) == "abcd…"
