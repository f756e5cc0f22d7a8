"""The sweep page's figures, as Plotly's JSON.

Parallel coordinates are drawn as SVG lines instead of Plotly's `parcoords`, which needs WebGL (missing on some phones
and remote desktops) and compiles shaders with `Function` (forbidden by the page's content policy). The filter box
replaces the brushing of `parcoords`, and the address stores it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rag_experiments.comparison.output.figure_style import escaped
from rag_experiments.dashboard.shared.importance import Importance
from rag_experiments.dashboard.shared.sweep_axes import BANDS, SCALE, Axis, band_colour, colours, number_text

Figure = dict[str, Any]


def parallel(axes: Sequence[Axis], metric: Axis, names: Sequence[str], lower_is_better: bool) -> Figure:
    """One line per run through all hyper-parameters to its figure; the best runs are drawn in front."""
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
    """The positions with `steps` points to the next axis; lines are horizontal at each axis, to be easy to follow."""
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


def importance_bars(items: Sequence[Importance], labels: dict[str, str]) -> Figure:
    """The share of the variance that each hyper-parameter explains alone."""
    shown = list(reversed(items[:12]))
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
            "xaxis": {"range": [0, max(0.2, *(item.share for item in items)) * 1.25], "tickformat": ".0%"},
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
    """The figure over one hyper-parameter, with the mean of each value if there are few values."""
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
    """The figure over two hyper-parameters: cell means if both have few values, else a surface between the runs."""
    figures = np.asarray(metric.values, dtype=float)
    few = all(len(set(map(repr, axis.plotted))) <= 12 for axis in (x, y))
    scale = [[i / (len(SCALE) - 1), colour] for i, colour in enumerate(SCALE)]
    bar = {"title": {"text": escaped(metric.label), "side": "right"}, "thickness": 12, "outlinewidth": 0}
    base = {"colorscale": scale, "colorbar": bar}
    layout = {"xaxis": x.layout, "yaxis": y.layout, "hovermode": "closest", "margin": {"t": 12}}
    if few:
        return {"data": [_cells(x, y, figures) | base], "layout": _as_categories(layout, x, y)}
    points: dict[str, Any] = {
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
    names = [[number_text(v) if isinstance(v, float) else v for v in values] for values in (columns, rows)]
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
    """A surface, linear between the runs and empty outside; None if they lie on a line or are too few."""
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
