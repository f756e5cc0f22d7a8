"""Bootstrap intervals over questions; whole clusters of questions that share a gold passage are resampled.

Two questions on one passage usually succeed or fail together, so resampling them one by one would count them as twice
the evidence. Therefore whole clusters are drawn (Field & Welsh 2007). A cluster is a connected component of the graph
in which questions with a common gold passage are linked. The intervals are percentile intervals (Efron & Tibshirani
1993, ch. 13), widened for the number of clusters as t intervals are (Hesterberg 2015, sec. 4.4); without that they are
too narrow for a few dozen clusters. `scipy.stats.bootstrap` is not used because it draws single observations, not
clusters of different sizes, and does not use the same resamples for every metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CELLS = 4_000_000
"""Number of weights in memory at once: 32 MB for any number of questions."""


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval; all NaN if there are no values."""

    mean: float
    low: float
    high: float


def gold_clusters(gold_ids: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Cluster number per question, 0 … C-1. Questions share a cluster if gold passages link them, also through others.

    A question without a gold passage is a cluster of its own.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(gold_ids)
    passages: dict[str, int] = {}
    pairs = [(row, passages.setdefault(p, count + len(passages))) for row, ids in enumerate(gold_ids) for p in ids]
    size = count + len(passages)
    edges = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return np.unique(labels[:count], return_inverse=True)[1].astype(np.int64)


def cluster_sums(values_MQ: NDArray, clusters_Q: NDArray) -> tuple[NDArray, NDArray]:
    """Sum and number of the values that are not NaN, per metric and cluster: two arrays `[M, C]`."""
    present_MQ = ~np.isnan(values_MQ)
    filled_MQ = np.where(present_MQ, values_MQ, 0.0)
    sums_MC = np.stack([np.bincount(clusters_Q, row) for row in filled_MQ])
    counts_MC = np.stack([np.bincount(clusters_Q, row) for row in present_MQ.astype(float)])
    return sums_MC, counts_MC


def resampled_means(values_MQ: NDArray, clusters_Q: NDArray, resamples: int, seed: int) -> NDArray[np.float64]:
    """`[resamples, M]`: the mean of each metric in each resample of clusters; all metrics use the same resamples.

    NaN marks a question without the metric. A resample without any value of a metric gives NaN.
    """
    sums_MC, counts_MC = cluster_sums(np.asarray(values_MQ, dtype=np.float64), clusters_Q)
    means = []
    for weights_RC in _weights(sums_MC.shape[1], resamples, seed):
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append((weights_RC @ sums_MC.T) / (weights_RC @ counts_MC.T))
    return np.concatenate(means) if means else np.empty((0, len(values_MQ)))


def _weights(clusters: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yields how often each cluster is drawn, in blocks `[r, C]` with `resamples` rows in total."""
    rng = np.random.default_rng(seed)
    if clusters == 0:
        return
    block = max(1, _CELLS // clusters)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.float64)


def intervals(
    values: Mapping[str, Sequence[float]] | Mapping[str, NDArray],
    clusters: NDArray,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Mean and interval per metric; NaN marks a question without the metric."""
    if not values:
        return {}
    values_MQ = np.stack([np.asarray(row, dtype=np.float64) for row in values.values()])
    present_M = [bool((~np.isnan(row)).any()) for row in values_MQ]
    means_M = [
        float(np.nanmean(row)) if there else float("nan") for row, there in zip(values_MQ, present_M, strict=True)
    ]
    drawn_RM = resampled_means(values_MQ, clusters, resamples, seed)
    result = {}
    for column, name in enumerate(values):
        drawn_R = drawn_RM[:, column]
        drawn_R = drawn_R[~np.isnan(drawn_R)]
        clusters_there = len(np.unique(clusters[~np.isnan(values_MQ[column])]))
        tail = expanded_tail(level, clusters_there)
        low, high = np.quantile(drawn_R, [tail, 1 - tail]) if drawn_R.size else (np.nan, np.nan)
        result[name] = Interval(means_M[column], float(low), float(high))
    return result


def expanded_tail(level: float, clusters: int) -> float:
    """The share of resampled means beyond each end of the interval, widened as a t interval for this many clusters."""
    from scipy.special import ndtr, stdtrit

    tail = (1 - level) / 2
    if clusters < 2:
        return tail
    return float(ndtr(np.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, tail)))


def paired_difference(
    before: Sequence[float] | NDArray,
    after: Sequence[float] | NDArray,
    clusters: NDArray,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean and interval of `after - before` over the same questions.

    Raises:
        ValueError: the two arrays differ in shape.
    """
    before_Q, after_Q = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before_Q.shape != after_Q.shape:
        raise ValueError(f"paired values need the same questions: {before_Q.shape} and {after_Q.shape}")
    return intervals({"difference": after_Q - before_Q}, clusters, resamples, seed, level)["difference"]
