"""How much of a figure's spread each hyper-parameter explains, in the runs at hand.

One-way analysis of variance per hyper-parameter, with the share of variance explained corrected for the number of
levels (ε², Kelley 1935): a hyper-parameter with as many values as runs would otherwise explain everything. A numeric
one with many values is cut into quantiles first. Interactions are not counted, and in a search that dwelt on one
region the shares are those of that region; a forest (fANOVA) would count interactions, but with the 20–100 runs that
people have it mostly fits the seeds' noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVELS = 8
"""Distinct numbers above which a hyper-parameter is cut into quantiles."""
BINS = 5


@dataclass(frozen=True)
class Importance:
    """One hyper-parameter's."""

    key: str
    share: float
    """ε², 0 to 1."""
    direction: float | None
    """Spearman's correlation with the figure; None for one that is no number."""
    levels: int


def importances(columns: Mapping[str, Sequence[Any]], figures: Sequence[float]) -> list[Importance]:
    """The most important first. `columns` holds a value a run for each hyper-parameter, None where it has none."""
    figures_N = np.asarray(figures, dtype=float)
    found = []
    for key, values in columns.items():
        levels_N = levels(values)
        count = len(set(levels_N.tolist()))
        numbers = as_numbers(values)
        direction = None if numbers is None else spearman(numbers, figures_N)
        found.append(Importance(key, epsilon_squared(levels_N, figures_N), direction, count))
    return sorted(found, key=lambda item: (-item.share, item.key))


def epsilon_squared(levels_N: np.ndarray, figures_N: np.ndarray) -> float:
    """Share of the figures' variance between the levels, less what chance alone would put there.

    It follows from the F of `scipy.stats.f_oneway` (a test holds them together), which is infinite where nothing
    varies within the levels and no number where each is a single run: cases that have an answer here.
    """
    names, index_N = np.unique(levels_N, return_inverse=True)
    count, groups = len(figures_N), len(names)
    total = float(((figures_N - figures_N.mean()) ** 2).sum())
    if groups < 2 or groups >= count or total <= 0:
        return 0.0
    sizes_G = np.bincount(index_N)
    means_G = np.bincount(index_N, weights=figures_N) / sizes_G
    between = float((sizes_G * (means_G - figures_N.mean()) ** 2).sum())
    within = (total - between) / (count - groups)
    return min(1.0, max(0.0, (between - (groups - 1) * within) / total))


def levels(values: Sequence[Any]) -> np.ndarray:
    """A level number a run: the value's own, or its quantile's where there are many numbers."""
    numbers = as_numbers(values)
    if numbers is not None and len(np.unique(numbers)) > LEVELS:
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1]))
        return np.searchsorted(edges, numbers, side="right")
    names = {name: number for number, name in enumerate(dict.fromkeys(map(repr, values)))}
    return np.array([names[repr(value)] for value in values])


def as_numbers(values: Sequence[Any]) -> np.ndarray | None:
    """The values as numbers, or None where one is none."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    return np.array(values, dtype=float)


def is_logarithmic(numbers: np.ndarray) -> bool:
    """Whether positive numbers span so much that an axis of powers reads better."""
    return bool(len(numbers) and numbers.min() > 0 and numbers.max() / numbers.min() >= 15)


def spearman(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    """Rank correlation, ties at their mean rank; None where either is constant."""
    from scipy.stats import spearmanr

    if np.ptp(x_N) == 0 or np.ptp(y_N) == 0:  # scipy warns, and says nan
        return None
    value = float(spearmanr(x_N, y_N).statistic)
    return None if math.isnan(value) else value
