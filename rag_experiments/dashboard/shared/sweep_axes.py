"""Axes of the sweep's figures: the position and the label of a value, and the colour of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rag_experiments.comparison.output.figure_style import escaped
from rag_experiments.comparison.records.metric_fields import short_value
from rag_experiments.dashboard.shared.importance import as_numbers, is_logarithmic

SCALE = ["#5d4fb8", "#3f6fe0", "#1f93b5", "#2fa56d", "#b0b92f", "#f2a72e"]
"""From low to high: dark to light and blue to yellow, readable without colour and on both themes."""
BANDS = 12


@dataclass
class Axis:
    """One hyper-parameter or figure over the runs."""

    name: str
    label: str
    values: Sequence[Any]

    def __post_init__(self) -> None:
        self.numbers = as_numbers(self.values)
        self.logarithmic = self.numbers is not None and is_logarithmic(self.numbers)
        self.names = sorted({short_value(value) for value in self.values}) if self.numbers is None else []

    @property
    def scaled(self) -> np.ndarray:
        """The position of each run on the axis, 0 to 1."""
        if self.numbers is None:
            places = {name: (i + 0.5) / len(self.names) for i, name in enumerate(self.names)}
            return np.array([places[short_value(value)] for value in self.values])
        numbers = np.log10(self.numbers) if self.logarithmic else self.numbers
        span = numbers.max() - numbers.min()
        return (numbers - numbers.min()) / span if span else np.full(len(numbers), 0.5)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions of the ticks and their labels."""
        if self.numbers is None:
            return [((i + 0.5) / len(self.names), name[:24]) for i, name in enumerate(self.names)]
        distinct = np.unique(self.numbers)
        if len(distinct) <= 6:
            scaled = self.scaled
            return [(float(scaled[list(self.numbers).index(value)]), number_text(value)) for value in distinct]
        low, high = distinct[0], distinct[-1]
        if self.logarithmic:
            low, high = math.log10(low), math.log10(high)
        return [(part, number_text(10**v if self.logarithmic else v)) for part, v in _between(low, high)]

    @property
    def plotted(self) -> list[Any]:
        """The values for a Plotly axis."""
        if self.numbers is None:
            return [short_value(value) for value in self.values]
        return [float(value) for value in self.numbers]

    @property
    def layout(self) -> dict[str, Any]:
        """The settings of the Plotly axis."""
        kind = "category" if self.numbers is None else "log" if self.logarithmic else "linear"
        settings = {"title": {"text": escaped(self.label), "standoff": 8}, "type": kind}
        if self.numbers is not None and len(distinct := np.unique(self.numbers)) <= 6:
            settings |= {"tickvals": distinct.tolist(), "ticktext": [number_text(value) for value in distinct]}
        return settings


def _between(low: float, high: float) -> list[tuple[float, float]]:
    return [(part, low + part * (high - low)) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]


def number_text(value: float) -> str:
    text = f"{value:.3g}"
    return f"{float(text):.0e}".replace("e-0", "e-").replace("e+0", "e") if "e" in text and text[1] == "e" else text


def colours(figures: np.ndarray, lower_is_better: bool) -> np.ndarray:
    """One colour band per run, the best last. Bands follow ranks, so that an outlier does not hide differences."""
    order = np.argsort(np.argsort(-figures if lower_is_better else figures, kind="stable"), kind="stable")
    return (order * BANDS // max(len(figures), 1)).astype(int)


@cache
def band_colour(band: int) -> str:
    """The colour of a band, interpolated from the scale."""
    place = band / (BANDS - 1) * (len(SCALE) - 1)
    lower = min(int(place), len(SCALE) - 2)
    one, two = (tuple(int(SCALE[i][j : j + 2], 16) for j in (1, 3, 5)) for i in (lower, lower + 1))
    mixed = (round(a + (b - a) * (place - lower)) for a, b in zip(one, two, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)
