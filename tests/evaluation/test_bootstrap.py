"""Clusters, and intervals that cover what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rag_experiments.evaluation.bootstrap import (
    expanded_tail,
    gold_clusters,
    intervals,
    paired_difference,
    resampled_means,
)


def test_clusters_are_connected_components() -> None:
    # q0-q1 share a, q1-q2 share b: one cluster; q3 stands alone; q4 and q5 have no gold: each its own
    labels = gold_clusters([["a"], ["a", "b"], ["b"], ["c"], [], []])
    assert labels[0] == labels[1] == labels[2]
    assert len(set(labels[2:])) == 4
    assert set(labels) == set(range(4))


def test_no_questions() -> None:
    assert gold_clusters([]).shape == (0,)
    result = intervals({"m": []}, gold_clusters([]), 10)["m"]
    assert np.isnan(result.mean)
    assert np.isnan(result.low)


def test_same_seed_same_interval_and_bounds_around_the_mean() -> None:
    values = np.random.default_rng(0).random(80)
    first = intervals({"m": values}, np.arange(80), 500, seed=3)["m"]
    assert first == intervals({"m": values}, np.arange(80), 500, seed=3)["m"]
    assert first != intervals({"m": values}, np.arange(80), 500, seed=4)["m"]
    assert first.low < first.mean < first.high


def test_agrees_with_scipy_where_every_question_is_its_own_cluster() -> None:
    values = np.random.default_rng(1).normal(size=200)
    ours = intervals({"m": values}, np.arange(200), 20_000, seed=0)["m"]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", vectorized=True, rng=np.random.default_rng(0)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_a_duplicated_question_is_no_more_evidence() -> None:
    values = np.random.default_rng(2).random(50)
    once = intervals({"m": values}, np.arange(50), 4000)["m"]
    thrice = intervals({"m": np.repeat(values, 3)}, np.repeat(np.arange(50), 3), 4000)["m"]
    naive = intervals({"m": np.repeat(values, 3)}, np.arange(150), 4000)["m"]
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low)
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_few_clusters_give_a_wider_interval_as_t_does() -> None:
    assert expanded_tail(0.95, 10**6) == pytest.approx(0.025, rel=1e-4)
    factor = stats.norm.ppf(expanded_tail(0.95, 10)) / stats.t.ppf(0.025, 9)
    assert factor == pytest.approx(np.sqrt(10 / 9))
    assert expanded_tail(0.95, 1) == pytest.approx(0.025)


def test_missing_values_are_left_out() -> None:
    result = intervals({"m": [1.0, np.nan, 0.0, np.nan]}, np.arange(4), 2000)["m"]
    assert result.mean == 0.5
    assert (result.low, result.high) == (0.0, 1.0)


def test_many_questions_are_resampled_in_blocks() -> None:
    values = np.ones((1, 30_000))
    means = resampled_means(values, np.arange(30_000), 300, seed=0)  # 9 million weights: three blocks
    assert means.shape == (300, 1)
    assert (means == 1).all()


def test_paired_difference() -> None:
    rng = np.random.default_rng(5)
    before = rng.random(200)
    after = before + 0.1 + rng.normal(0, 0.01, 200)
    result = paired_difference(before, after, np.arange(200))
    assert result.mean == pytest.approx(0.1, abs=0.003)
    assert 0.097 < result.low < result.high < 0.103  # narrow, since paired
    with pytest.raises(ValueError, match="same questions"):
        paired_difference(before, after[:10], np.arange(200))


def test_clustered_interval_covers_and_the_naive_one_does_not() -> None:
    """95 % intervals of 400 data sets, 40 clusters of 1 to 12 questions that mostly agree; the truth is 0.5."""
    rng = np.random.default_rng(11)
    covered, covered_naive, sets = 0, 0, 400
    for trial in range(sets):
        sizes = rng.integers(1, 13, size=40)
        clusters = np.repeat(np.arange(40), sizes)
        easy = rng.choice([0.05, 0.95], size=40)[clusters]
        values = (rng.random(len(clusters)) < easy).astype(float)
        ours = intervals({"m": values}, clusters, 400, seed=trial)["m"]
        naive = intervals({"m": values}, np.arange(len(values)), 400, seed=trial)["m"]
        covered += ours.low <= 0.5 <= ours.high
        covered_naive += naive.low <= 0.5 <= naive.high
    assert covered / sets > 0.9
    assert covered_naive / sets < 0.7
