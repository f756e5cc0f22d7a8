"""What is said of a verdict, from figures made by hand: the borders of better, same, undecided, underpowered."""

from __future__ import annotations

import pytest

from rag_experiments.comparison.analysis.judgement import Comparison, Verdict, headline, p_text
from rag_experiments.comparison.analysis.statistics import QuestionTest, SeedTest
from rag_experiments.comparison.analysis.table import Group
from rag_experiments.comparison.analysis.verdict import adjust


def questions(difference=0.1, low=0.05, high=0.15, p=0.01, clusters=50, detectable=0.05) -> QuestionTest:
    return QuestionTest(difference, low, high, p, questions=80, clusters=clusters, detectable=detectable)


def seeds(difference=0.1, p=0.01, one=5, other=5, note="") -> SeedTest:
    return SeedTest(difference, None if p is None else 0.0, None if p is None else 1.0, p, one, other, note)


def verdict(
    test: QuestionTest | None = None,
    seed_test: SeedTest | None = None,
    metric: str = "test/f1",
    p: float | None = 0.01,
    p_seeds: float | None = None,
    **more,
) -> Verdict:
    test = questions() if test is None else test
    seed_test = seeds(p=None, note="both sides have a single seed") if seed_test is None else seed_test
    return Verdict(Group([], "candidate"), metric, 0.5, 0.6, test, seed_test, p_questions=p, p_seeds=p_seeds, **more)


def by_seeds(p_seeds: float | None, difference: float = 0.1, metric: str = "seconds/train") -> Verdict:
    return Verdict(Group([], "c"), metric, 0.5, 0.6, None, seeds(difference), p_seeds=p_seeds)


def test_one_holm_correction_over_the_p_values_of_questions_and_of_seeds() -> None:
    (both,), tests = adjust([verdict(questions(p=0.03), seeds(p=0.02))])
    assert tests == 2
    assert (both.p_questions, both.p_seeds) == (pytest.approx(0.04), pytest.approx(0.04))
    asked, tests = adjust([verdict(questions(p=0.01)), by_seeds(None), verdict(questions(p=0.04), seeds(p=0.015))])
    # sorted 0.01 (twice: a question test and the second verdict's seeds), 0.015, 0.04 times 4, 3, 2, 1
    assert tests == 4
    assert [v.p_questions for v in asked] == [pytest.approx(0.04), None, pytest.approx(0.04)]
    assert [v.p_seeds for v in asked] == [None, pytest.approx(0.04), pytest.approx(0.04)]
    assert adjust([]) == ([], 0)


def test_each_p_value_comes_back_to_its_own_verdict() -> None:
    p_values = [0.5, 0.001, 0.04]
    done, _ = adjust([verdict(questions(p=p)) for p in p_values])
    assert [v.p_questions for v in done] == [pytest.approx(0.5), pytest.approx(0.003), pytest.approx(0.08)]
    assert [v.questions.p for v in done] == p_values


@pytest.mark.parametrize(
    ("test", "p", "metric", "outcome"),
    [
        (questions(0.1), 0.049, "test/f1", "better"),
        (questions(-0.1), 0.049, "test/f1", "worse"),
        (questions(-0.1), 0.049, "seconds/train", "better"),
        (questions(0.1), 0.049, "dev/loss", "worse"),
        (questions(0.1), 0.05, "test/f1", "undecided"),
        (questions(0.1, p=0.001), 0.2, "test/f1", "undecided"),  # it is the corrected p that decides
        (questions(0.0, -0.019, 0.019), 0.9, "test/f1", "same"),
        (questions(0.0, -0.02, 0.01), 0.9, "test/f1", "undecided"),
        (questions(0.0, -0.01, 0.02), 0.9, "test/f1", "undecided"),
        (questions(0.001, 0.0005, 0.0015), 0.01, "test/f1", "better"),
    ],
)
def test_outcome_by_questions(test: QuestionTest, p: float, metric: str, outcome: str) -> None:
    assert verdict(test, seeds(-test.difference), metric=metric, p=p, p_seeds=0.001).outcome == outcome


@pytest.mark.parametrize(
    ("p", "difference", "outcome"),
    [(0.01, -1.0, "better"), (0.01, 1.0, "worse"), (0.06, 1.0, "undecided"), (None, 1.0, "undecided")],
)
def test_outcome_by_seeds_where_questions_have_no_figure(p: float | None, difference: float, outcome: str) -> None:
    found = by_seeds(p, difference)
    assert found.outcome == outcome
    assert found.question_sentence == "no figure per question"
    assert not found.underpowered
    assert found.power_sentence == ""


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (verdict(), "yes"),
        (verdict(questions(-0.1)), "yes, worse"),
        (verdict(questions(0, -0.01, 0.01), p=0.9), "no relevant difference"),
        (verdict(questions(detectable=0.02), p=0.9), "cannot tell"),
        (verdict(questions(detectable=0.021), p=0.9), "cannot tell (underpowered)"),
        (verdict(questions(clusters=20)), "yes"),
        (verdict(questions(clusters=19)), "yes (only 19 independent questions)"),
        (verdict(questions(clusters=19, detectable=0.5), p=0.9), "cannot tell (only 19 independent questions)"),
    ],
)
def test_would_other_questions_agree(found: Verdict, sentence: str) -> None:
    assert found.question_sentence == sentence


@pytest.mark.parametrize(
    ("test", "p", "sentence"),
    [
        (seeds(0.1), 0.049, "yes (5 against 5 seeds)"),
        (seeds(-0.1, one=3, other=4), 0.049, "yes, worse (3 against 4 seeds)"),
        (seeds(0.1), 0.05, "cannot tell (5 against 5 seeds)"),
        (seeds(0.1, one=4), 0.9, "cannot tell (underpowered: 4 against 5 seeds)"),
        (seeds(0.1, other=4), 0.9, "cannot tell (underpowered: 5 against 4 seeds)"),
        (seeds(p=None, note="one side has a single seed"), None, "cannot tell: one side has a single seed"),
    ],
)
def test_would_other_seeds_agree(test: SeedTest, p: float | None, sentence: str) -> None:
    assert verdict(questions(-0.3), test, p_seeds=p).seed_sentence == sentence


def test_what_it_would_take_grows_with_the_square_of_the_detectable_difference() -> None:
    found = verdict(questions(clusters=40, detectable=0.06), p=0.9)
    assert found.power_sentence == (
        "candidate, test/f1: with 40 independent questions only differences of 0.060 or more are reliably detected "
        "(four times in five); detecting 0.02 needs about 360"
    )
    assert verdict(questions(clusters=40, detectable=0.06)).power_sentence == "", "decided: power is no matter"


def comparison(*verdicts: Verdict, notes: tuple[str, ...] = ("a note",)) -> Comparison:
    return Comparison(Group([], "the base"), list(verdicts), 1, list(notes))


def test_the_table_of_verdicts() -> None:
    first = verdict(questions(0.1, 0.05, 0.15), seeds(0.1), p=0.0123, p_seeds=0.0004)
    grid = comparison(first, by_seeds(0.2), notes=("a note",)).grid()
    assert grid.title == "against the baseline: the base"
    assert grid.rows == [
        ["candidate", "test/f1", "0.500", "0.600", "+0.100 [+0.050, +0.150]", "0.012", "better", "yes",
         "yes (5 against 5 seeds), p < 0.001"],
        ["c", "seconds/train", "0.500", "0.600", "+0.100", "–", "undecided", "no figure per question",
         "cannot tell (5 against 5 seeds), p 0.200"],
    ]  # fmt: skip
    assert grid.headers == [
        "candidate", "metric", "baseline", "candidate", "difference [95 %]", "p (Holm)", "verdict",
        "other questions agree?", "other seeds agree?",
    ]  # fmt: skip
    assert [name for name, number in zip(grid.headers, grid.numeric, strict=True) if number] == [
        "baseline", "candidate", "difference [95 %]", "p (Holm)",
    ]  # fmt: skip
    assert grid.notes == ["a note"]
    worse = verdict(questions(-0.1, -0.15, -0.05)), verdict(questions(0, -0.01, 0.01), p=0.9)
    assert [row[6] for row in comparison(*worse).grid().rows] == ["worse", "no relevant difference"]


@pytest.mark.parametrize(("count", "more"), [(3, None), (4, 1), (6, 3)])
def test_three_sentences_on_power_and_the_rest_counted(count: int, more: int | None) -> None:
    weak = [verdict(questions(clusters=40 + i, detectable=0.06), p=0.9) for i in range(count)]
    notes = comparison(*weak).grid().notes
    assert [f"{40 + i} independent" in note for i, note in enumerate(notes[:3])] == [True] * 3
    assert notes[3:] == ([f"UNDERPOWERED: {more} more."] if more else []) + ["a note"]


def test_few_clusters_are_noted_once() -> None:
    few = verdict(questions(clusters=19))
    assert comparison(few, few, verdict()).grid().notes == [
        "Fewer than 20 independent questions: the interval is too narrow.",
        "a note",
    ]
    assert comparison(verdict(questions(clusters=20)), by_seeds(0.1)).grid().notes == ["a note"]


def test_records_hold_what_the_table_shows() -> None:
    found = comparison(verdict(seed_test=seeds(0.1), p_seeds=0.02, incomplete="why"), by_seeds(0.2)).records()
    first, second = found
    assert first == {
        "candidate": [],
        "baseline": [],
        "metric": "test/f1",
        "baseline_mean": 0.5,
        "candidate_mean": 0.6,
        "difference": pytest.approx(0.1),
        "outcome": "better",
        "underpowered": False, "lead": None,
        "incomplete": "why",
        "questions": {
            "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.01, "questions": 80, "clusters": 50,
            "detectable": 0.05, "p_holm": 0.01,
        },
        "seeds": {
            "difference": 0.1, "low": 0.0, "high": 1.0, "p": 0.01, "candidate_seeds": 5, "baseline_seeds": 5,
            "note": "", "p_holm": 0.02,
        },
    }  # fmt: skip
    assert second["questions"] is None
    assert second["incomplete"] is None
    assert comparison(verdict(questions(), p=0.9)).records()[0]["underpowered"] is True


def test_a_small_p_is_never_a_zero() -> None:
    assert [p_text(p) for p in (0.0, 0.00099, 0.001, 0.0516, 1.0)] == ["< 0.001", "< 0.001", "0.001", "0.052", "1.000"]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (verdict(), "candidate is better on f1: +0.100 [+0.050, +0.150]"),
        (verdict(questions(-0.1, -0.15, -0.05)), "candidate is worse on f1: -0.100 [-0.150, -0.050]"),
        (verdict(questions(0, -0.01, 0.01), p=0.9), "candidate makes no relevant difference on f1: +0.000 ["),
        (verdict(p=0.9), "candidate cannot be told from the baseline on f1: "),
    ],
)
def test_headline(found: Verdict, says: str) -> None:
    assert headline(found).startswith(says)
    assert headline(found).endswith("; other seeds: cannot tell: both sides have a single seed.")


ONE_SEED = "between these two runs; another seed may change it: "


@pytest.mark.parametrize(
    ("found", "lead"),
    [
        (verdict(seed_test=seeds(p=None, one=1, other=1)), ONE_SEED),
        (verdict(questions(0, -0.01, 0.01), seeds(p=None, one=1, other=1), p=0.9), ONE_SEED),
        (verdict(seed_test=seeds(p=None, one=1)), "between these runs; another seed may change it: "),
        (verdict(seed_test=seeds(), p_seeds=0.01), ""),
        (verdict(seed_test=seeds(), p_seeds=0.5), "with these seeds; others may not agree: "),
        (verdict(seed_test=seeds(-0.1), p_seeds=0.01), "with these seeds; others may not agree: "),
        (verdict(p=0.9, seed_test=seeds(), p_seeds=0.5), ""),
    ],
)
def test_the_first_words_say_where_seeds_are_unknown_or_disagree(found: Verdict, lead: str) -> None:
    assert found.lead == lead
    assert headline(found).startswith(lead + "candidate ")
    assert comparison(found).grid().rows[0][6].startswith(lead)


@pytest.mark.parametrize(("clusters", "outcome"), [(19, "undecided"), (149, "undecided"), (151, "same")])
def test_ties_on_few_questions_are_no_proof_of_equality(clusters: int, outcome: str) -> None:
    test = questions(0.0, 0.0, 0.0, p=1.0, clusters=clusters, detectable=0.0)
    assert verdict(test, p=1.0).outcome == outcome
