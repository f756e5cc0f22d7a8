"""Two runs' predictions beside each other."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from rag_experiments.dashboard.pages import questions
from rag_experiments.dashboard.shared.address import View
from rag_experiments.dashboard.shared.corpus import passages_of
from rag_experiments.dashboard.shared.predictions import read_index
from rag_experiments.dashboard.shared.watch import Watch
from rag_experiments.dashboard.shared.wording import mark
from rag_experiments.data.passage_store import PassageStore, write_passages
from tests.dashboard import synthetic


def row(id_: str, retrieved: list[str], gold: list[str], hit: float, answer: str | None = None) -> dict:
    scores = [1.0 - 0.1 * rank for rank in range(len(retrieved))]
    return {
        "id": id_,
        "question": f"What is {id_}?",
        "retrieved_ids": retrieved,
        "retrieved_scores": scores,
        "gold_ids": gold,
        "answer": answer,
        "references": ["the red river"],
        "metrics": {"recall@1": hit},
    }


@pytest.fixture
def two(tmp_path: Path) -> Watch:
    """Runs A and B: on q1 B finds the gold passage first, on q2 A does, on q3 neither."""
    sides = {
        "a": [
            row("q1", ["p1", "p2", "p3"], ["p2"], 0.0, "a river that is Red"),
            row("q2", ["p5", "p6"], ["p5"], 1.0),
            row("q3", ["p7", "p8"], ["p9"], 0.0),
        ],
        "b": [
            row("q1", ["p2", "p4", "p1"], ["p2"], 1.0, ""),
            row("q2", ["p6", "p5"], ["p5"], 0.0),
            row("q3", ["p8", "p7"], ["p9"], 0.0),
        ],
    }
    corpus = synthetic.write_corpus(tmp_path / "cache")
    for seed, (name, rows) in enumerate(sides.items()):
        path = synthetic.write_run(tmp_path / "runs" / name, synthetic.config(seed=seed), corpus_hash=corpus)
        file = path / "predictions" / "test.jsonl"
        file.parent.mkdir()
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return Watch([tmp_path / "runs"], tmp_path / "cache")


def shown(watch: Watch, **choices: str) -> dict:
    keys = {run.name: key for key, run in watch.look().items()}
    query = {"a": keys["a"], "b": keys["b"], **choices}
    return questions.context(watch, View.read("questions", questions.DEFAULTS, query.items()))


def test_ranks_moves_and_gold(two: Watch) -> None:
    pair = shown(two)["pairs"][0]
    assert [(hit.rank, hit.id, hit.gold, hit.move) for hit in pair.sides[0].hits] == [
        (1, "p1", False, "↑2"),
        (2, "p2", True, "↓1"),
        (3, "p3", False, "new"),
    ]
    assert [(hit.id, hit.move) for hit in pair.sides[1].hits] == [("p2", "↑1"), ("p4", "new"), ("p1", "↓2")]
    assert [side.gold_rank for side in pair.sides] == [2, 1]
    assert pair.change == 1.0


def test_sides_meet_by_hash_and_show_places(tmp_path: Path, two: Watch) -> None:
    """A was measured before passages were shown by their place, B after; the corpus in the cache has places or not."""
    file = tmp_path / "runs" / "b" / "predictions" / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for one in rows:
        ids = [*one["retrieved_ids"], *one["gold_ids"]]
        one["hashed_as"] = {f"t.csv:{id_[1:]}": id_ for id_ in ids if id_ != "p4"}
        for name in ("retrieved_ids", "gold_ids"):
            one[name] = [id_ if id_ == "p4" else f"t.csv:{id_[1:]}" for id_ in one[name]]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    pairs = shown(two)["pairs"]
    assert [(hit.id, hit.shown_id, hit.gold, hit.move) for hit in pairs[0].sides[0].hits] == [
        ("p1", "t.csv:1", False, "↑2"),
        ("p2", "t.csv:2", True, "↓1"),
        ("p3", "p3", False, "new"),
    ]
    assert [(hit.shown_id, hit.gold, hit.move) for hit in pairs[0].sides[1].hits] == [
        ("t.csv:2", True, "↑1"),
        ("p4", False, "new"),
        ("t.csv:1", False, "↓2"),
    ]
    assert pairs[0].sides[1].hits[0].passage.title == "parser.2"
    assert pairs[2].missing == ["t.csv:9"]
    assert [side.gold_rank for side in pairs[0].sides] == [2, 1]


def test_hashes_of_an_old_run_are_shown_as_the_corpus_has_them(tmp_path: Path, two: Watch) -> None:
    folder = tmp_path / "cache" / "data" / "made-up"
    passages = [dataclasses.replace(one, place=f"t.csv:{one.id[1:]}") for one in PassageStore(folder)]
    shutil.rmtree(folder)
    folder.mkdir()
    write_passages(folder, passages)
    assert [hit.shown_id for hit in shown(two)["pairs"][0].sides[0].hits] == ["t.csv:1", "t.csv:2", "t.csv:3"]


def test_passages_come_from_the_corpus_of_the_run(two: Watch) -> None:
    found = shown(two)
    assert found["texts"]
    assert found["pairs"][0].sides[0].hits[0].passage.title == "stone.1"
    run = next(iter(two.look().values()))
    run.status["corpus_hash"] = "another"
    assert passages_of(run, ["p1"], two.cache) is None


def test_deeper_gold_is_listed_and_the_rest_counted(two: Watch) -> None:
    side = shown(two, depth="1")["pairs"][0].sides[0]
    assert [hit.rank for hit in side.hits] == [1, 2]
    assert side.deeper == 1


def test_gold_that_nobody_retrieved_is_named(two: Watch) -> None:
    assert [pair.missing for pair in shown(two)["pairs"]] == [[], [], ["p9"]]


def test_matching_words_of_the_answer_are_marked() -> None:
    assert mark("A river, that is Red", ["the red river"]) == [
        ("A", False),
        (" ", False),
        ("river", True),
        (", ", False),
        ("that", False),
        (" ", False),
        ("is", False),
        (" ", False),
        ("Red", True),
    ]
    assert mark("the a", ["the a"]) == [("the", False), (" ", False), ("a", False)]
    assert mark("", ["x"]) == []


@pytest.mark.parametrize(
    ("choices", "ids"),
    [
        ({"show": "better"}, ["q1"]),
        ({"show": "worse"}, ["q2"]),
        ({"show": "same"}, ["q3"]),
        ({"show": "both_miss"}, ["q3"]),
        ({"order": "loss"}, ["q2", "q3", "q1"]),
        ({"order": "gain"}, ["q1", "q3", "q2"]),
        ({"find": "what q2"}, ["q2"]),
        ({"find": "river RED that"}, ["q1"]),
        ({"find": "zebra"}, []),
        ({"show": "nonsense", "order": "nonsense", "metric": "nonsense", "stage": "nonsense"}, ["q1", "q2", "q3"]),
    ],
)
def test_choice_order_and_search(two: Watch, choices: dict[str, str], ids: list[str]) -> None:
    assert [pair.entry.id for pair in shown(two, **choices)["pairs"]] == ids


def test_wins_and_losses_are_counted(two: Watch) -> None:
    assert shown(two)["counts"] == {"all": 3, "better": 1, "worse": 1, "same": 1, "both_miss": 1}


def test_other_questions_and_other_corpora_are_said(two: Watch) -> None:
    assert shown(two)["unlike"] is None
    run = next(run for run in two.look().values() if run.name == "b")
    run.status["corpus_hash"] = "another"
    assert "different corpora" in shown(two)["unlike"]


def test_an_index_survives_broken_lines_and_finds_every_row(tmp_path: Path) -> None:
    rows = [row(f"q{number}", ["p1"], ["p1"], 1.0, "ünï " * number) for number in range(5)]
    lines = [json.dumps(one, ensure_ascii=False) for one in rows]
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join([*lines[:2], "{broken", '{"id": "x"}', "[]", *lines[2:]]) + "\n\n", encoding="utf-8")
    index = read_index(path)
    assert list(index.entries) == ["q0", "q1", "q2", "q3", "q4"]
    assert index.broken == 3
    assert index.rows(["q4", "q0", "gone"]) == {"q4": rows[4], "q0": rows[0]}
