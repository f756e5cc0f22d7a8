"""Write statistics.json: what scipy says of small data sets made here, and Holm's correction from its definition.

python tests/oracles/make_scipy.py > tests/oracles/statistics.json
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import scipy
from scipy import stats


def clustered(clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences of right and wrong answers in clusters of 1 to 6 questions that mostly move together."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(clusters), draw.integers(1, 7, clusters))
    tendency = draw.normal(0.25, 0.5, clusters)[labels]
    return np.sign(tendency) * (draw.random(len(labels)) < np.abs(tendency)), labels


def sums(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([f(values[labels == c]) for c in np.unique(labels)]) for f in (np.sum, np.size))


def interval(values: np.ndarray, labels: np.ndarray) -> list[float]:
    """The percentile interval over clusters, at the level that makes it as much wider as t is than the normal."""
    totals, sizes = sums(values, labels)
    count = len(totals)
    tail = stats.norm.cdf(np.sqrt(count / (count - 1)) * stats.t.ppf(0.025, count - 1))
    found = stats.bootstrap(
        (totals, sizes),
        lambda t, s, axis: t.sum(axis=axis) / s.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=400_000,
        batch=10_000,
        confidence_level=1 - 2 * tail,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def sign_flip(values: np.ndarray, labels: np.ndarray) -> float:
    """Exact: every labelling of the clusters whose sum is not zero."""
    totals = sums(values, labels)[0]
    found = stats.permutation_test(
        (totals[totals != 0],),
        lambda x, axis: np.sum(x, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    return float(found.pvalue)


def holm(p_values: list[float]) -> list[float]:
    """By closed testing: a hypothesis falls where Bonferroni rejects every intersection that it is part of."""
    everyone = range(len(p_values))
    families = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everyone, size)]
    bonferroni = {family: min(1.0, len(family) * min(p_values[i] for i in family)) for family in families}
    return [max(p for family, p in bonferroni.items() if i in family) for i in everyone]


def welch(one: list[float], other: list[float]) -> dict[str, object]:
    found = stats.ttest_ind(one, other, equal_var=False)
    low, high = found.confidence_interval(0.95)
    return {"one": one, "other": other, "p": float(found.pvalue), "low": float(low), "high": float(high)}


def main() -> None:
    small, large = clustered(16, 3), clustered(60, 5)
    families = [
        [0.01],
        [0.04, 0.01, 0.03, 0.005],
        [0.5, 0.5, 0.02, 0.02],
        [0.0, 1.0, 0.3],
        [0.2, 0.012, 0.012, 0.9, 0.04],
    ]
    found = {
        "scipy": scipy.__version__,
        "sign_flip": {"values": small[0].tolist(), "clusters": small[1].tolist(), "p": sign_flip(*small)},
        "interval": {
            "values": large[0].tolist(),
            "clusters": large[1].tolist(),
            "mean": float(large[0].mean()),
            "low_high": interval(*large),
        },
        "welch": [welch([0.71, 0.72, 0.74], [0.66, 0.69, 0.64, 0.66]), welch([1.0, 2.0], [5.0, 5.0, 5.5])],
        "holm": [{"p": family, "adjusted": holm(family)} for family in families],
    }
    print("{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()) + "\n}")


if __name__ == "__main__":
    main()
