"""The sweep page's figures, as Plotly's JSON.

Parallel coordinates are drawn as SVG lines and not by Plotly's own `parcoords`: that needs WebGL, which phones and
remote desktops may lack, and compiles shaders with `Function`, which the page's content policy forbids. What
`parcoords` would brush, the filter box narrows, and the address keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rag_experiments.comparison.fields import short_value
from rag_experiments.comparison.figures import escaped
from rag_experiments.dashboard.importance import Importance, as_numbers, is_logarithmic

Figure = dict[str, Any]

SCALE = ["#5d4fb8", "#3f6fe0", "#1f93b5", "#2fa56d", "#b0b92f", "#f2a72e"]
"""Low to high: dark to light and blue to yellow, so that it reads without colour, on both themes."""
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
        """Each run's place on the axis, 0 to 1."""
        if self.numbers is None:
            places = {name: (i + 0.5) / len(self.names) for i, name in enumerate(self.names)}
            return np.array([places[short_value(value)] for value in self.values])
        numbers = np.log10(self.numbers) if self.logarithmic else self.numbers
        span = numbers.max() - numbers.min()
        return (numbers - numbers.min()) / span if span else np.full(len(numbers), 0.5)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and their labels."""
        if self.numbers is None:
            return [((i + 0.5) / len(self.names), name[:24]) for i, name in enumerate(self.names)]
        distinct = np.unique(self.numbers)
        if len(distinct) <= 6:
            scaled = self.scaled
            return [(float(scaled[list(self.numbers).index(value)]), _number(value)) for value in distinct]
        low, high = distinct[0], distinct[-1]
        if self.logarithmic:
            low, high = math.log10(low), math.log10(high)
        return [(part, _number(10**v if self.logarithmic else v)) for part, v in _between(low, high)]

    @property
    def plotted(self) -> list[Any]:
        """The values for an axis of Plotly's own."""
        if self.numbers is None:
            return [short_value(value) for value in self.values]
        return [float(value) for value in self.numbers]

    @property
    def layout(self) -> dict[str, Any]:
        """The settings of such an axis."""
        kind = "category" if self.numbers is None else "log" if self.logarithmic else "linear"
        found = {"title": {"text": escaped(self.label), "standoff": 8}, "type": kind}
        if self.numbers is not None and len(distinct := np.unique(self.numbers)) <= 6:
            found |= {"tickvals": distinct.tolist(), "ticktext": [_number(value) for value in distinct]}
        return found


def _between(low: float, high: float) -> list[tuple[float, float]]:
    return [(part, low + part * (high - low)) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]


def _number(value: float) -> str:
    text = f"{value:.3g}"
    return f"{float(text):.0e}".replace("e-0", "e-").replace("e+0", "e") if "e" in text and text[1] == "e" else text


def colours(figures: np.ndarray, lower_is_better: bool) -> np.ndarray:
    """A band number a run, the best last; by rank, so that one failure does not squeeze all others into one colour."""
    order = np.argsort(np.argsort(-figures if lower_is_better else figures, kind="stable"), kind="stable")
    return (order * BANDS // max(len(figures), 1)).astype(int)


@cache
def band_colour(band: int) -> str:
    """The colour of a band, between the scale's."""
    place = band / (BANDS - 1) * (len(SCALE) - 1)
    left = min(int(place), len(SCALE) - 2)
    one, two = (tuple(int(SCALE[i][j : j + 2], 16) for j in (1, 3, 5)) for i in (left, left + 1))
    mixed = (round(a + (b - a) * (place - left)) for a, b in zip(one, two, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def parallel(axes: Sequence[Axis], metric: Axis, names: Sequence[str], lower_is_better: bool) -> Figure:
    """A line a run over all hyper-parameters, ending at its figure; the best in front."""
    all_axes = [*axes, metric]
    places_AN = np.stack([axis.scaled for axis in all_axes])
    figures = np.asarray(metric.values, dtype=float)
    bands = colours(figures, lower_is_better)
    steps = 1 if len(names) > 300 else 12
    across = [round(i / steps, 4) for i in range((len(all_axes) - 1) * steps + 1)]
    width = 1.0 if len(names) > 300 else 1.6
    traces: list[dict[str, Any]] = []
    for band in range(BANDS):
        members = np.flatnonzero(bands == band)
        if not len(members):
            continue
        x: list[float | None] = []
        y: list[float | None] = []
        for member in members:
            x += [*across, None]
            y += [*(round(float(v), 4) for v in _eased(places_AN[:, member], steps)), None]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "line": {"color": band_colour(band), "width": width},
                "opacity": 0.35 + 0.6 * (band + 1) / BANDS,
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    traces.append(_run_points(metric, figures, bands, names, float(len(axes)), places_AN[-1]))
    return {"data": traces, "layout": _parallel_layout(all_axes)}


def _eased(places_A: np.ndarray, steps: int) -> np.ndarray:
    """The places with `steps` points to the next axis, leaving and arriving level: crossings are easier to follow."""
    part = np.linspace(0, 1, steps, endpoint=False)
    eased = (1 - np.cos(np.pi * part)) / 2
    between = places_A[:-1, None] + (places_A[1:] - places_A[:-1])[:, None] * eased
    return np.append(between.ravel(), places_A[-1])


def _run_points(
    metric: Axis, figures: np.ndarray, bands: np.ndarray, names: Sequence[str], x: float, places: np.ndarray
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x] * len(names),
        "y": places.round(4).tolist(),
        "marker": {"color": [band_colour(band) for band in bands], "size": 7},
        "text": [
            f"{escaped(name)}<br>{escaped(metric.label)} {figure:.4g}"
            for name, figure in zip(names, figures, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
    }


def _parallel_layout(axes: Sequence[Axis]) -> dict[str, Any]:
    annotations, shapes = [], []
    for x, axis in enumerate(axes):
        shapes.append({"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": {"color": "#8888", "width": 1}})
        last = x == len(axes) - 1
        for place, label in axis.ticks:
            annotations.append(
                {
                    "x": x,
                    "y": place,
                    "text": escaped(label),
                    "showarrow": False,
                    "xanchor": "left" if last else "right",
                    "xshift": 8 if last else -5,
                    "font": {"size": 11},
                    "bgcolor": "panel",
                    "borderpad": 1,
                }
            )
    ticks = [_wrapped(axis.label) for axis in axes]
    return {
        "xaxis": {
            "tickvals": list(range(len(axes))),
            "ticktext": ticks,
            "side": "top",
            "range": [-0.45, len(axes) - 0.55],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "yaxis": {"visible": False, "range": [-0.04, 1.04], "fixedrange": True},
        "shapes": shapes,
        "annotations": annotations,
        "hovermode": "closest",
        "margin": {"l": 20, "r": 30, "t": 56, "b": 14},
    }


def _wrapped(label: str) -> str:
    parts = escaped(label).replace("_", "_\u200b").split(".")
    return "<br>".join(parts)


def importance_bars(found: Sequence[Importance], labels: dict[str, str]) -> Figure:
    """Share of the spread that each hyper-parameter explains alone."""
    shown = list(reversed(found[:12]))
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": [round(item.share, 4) for item in shown],
                "y": [escaped(labels[item.key]) for item in shown],
                "text": [f"{item.share:.0%}{_arrow(item.direction)}" for item in shown],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": "#3b7ddb"},
                "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"range": [0, max(0.2, *(item.share for item in found)) * 1.25], "tickformat": ".0%"},
            "yaxis": {"showgrid": False},
            "height": 90 + 28 * len(shown),
            "bargap": 0.35,
        },
    }


def _arrow(direction: float | None) -> str:
    if direction is None or abs(direction) < 0.15:
        return ""
    return " ↑" if direction > 0 else " ↓"


def slice_plot(axis: Axis, metric: Axis, names: Sequence[str], lower_is_better: bool) -> Figure:
    """The figure against one hyper-parameter, with the mean of each value where there are few."""
    figures = np.asarray(metric.values, dtype=float)
    bands = colours(figures, lower_is_better)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": axis.plotted,
            "y": figures.tolist(),
            "text": [escaped(name) for name in names],
            "marker": {"size": 7, "color": [band_colour(band) for band in bands], "opacity": 0.85},
            "hovertemplate": "%{text}<br>%{x}: %{y:.4g}<extra></extra>",
            "showlegend": False,
        }
    ]
    plotted = np.array([repr(value) for value in axis.plotted])
    distinct = list(dict.fromkeys(sorted(axis.plotted)))
    if 1 < len(distinct) <= 8:
        means = [float(figures[plotted == repr(value)].mean()) for value in distinct]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if axis.numbers is not None else "markers",
                "x": distinct,
                "y": means,
                "marker": {"symbol": "line-ew-open", "size": 18, "line": {"width": 2.5}, "color": "#e8590c"},
                "line": {"width": 1, "color": "#e8590c", "dash": "dot"},
                "hovertemplate": "mean at %{x}: %{y:.4g}<extra></extra>",
                "showlegend": False,
            }
        )
    layout = {"xaxis": axis.layout, "yaxis": {"title": {"text": escaped(metric.label)}}, "hovermode": "closest"}
    return {"data": traces, "layout": layout | {"margin": {"t": 12, "b": 48}}}


def contour(x: Axis, y: Axis, metric: Axis, names: Sequence[str]) -> Figure:
    """The figure over two hyper-parameters: cell means where both have few values, else a surface between the runs."""
    figures = np.asarray(metric.values, dtype=float)
    few = all(len(set(map(repr, axis.plotted))) <= 12 for axis in (x, y))
    scale = [[i / (len(SCALE) - 1), colour] for i, colour in enumerate(SCALE)]
    bar = {"title": {"text": escaped(metric.label), "side": "right"}, "thickness": 12, "outlinewidth": 0}
    base = {"colorscale": scale, "colorbar": bar}
    layout = {"xaxis": x.layout, "yaxis": y.layout, "hovermode": "closest", "margin": {"t": 12}}
    if few:
        return {"data": [_cells(x, y, figures) | base], "layout": _as_categories(layout, x, y)}
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": x.plotted,
        "y": y.plotted,
        "text": [f"{escaped(name)}<br>{figure:.4g}" for name, figure in zip(names, figures, strict=True)],
        "marker": {"color": figures.tolist(), "size": 8, "line": {"color": "#fff", "width": 1}} | base,
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
    }
    surface = _surface(x, y, figures)
    if surface is None:
        return {"data": [points], "layout": layout}
    points["marker"] = {key: value for key, value in points["marker"].items() if key != "colorbar"}  # one bar is enough
    limits = {"zmin": float(figures.min()), "zmax": float(figures.max())}
    return {"data": [surface | base | limits, points], "layout": layout}


def _as_categories(layout: dict[str, Any], x: Axis, y: Axis) -> dict[str, Any]:
    for name, axis in (("xaxis", x), ("yaxis", y)):
        layout[name] = {"title": axis.layout["title"], "type": "category", "showgrid": False}
    return layout


def _cells(x: Axis, y: Axis, figures: np.ndarray) -> dict[str, Any]:
    columns, rows = (list(dict.fromkeys(sorted(axis.plotted))) for axis in (x, y))
    z: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    counts = [["" for _ in columns] for _ in rows]
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            here = [f for f, a, b in zip(figures, x.plotted, y.plotted, strict=True) if a == column and b == row]
            if here:
                z[i][j] = float(np.mean(here))
                counts[i][j] = f"{np.mean(here):.3f}<br>n = {len(here)}"
    names = [[_number(v) if isinstance(v, float) else v for v in values] for values in (columns, rows)]
    return {
        "type": "heatmap",
        "x": names[0],
        "y": names[1],
        "z": z,
        "text": counts,
        "texttemplate": "%{text}",
        "hovertemplate": "%{x}, %{y}: %{z:.4g}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
    }


def _surface(x: Axis, y: Axis, figures: np.ndarray) -> dict[str, Any] | None:
    """Linear between the runs, nothing outside them; None where they lie on a line or are too few."""
    from scipy.interpolate import griddata
    from scipy.spatial import QhullError

    if x.numbers is None or y.numbers is None or len(figures) < 4:
        return None
    grid = np.linspace(0, 1, 40)
    try:
        z = griddata(np.stack([x.scaled, y.scaled], axis=1), figures, tuple(np.meshgrid(grid, grid)), method="linear")
    except (QhullError, ValueError):
        return None
    return {
        "type": "contour",
        "x": _unscaled(x, grid),
        "y": _unscaled(y, grid),
        "z": [[None if math.isnan(v) else round(float(v), 5) for v in row] for row in z],
        "contours": {"coloring": "heatmap"},
        "line": {"width": 0.5, "color": "rgba(255,255,255,.5)"},
        "connectgaps": False,
        "hoverinfo": "skip",
        "opacity": 0.8,
    }


def _unscaled(axis: Axis, grid: np.ndarray) -> list[float]:
    assert axis.numbers is not None
    numbers = np.log10(axis.numbers) if axis.logarithmic else axis.numbers
    places = numbers.min() + grid * (numbers.max() - numbers.min())
    return [float(v) for v in (10**places if axis.logarithmic else places)]
