"""Tests and intervals for paired, clustered, seeded comparisons.

Two questions are answered separately (Dror et al. 2018; Bouthillier et al. 2021):

- *Would other questions agree?* The trained models are fixed; the questions are a sample. For each question, the seeds
  of each side are averaged, and the difference is computed. Questions that share a gold passage form a cluster. A
  randomisation test exchanges the labels of the two sides in whole clusters (`scipy.stats.permutation_test`). The
  interval is the percentile bootstrap over clusters.
- *Would other seeds agree?* The questions are fixed; the training seeds are a sample. Welch's t test and interval
  (`scipy.stats.ttest_ind`) use one figure per seed. A randomisation test would need four seeds per side to reach
  p < 0.05; the t test needs fewer, but assumes that figures are normally distributed over seeds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag_experiments.evaluation.bootstrap import cluster_sums, paired_difference

RESAMPLES = 9999
FEW_CLUSTERS = 20
"""With fewer clusters a bootstrap interval is too narrow, and a note reports this."""
MANY_CLUSTERS = 5_000
"""From this number on, the randomisation distribution is approximated as normal; sampling has a larger error."""
_CELLS = 2_000_000


@dataclass(frozen=True)
class QuestionTest:
    """Whether other questions would agree. `p` is never NaN; it is 1 if all differences are zero."""

    difference: float
    low: float
    high: float
    p: float
    questions: int
    clusters: int
    detectable: float
    """The difference that is detected four times in five at p < 0.05: 2.8 standard errors."""


@dataclass(frozen=True)
class SeedTest:
    """Whether other seeds would agree. If seeds cannot tell, `low`, `high` and `p` are None, and `note` says why."""

    difference: float
    low: float | None
    high: float | None
    p: float | None
    candidate_seeds: int
    baseline_seeds: int
    note: str = ""


def question_test(
    differences_Q: Sequence[float] | NDArray, clusters_Q: NDArray, seed: int = 0, resamples: int = RESAMPLES
) -> QuestionTest:
    """Test that the mean of per-question differences is zero.

    Args:
        differences_Q: candidate minus baseline per question; NaN if a side has no value.
        clusters_Q: cluster number per question.

    Raises:
        ValueError: no question has a value.
    """
    values_Q = np.asarray(differences_Q, dtype=np.float64)
    measured_Q = ~np.isnan(values_Q)
    values_Q = values_Q[measured_Q]
    if values_Q.size == 0:
        raise ValueError("no question has a value on both sides")
    clusters_Q = np.unique(np.asarray(clusters_Q)[measured_Q], return_inverse=True)[1]
    interval = paired_difference(np.zeros_like(values_Q), values_Q, clusters_Q, resamples, seed)
    sums_MC, counts_MC = cluster_sums(values_Q[None], clusters_Q)
    clusters = counts_MC.shape[1]
    residuals_C = sums_MC[0] - counts_MC[0] * interval.mean
    spread = math.inf
    if clusters > 1:
        spread = math.sqrt(float(residuals_C @ residuals_C) * clusters / (clusters - 1)) / values_Q.size
    return QuestionTest(
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p=sign_flip_p(sums_MC[0], seed, resamples),
        questions=values_Q.size,
        clusters=clusters,
        detectable=_detectable(spread),
    )


def _detectable(standard_error: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(0.975) + norm.ppf(0.8)) * standard_error


def sign_flip_p(sums_C: NDArray, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p of the randomisation test that exchanges the labels of the sides in whole clusters.

    The test is exact if 2^C ≤ `resamples`. From `MANY_CLUSTERS` on it uses the normal limit, because sampling would
    take minutes. Clusters with sum zero have no effect and are left out.
    """
    from scipy.stats import norm, permutation_test

    sums_C = sums_C[np.abs(sums_C) > 1e-12]
    if sums_C.size == 0:
        return 1.0
    if sums_C.size == 1:  # scipy needs two observations; here both labellings are equally extreme
        return 1.0
    if sums_C.size >= MANY_CLUSTERS:
        return float(2 * norm.sf(abs(sums_C.sum()) / math.sqrt(float(sums_C @ sums_C))))
    # Round all sums alike, so that sums that are mathematically equal compare as equal.
    result = permutation_test(
        (sums_C,),
        lambda x, axis: np.round(np.sum(x, axis=axis), 9),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        batch=max(1, _CELLS // sums_C.size),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def seed_test(candidate: Sequence[float], baseline: Sequence[float]) -> SeedTest:
    """Welch's test on one figure per seed."""
    from scipy.stats import ttest_ind

    one, other = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    difference = float(one.mean() - other.mean())
    if one.size < 2 or other.size < 2:
        which = "both sides have" if one.size < 2 and other.size < 2 else "one side has"
        return SeedTest(difference, None, None, None, one.size, other.size, f"{which} a single seed")
    if max(np.ptp(one), np.ptp(other)) < 1e-12:
        return SeedTest(difference, None, None, None, one.size, other.size, "every seed gives the same figure")
    with (
        warnings.catch_warnings()
    ):  # scipy warns if all seeds of one side give one figure; the spread of the other is used
        warnings.simplefilter("ignore", RuntimeWarning)
        result = ttest_ind(one, other, equal_var=False)
    interval = result.confidence_interval(0.95)
    return SeedTest(difference, float(interval.low), float(interval.high), float(result.pvalue), one.size, other.size)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted by Holm's (1979) step-down method, in the given order.

    Implemented here because scipy only corrects for false discoveries, and nothing else here needs statsmodels.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
