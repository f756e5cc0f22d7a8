"""Tests and corrections against scipy's frozen figures, definitions written as loops, and laws."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rag_experiments.comparison.analysis import statistics
from rag_experiments.comparison.analysis.statistics import holm, question_test, seed_test, sign_flip_p
from rag_experiments.evaluation.bootstrap import paired_difference

ORACLE = json.loads((Path(__file__).parent.parent / "oracles" / "statistics.json").read_text())
few = settings(max_examples=40, deadline=None, derandomize=True)


def test_p_over_clusters_is_scipys_exact_one() -> None:
    case = ORACLE["sign_flip"]
    assert question_test(case["values"], np.array(case["clusters"]), resamples=2**16).p == pytest.approx(case["p"])


def test_interval_over_clusters_is_scipys() -> None:
    case = ORACLE["interval"]
    found = question_test(case["values"], np.array(case["clusters"]), resamples=50_000)
    assert found.difference == pytest.approx(case["mean"])
    assert (found.low, found.high) == pytest.approx(case["low_high"], abs=0.004)


@pytest.mark.parametrize("case", ORACLE["welch"])
def test_seeds_are_scipys_welch(case: dict) -> None:
    found = seed_test(case["one"], case["other"])
    assert (found.p, found.low, found.high) == pytest.approx((case["p"], case["low"], case["high"]))
    assert found.difference == pytest.approx(np.mean(case["one"]) - np.mean(case["other"]))
    assert (found.candidate_seeds, found.baseline_seeds) == (len(case["one"]), len(case["other"]))
    assert found.note == ""
    swapped = seed_test(case["other"], case["one"])
    assert (swapped.p, swapped.low, swapped.high) == pytest.approx((found.p, -found.high, -found.low))


@pytest.mark.parametrize("case", ORACLE["holm"])
def test_holm_is_closed_testing(case: dict) -> None:
    assert holm(case["p"]) == pytest.approx(case["adjusted"])


@few
@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.3, 1.0]), max_size=6), st.randoms(use_true_random=False))
def test_holm_from_its_definition(p_values, chance) -> None:
    """A hypothesis falls where Bonferroni rejects every intersection of hypotheses that it is part of."""
    everyone = range(len(p_values))
    families = [f for size in range(1, len(p_values) + 1) for f in itertools.combinations(everyone, size)]
    bonferroni = {family: min(1.0, len(family) * min(p_values[i] for i in family)) for family in families}
    adjusted = holm(p_values)
    assert adjusted == pytest.approx([max(p for f, p in bonferroni.items() if i in f) for i in everyone])
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = chance.sample(everyone, len(p_values))
    assert holm([p_values[i] for i in order]) == pytest.approx([adjusted[i] for i in order])


moved = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])


@few
@given(st.lists(moved, min_size=1, max_size=9))
def test_p_is_the_share_of_labellings_at_least_as_extreme(sums) -> None:
    labellings = [
        abs(sum(s * v for s, v in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    expected = np.mean(np.array(labellings) >= abs(sum(sums)) - 1e-12)
    assert sign_flip_p(np.array(sums)) == pytest.approx(expected)
    assert sign_flip_p(-np.array(sums)) == pytest.approx(expected)


def test_p_of_more_labellings_than_resamples_is_drawn_and_never_zero() -> None:
    sums = np.ones(30)
    assert sign_flip_p(sums) == pytest.approx(2 / 10_000)  # (0 + 1) / (9999 + 1), for both tails
    assert sign_flip_p(sums, resamples=99) == pytest.approx(2 / 100)
    near = np.random.default_rng(1).normal(0.1, 1, 40)
    assert sign_flip_p(near, seed=1) != sign_flip_p(near, seed=2)
    assert sign_flip_p(near) == sign_flip_p(near, seed=0, resamples=9999)
    assert sign_flip_p(near) == pytest.approx(stats.ttest_1samp(near, 0).pvalue, abs=0.03)


def test_exact_up_to_as_many_labellings_as_resamples() -> None:
    sums = np.arange(1.0, 11.0)
    assert sign_flip_p(sums, resamples=1024) == pytest.approx(2 / 1024)
    assert sign_flip_p(sums, resamples=1023) >= 2 / 1024  # drawn: the one as given, and what chance adds


def test_equal_sums_on_paper_are_equal_in_the_test() -> None:
    sevenths = np.array([-3, 4, 2, 4, -2, 1, -3, -6, -1, -2, 6])
    assert sevenths.sum() == 0
    assert (sevenths / 7).sum() != 0  # in binary
    assert sign_flip_p(sevenths / 7) == 1, "no labelling is less extreme than nothing"
    assert sign_flip_p(np.array([1e-13, 1.0, 1.0])) == sign_flip_p(np.array([1.0, 1.0]))


def test_the_normal_limit_begins_with_many_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.array([2.0, 1.0, 1.0, -1.0])
    expected = 2 * stats.norm.sf(3 / math.sqrt(7))
    monkeypatch.setattr(statistics, "MANY_CLUSTERS", 4)
    assert sign_flip_p(sums) == pytest.approx(expected)
    assert sign_flip_p(-sums) == pytest.approx(expected)
    monkeypatch.setattr(statistics, "MANY_CLUSTERS", 5)
    assert sign_flip_p(sums) == pytest.approx(
        np.mean([abs(np.dot(s, sums)) >= 3 for s in itertools.product([1, -1], repeat=4)])
    )


clustered = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([-1.0, 0.0, 0.5, 1.0, float("nan")])), min_size=2, max_size=25
)


@few
@given(clustered)
def test_a_test_over_clusters_from_a_plain_loop(questions) -> None:
    there = [(cluster, value) for cluster, value in questions if value == value]
    if not there:
        with pytest.raises(ValueError, match="no question"):
            question_test([v for _, v in questions], np.array([c for c, _ in questions]))
        return
    found = question_test([v for _, v in questions], np.array([c for c, _ in questions]), resamples=64)
    values: dict[int, list[float]] = {}
    for cluster, value in there:
        values.setdefault(cluster, []).append(value)
    mean = sum(v for _, v in there) / len(there)
    assert found.difference == pytest.approx(mean)
    assert (found.questions, found.clusters) == (len(there), len(values))
    if len(values) == 1:
        assert found.detectable == math.inf
        assert found.p == 1
        return
    # the standard error of a ratio of cluster sums to cluster sizes
    squares = sum((sum(group) - len(group) * mean) ** 2 for group in values.values())
    error = math.sqrt(squares * len(values) / (len(values) - 1)) / len(there)
    assert found.detectable == pytest.approx((1.959964 + 0.841621) * error, rel=1e-6)
    assert found.low - 1e-12 <= found.difference <= found.high + 1e-12 or len(values) < 4


def test_detectable_difference_of_clusters_of_three_equals_that_of_their_means() -> None:
    """Questions that always move together are one observation a cluster."""
    draws = np.random.default_rng(2).normal(0, 1, 40)
    together = question_test(np.repeat(draws, 3), np.repeat(np.arange(40), 3), resamples=50)
    alone = question_test(draws, np.arange(40), resamples=50)
    assert together.detectable == pytest.approx(alone.detectable)
    assert alone.detectable == pytest.approx(2.801585 * draws.std(ddof=1) / math.sqrt(40), rel=1e-5)
    assert (together.questions, together.clusters) == (120, 40)
    assert together.p == pytest.approx(alone.p)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


def test_what_is_left_unsaid_is_seed_0_and_9999_resamples() -> None:
    draws = np.random.default_rng(3).normal(0.2, 1, 40)
    plain = question_test(draws, np.arange(40))
    assert plain == question_test(draws, np.arange(40), seed=0, resamples=9999)
    for other in ({"seed": 1}, {"resamples": 999}):
        changed = question_test(draws, np.arange(40), **other)
        assert changed.p != plain.p
        assert (changed.low, changed.high) != (plain.low, plain.high)
        assert changed.p == sign_flip_p(draws, **other)
        interval = paired_difference(np.zeros(40), draws, np.arange(40), **{"resamples": 9999, "seed": 0} | other)
        assert (changed.low, changed.high) == (interval.low, interval.high)


def test_seeds_that_cannot_say_keep_their_difference_and_number() -> None:
    one_side = seed_test([0.5, 0.75], [0.25])
    assert (one_side.difference, one_side.candidate_seeds, one_side.baseline_seeds) == (0.375, 2, 1)
    assert (one_side.low, one_side.high, one_side.p) == (None, None, None)
    other_side = seed_test([0.25], [0.5, 0.75])
    assert (other_side.difference, other_side.candidate_seeds, other_side.baseline_seeds) == (-0.375, 1, 2)
    assert other_side.note == "one side has a single seed"
    same = seed_test([0.5, 0.5, 0.5], [0.25, 0.25])
    assert (same.difference, same.candidate_seeds, same.baseline_seeds) == (0.25, 3, 2)
    assert seed_test([0.1 + 0.2, 0.3], [0.3, 0.3]).note == "every seed gives the same figure"  # but for rounding
    assert seed_test([0.5, 0.5], [0.4, 0.41]).p is not None, "the spread of one side counts"
    assert seed_test([0.4, 0.41], [0.5, 0.5]).p is not None
