"""Clusters, and intervals that cover what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rag_experiments.evaluation import bootstrap
from rag_experiments.evaluation.bootstrap import (
    Interval,
    cluster_sums,
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
    assert stats.norm.ppf(expanded_tail(0.9, 2)) == pytest.approx(np.sqrt(2) * stats.t.ppf(0.05, 1))
    assert expanded_tail(0.95, 1) == pytest.approx(0.025)


def test_missing_values_are_left_out() -> None:
    result = intervals({"m": [1.0, np.nan, 0.0, np.nan]}, np.arange(4), 2000)["m"]
    assert result.mean == 0.5
    assert (result.low, result.high) == (0.0, 1.0)


def test_resamples_are_the_same_whether_memory_holds_them_at_once_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = np.random.default_rng(6).random((2, 40)), np.arange(40) // 2
    at_once = resampled_means(values, clusters, 50, seed=0)
    for rows in (1, 7, 50):  # 50 resamples in blocks of 7 leave a part of one
        monkeypatch.setattr(bootstrap, "_CELLS", rows * 20)
        assert resampled_means(values, clusters, 50, seed=0) == pytest.approx(at_once, rel=1e-12)
    monkeypatch.setattr(bootstrap, "_CELLS", 3)  # less than one resample has clusters
    assert resampled_means(values, clusters, 50, seed=0) == pytest.approx(at_once, rel=1e-12)
    assert len({tuple(row) for row in at_once}) == 50, "no block repeats another"
    monkeypatch.setattr(bootstrap, "_CELLS", 7 * 20 + 19)
    assert [len(block) for block in bootstrap._weights(20, 50, 0)] == [7] * 7 + [1], "no more than fits"


def test_a_resample_draws_as_many_clusters_as_there_are_each_as_likely() -> None:
    count = 12
    drawn_RC = resampled_means(np.eye(count), np.arange(count), 4000, seed=0) * count  # how often each was drawn
    assert drawn_RC.sum(axis=1) == pytest.approx(count)
    assert drawn_RC == pytest.approx(drawn_RC.round())
    assert drawn_RC.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert drawn_RC.var(axis=0) == pytest.approx(1 - 1 / count, abs=0.15)  # of a multinomial


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 1.0, float("nan")])), min_size=1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_cluster_sums_are_those_of_a_loop_over_what_is_there(questions) -> None:
    clusters = np.unique([cluster for cluster, _ in questions], return_inverse=True)[1]
    values = np.array([[value for _, value in questions], [1.0] * len(questions)])
    sums, counts = cluster_sums(values, clusters)
    for metric, cluster in np.ndindex(sums.shape):
        there = [v for v, c in zip(values[metric], clusters, strict=True) if c == cluster and v == v]
        assert (sums[metric, cluster], counts[metric, cluster]) == (sum(there), len(there))
    assert sums.shape == counts.shape == (2, clusters.max() + 1)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=3), max_size=9))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_clusters_are_those_of_a_loop_that_joins_what_shares_a_passage(gold) -> None:
    groups: list[tuple[set[int], set[str]]] = []
    for question, ids in enumerate(gold):
        touched = [group for group in groups if group[1] & set(ids)]
        groups = [group for group in groups if group not in touched]
        groups.append(({question}.union(*(g[0] for g in touched)), set(ids).union(*(g[1] for g in touched))))
    labels = gold_clusters(gold)
    assert len(labels) == len(gold)
    assert sorted(map(sorted, (np.flatnonzero(labels == c).tolist() for c in set(labels.tolist())))) == sorted(
        sorted(members) for members, _ in groups
    )
    assert set(labels.tolist()) == set(range(len(groups)))


def test_the_interval_is_of_the_mean_over_the_values_that_are_there() -> None:
    """Missing values are neither zeros nor evidence: the interval is that of the other questions alone."""
    draw = np.random.default_rng(8)
    values, clusters = draw.random(60) ** 3, np.arange(60) // 2
    there = draw.random(60) < 0.6
    whole = intervals({"m": np.where(there, values, np.nan)}, clusters, 8000)["m"]
    alone = intervals({"m": values[there]}, np.unique(clusters[there], return_inverse=True)[1], 8000)["m"]
    assert whole.mean == alone.mean == pytest.approx(values[there].sum() / there.sum())
    assert whole.low < whole.mean < whole.high
    assert (whole.low, whole.high) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_the_tails_are_those_of_the_clusters_that_have_the_metric() -> None:
    values = np.random.default_rng(10).random(10)
    draws = {"few": np.where(np.arange(10) < 5, values, np.nan), "all": values}
    found = intervals(draws, np.arange(10), 3000)
    means = resampled_means(np.stack(list(draws.values())), np.arange(10), 3000, 0)
    for column, (name, clusters) in enumerate([("few", 5), ("all", 10)]):
        there = means[:, column][~np.isnan(means[:, column])]
        tail = stats.norm.cdf(np.sqrt(clusters / (clusters - 1)) * stats.t.ppf(0.025, clusters - 1))
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.quantile(there, [tail, 1 - tail])))


def test_the_interval_is_scipys_frozen_one_over_clusters_of_unlike_size() -> None:
    oracle = json.loads((Path(__file__).parent.parent / "oracles" / "statistics.json").read_text())["interval"]
    found = intervals({"m": oracle["values"]}, np.array(oracle["clusters"]), 100_000)["m"]
    assert found.mean == pytest.approx(oracle["mean"])
    assert (found.low, found.high) == pytest.approx(oracle["low_high"], abs=0.003)


def test_a_metric_that_no_question_has(recwarn: pytest.WarningsRecorder) -> None:
    found = intervals({"none": [np.nan, np.nan], "some": [1.0, 1.0]}, np.arange(2), 20)
    assert np.isnan([found["none"].mean, found["none"].low, found["none"].high]).all()
    assert found["some"] == Interval(1.0, 1.0, 1.0)
    assert intervals({}, np.arange(2)) == {}
    assert resampled_means(np.empty((2, 0)), np.arange(0), 5, 0).shape == (0, 2)
    assert not recwarn.list


def test_an_interval_says_its_level_and_what_is_left_unsaid_is_95_percent_of_1000_resamples_by_seed_0() -> None:
    values = np.random.default_rng(9).random(30)
    plain = intervals({"m": values}, np.arange(30))["m"]
    assert plain == intervals({"m": values}, np.arange(30), resamples=1000, seed=0, level=0.95)["m"]
    assert plain == paired_difference(np.zeros(30), values, np.arange(30))
    for other in ({"resamples": 999}, {"seed": 1}, {"level": 0.9}):
        changed = intervals({"m": values}, np.arange(30), **other)["m"]
        assert changed != plain, other
        assert changed == paired_difference(np.zeros(30), values, np.arange(30), **other), other
    narrow = intervals({"m": values}, np.arange(30), level=0.5)["m"]
    assert narrow.high - narrow.low < 0.5 * (plain.high - plain.low)


def test_paired_difference_is_after_minus_before() -> None:
    assert paired_difference([0.0, 0.0], [1.0, 1.0], np.arange(2)) == Interval(1.0, 1.0, 1.0)


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


def test_an_interval_is_one_of_95_percent_unless_it_is_asked_otherwise() -> None:
    values = np.random.default_rng(0).random(40)
    clusters = np.arange(40)
    plain = paired_difference(np.zeros(40), values, clusters)
    assert plain == paired_difference(np.zeros(40), values, clusters, level=0.95)
    wider = paired_difference(np.zeros(40), values, clusters, level=0.99)
    assert wider.low < plain.low < plain.high < wider.high
