"""The tests against scipy, against hand-made cases, and against simulations whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from rag_experiments.comparison.analysis import statistics
from rag_experiments.comparison.analysis.statistics import holm, question_test, seed_test, sign_flip_p


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, never falling
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flip_is_exact_when_small() -> None:
    sums = np.array([3.0, 1.0, 2.0, -1.0, 0.0, 4.0])
    moved = sums[sums != 0]
    labellings = [abs(np.dot(signs, moved)) for signs in itertools.product([1, -1], repeat=len(moved))]
    share = np.mean(np.array(labellings) >= abs(moved.sum()) - 1e-9)
    assert sign_flip_p(sums) == pytest.approx(share)


def test_many_clusters_have_the_normal_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    for shift in (0.0, 0.02, 0.04):
        sums = rng.choice([-1.0, 1.0], 1500, p=[0.5 - shift, 0.5 + shift])
        drawn = sign_flip_p(sums)
        with monkeypatch.context() as patch:
            patch.setattr(statistics, "MANY_CLUSTERS", 1000)
            assert statistics.sign_flip_p(sums) == pytest.approx(drawn, abs=0.02)
    assert sign_flip_p(rng.normal(0.1, 1, 200_000)) < 1e-12  # no p is too small to be told


def test_nothing_differs() -> None:
    result = question_test(np.zeros(30), np.arange(30))
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)
    assert sign_flip_p(np.array([2.0])) == 1.0


def test_agrees_with_scipys_paired_t_test_where_that_is_right() -> None:
    differences = np.random.default_rng(3).normal(0.1, 1, 400)
    ours = question_test(differences, np.arange(400))
    theirs = stats.ttest_1samp(differences, 0)
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.015)
    interval = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=0.01)


def test_interval_agrees_with_scipys_bootstrap_of_a_ratio() -> None:
    rng = np.random.default_rng(4)
    clusters = np.sort(rng.integers(60, size=300))
    values = rng.normal(0.2, 1, 300) + rng.normal(0, 1, 60)[clusters]
    ours = question_test(values, clusters)
    present = np.unique(clusters)
    sums, counts = (np.array([f(values[clusters == c]) for c in present]) for f in (np.sum, np.size))
    theirs = stats.bootstrap(
        (sums, counts),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_missing_values_are_left_out() -> None:
    result = question_test([1.0, np.nan, 1.0, 0.0], np.array([0, 1, 2, 2]))
    assert (result.questions, result.clusters) == (3, 2)
    with pytest.raises(ValueError, match="no question"):
        question_test([np.nan], np.array([0]))


def simulate(trial: int, effect: float = 0.0, clusters: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Differences of right and wrong answers: questions on one passage are won and lost together."""
    rng = np.random.default_rng(trial)
    labels = np.repeat(np.arange(clusters), rng.integers(1, 10, size=clusters))
    tendency = np.clip(rng.normal(effect, 0.35, clusters), -0.95, 0.95)[labels]
    moved = rng.random(len(labels)) < np.abs(tendency)
    return np.sign(tendency) * moved, labels


def rates(effect: float, trials: int = 500) -> tuple[float, float, float]:
    """How often p < 0.05, the interval misses the truth of no effect, and the test that ignores clusters rejects."""
    found = [question_test(*simulate(t, effect), resamples=599) for t in range(trials)]
    naive = [sign_flip_p(simulate(t, effect)[0], resamples=599) for t in range(trials)]
    rejected = np.mean([test.p < 0.05 for test in found])
    missed = np.mean([not test.low <= 0 <= test.high for test in found])
    return float(rejected), float(missed), float(np.mean(np.array(naive) < 0.05))


def test_false_positive_rate_under_the_null() -> None:
    rejected, missed, naive = rates(effect=0.0)
    print(f"\nnull: p<0.05 in {rejected:.1%}, interval misses 0 in {missed:.1%}, without clusters {naive:.1%}")
    assert 0.025 <= rejected <= 0.08
    assert missed <= 0.10
    assert naive > 0.15


def test_power_where_there_is_something() -> None:
    assert rates(effect=0.25, trials=100)[0] > 0.8


def test_detectable_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(8)
    detectable = question_test(rng.normal(0, 1, 200), np.arange(200)).detectable
    found = [question_test(rng.normal(detectable, 1, 200), np.arange(200), resamples=499).p < 0.05 for _ in range(200)]
    assert 0.7 < np.mean(found) < 0.9


def test_seeds_are_welchs_test() -> None:
    one, other = [0.71, 0.72, 0.74], [0.66, 0.69, 0.64, 0.66]
    ours, theirs = seed_test(one, other), stats.ttest_ind(one, other, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.low == pytest.approx(theirs.confidence_interval(0.95).low)
    assert ours.difference == pytest.approx(np.mean(one) - np.mean(other))


def test_seeds_that_agree_on_one_side(recwarn: pytest.WarningsRecorder) -> None:
    result = seed_test([0.55, 0.56, 0.54], [0.1 + 0.2 + 0.2, 0.5, 0.5])
    assert result.p is not None
    assert result.p < 0.05
    assert not recwarn.list


@pytest.mark.parametrize(
    ("one", "other", "note"),
    [
        ([0.5], [0.4], "both sides have a single seed"),
        ([0.5, 0.6], [0.4], "one side has a single seed"),
        ([0.5, 0.5], [0.4, 0.4], "every seed gives the same figure"),
    ],
)
def test_what_seeds_cannot_say(one: list[float], other: list[float], note: str) -> None:
    result = seed_test(one, other)
    assert result.p is None
    assert result.note == note


def test_false_positive_rate_over_seeds() -> None:
    rng = np.random.default_rng(9)
    p_values = [seed_test(rng.normal(0, 1, 3), rng.normal(0, 1, 3)).p for _ in range(1000)]
    rate = np.mean(np.array(p_values) < 0.05)
    print(f"\nnull over 3 against 3 seeds: p<0.05 in {rate:.1%}")
    assert rate < 0.07  # Welch with so few is conservative
