"""Learning curves as Plotly's JSON: a line a run, or a line and a band for the seeds of one configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag_experiments.dashboard.sweep_figures import escaped

PALETTE = ["#4c78d8", "#e07b2f", "#3c9d5b", "#a661c6", "#2a9db0", "#d4537f", "#a98a1c", "#7b838d"]
"""Readable on both themes."""
DASHES = ["solid", "dash", "dot", "dashdot"]
POINTS = 500
"""A line; a longer one is thinned."""
X_TITLES = {"step": "step", "epoch": "epoch", "seconds": "minutes"}


@dataclass
class Series:
    """What belongs to one line: the values of one metric in one run, or in the seeds of a configuration."""

    label: str
    members: list[list[dict[str, Any]]]
    """The logged lines of each run."""


def curves(metric: str, series: Sequence[Series], x: str, smoothing: float, logarithmic: bool) -> dict[str, Any]:
    """One figure for one metric.

    Args:
        x: `step`, `epoch` or `seconds`.
        smoothing: weight of the past in an exponential mean, 0 for none; the line itself stays, faintly.
    """
    traces: list[dict[str, Any]] = []
    for number, one in enumerate(series):
        colour, dash = PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]
        members = [found for lines in one.members if len((found := points(lines, metric, x))[0])]
        if not members:
            continue
        line = {"color": colour, "width": 2, "dash": dash}
        if len(members) == 1:
            traces += _single(one.label, *members[0], line, smoothing, number)
        else:
            traces += _band(one.label, members, line, smoothing, number)
    layout = {
        "xaxis": {"title": {"text": X_TITLES[x], "standoff": 6}},
        "yaxis": {"type": "log" if logarithmic else "linear"},
        "title": {"text": escaped(metric), "x": 0, "xanchor": "left", "font": {"size": 14}},
        "hovermode": "x unified" if len(traces) <= 24 else "closest",
        "showlegend": True,
        "legend": {"font": {"size": 11}},
        "margin": {"t": 36},
        "uirevision": "kept",
    }
    return {"data": traces, "layout": layout}


def points(lines: Sequence[dict[str, Any]], metric: str, x: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the metric was logged, and what it was. A step logged twice counts with its last value."""
    found: dict[float, float] = {}
    for line in lines:
        value, place = line.get(metric), line.get(x)
        if isinstance(value, int | float) and isinstance(place, int | float):
            found[place / 60 if x == "seconds" else place] = value
    places = np.array(sorted(found), dtype=float)
    return places, np.array([found[place] for place in places], dtype=float)


def smoothed(values_N: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average without the pull towards its start (Kingma & Ba's correction)."""
    if weight <= 0 or len(values_N) < 2:
        return values_N
    out_N = np.empty_like(values_N)
    mean = 0.0
    for index, value in enumerate(values_N):
        mean = weight * mean + (1 - weight) * value
        out_N[index] = mean / (1 - weight ** (index + 1))
    return out_N


def _single(
    label: str, x_N: np.ndarray, y_N: np.ndarray, line: dict[str, Any], smoothing: float, number: int
) -> list[dict[str, Any]]:
    group = f"s{number}"
    mode = "lines" if len(x_N) > 30 else "lines+markers"
    main = _trace(label, x_N, smoothed(y_N, smoothing), line, group) | {"mode": mode, "marker": {"size": 5}}
    if smoothing <= 0 or len(x_N) < 2:
        return [main]
    raw = _trace(label, x_N, y_N, line | {"width": 1}, group) | {"opacity": 0.25, "hoverinfo": "skip"}
    return [raw | {"showlegend": False}, main]


def _band(
    label: str, members: list[tuple[np.ndarray, np.ndarray]], line: dict[str, Any], smoothing: float, number: int
) -> list[dict[str, Any]]:
    """Mean and one standard deviation to each side, at every place that two members reach (one, where only one does).

    Members are read off between their points, so that clocks that differ by a second make one band.
    """
    x_N = np.unique(np.concatenate([x for x, _ in members]))
    at_MN = np.stack([np.interp(x_N, x, smoothed(y, smoothing), left=np.nan, right=np.nan) for x, y in members])
    count_N = (~np.isnan(at_MN)).sum(axis=0)
    kept = count_N >= min(2, int(count_N.max()))
    x_N, at_MN = x_N[kept], at_MN[:, kept]
    mean_N, deviation_N = np.nanmean(at_MN, axis=0), np.nan_to_num(_deviation(at_MN))
    group = f"s{number}"
    edge = line | {"width": 0}
    low = _trace(label, x_N, mean_N - deviation_N, edge, group) | {"hoverinfo": "skip", "showlegend": False}
    high = _trace(label, x_N, mean_N + deviation_N, edge, group) | {"hoverinfo": "skip", "showlegend": False}
    high |= {"fill": "tonexty", "fillcolor": _faded(line["color"])}
    mode = "lines" if len(x_N) > 30 else "lines+markers"
    mean = _trace(f"{label} ({len(members)} seeds)", x_N, mean_N, line, group)
    return [low, high, mean | {"mode": mode, "marker": {"size": 5}}]


def _deviation(at_MN: np.ndarray) -> np.ndarray:
    count_N = (~np.isnan(at_MN)).sum(axis=0)
    mean_N = np.nanmean(at_MN, axis=0)
    return np.sqrt(np.nansum((at_MN - mean_N) ** 2, axis=0) / np.maximum(count_N - 1, 1))


def _trace(label: str, x_N: np.ndarray, y_N: np.ndarray, line: dict[str, Any], group: str) -> dict[str, Any]:
    every = max(1, -(-len(x_N) // POINTS))
    keep = np.unique(np.append(np.arange(0, len(x_N), every), len(x_N) - 1)) if len(x_N) else np.arange(0)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escaped(label),
        "legendgroup": group,
        "x": [round(float(v), 4) for v in x_N[keep]],
        "y": [float(f"{v:.6g}") for v in y_N[keep]],
        "line": line,
    }


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
