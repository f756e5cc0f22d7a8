"""How much of a figure's variance each hyper-parameter explains in the given runs.

This is a one-way analysis of variance per hyper-parameter. The explained share of variance is corrected for the number
of levels (ε², Kelley 1935); otherwise a hyper-parameter with as many values as runs would explain everything. A
numeric hyper-parameter with many values is first cut into quantiles. Interactions are not counted. After a search, the
shares describe mainly the region that was searched. A forest (fANOVA) would count interactions, but with the usual 20
to 100 runs it mostly fits the noise of the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVELS = 8
"""With more distinct numbers than this, a hyper-parameter is cut into quantiles."""
BINS = 5


@dataclass(frozen=True)
class Importance:
    """The importance of one hyper-parameter."""

    key: str
    share: float
    """ε², 0 to 1."""
    direction: float | None
    """Spearman's correlation with the figure; None if the hyper-parameter is not numeric."""
    levels: int


def importances(columns: Mapping[str, Sequence[Any]], figures: Sequence[float]) -> list[Importance]:
    """Importances, the largest first. `columns` holds one value per run for each hyper-parameter, or None."""
    figures_N = np.asarray(figures, dtype=float)
    items = []
    for key, values in columns.items():
        levels_N = levels(values)
        count = len(set(levels_N.tolist()))
        numbers = as_numbers(values)
        direction = None if numbers is None else spearman(numbers, figures_N)
        items.append(Importance(key, epsilon_squared(levels_N, figures_N), direction, count))
    return sorted(items, key=lambda item: (-item.share, item.key))


def epsilon_squared(levels_N: np.ndarray, figures_N: np.ndarray) -> float:
    """Share of the figures' variance between the levels, minus the share expected by chance.

    A test compares it with the F of `scipy.stats.f_oneway`. That F is infinite if nothing varies within the levels, and
    NaN if each level is a single run; this function has a result in both cases.
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
    """One level number per run: that of its value, or of the value's quantile if there are many numbers."""
    numbers = as_numbers(values)
    if numbers is not None and len(np.unique(numbers)) > LEVELS:
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1]))
        return np.searchsorted(edges, numbers, side="right")
    names = {name: number for number, name in enumerate(dict.fromkeys(map(repr, values)))}
    return np.array([names[repr(value)] for value in values])


def as_numbers(values: Sequence[Any]) -> np.ndarray | None:
    """The values as numbers, or None if one is not a number."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    return np.array(values, dtype=float)


def is_logarithmic(numbers: np.ndarray) -> bool:
    """Whether positive numbers have such a wide range that a logarithmic axis is easier to read."""
    return bool(len(numbers) and numbers.min() > 0 and numbers.max() / numbers.min() >= 15)


def spearman(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    """Rank correlation with mean ranks for ties; None if either side is constant."""
    from scipy.stats import spearmanr

    if np.ptp(x_N) == 0 or np.ptp(y_N) == 0:  # scipy would warn and return nan
        return None
    value = float(spearmanr(x_N, y_N).statistic)
    return None if math.isnan(value) else value
