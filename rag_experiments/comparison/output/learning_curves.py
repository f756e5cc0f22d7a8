"""What runs logged while they trained, as lines: of a run, or of the seeds of one configuration with a band."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from rag_experiments.comparison.analysis.labels import labels_of
from rag_experiments.comparison.analysis.table_columns import group_key
from rag_experiments.comparison.output.figure_style import COLOURS, base
from rag_experiments.comparison.records.history import Points, points
from rag_experiments.comparison.records.run_records import RunRecord

DASHES = ("solid", "dash", "dot", "dashdot")
AXIS_TITLES = {"seconds": "minutes"}
LEGEND_ROW, WIDE_LABEL = 29, 26
"""Pixels of an entry's row; a longer label has a row of its own."""
MOST_POINTS = 500
"""A line; a longer one is thinned."""
MARKED = 30
"""Points up to which a line shows them."""


def groups_of(runs: Sequence[RunRecord], band: bool = True) -> dict[str, list[RunRecord]]:
    """Runs by the label of their line: the settings that tell it apart, or the run's name where these do not."""
    members: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        members[group_key(run) if band else str(run.path)].append(run)
    groups = list(members.values())
    by_label: dict[str, list[RunRecord]] = {}
    for label, group in zip(labels_of(groups), groups, strict=True):
        by_label[label if label and label not in by_label else group[0].name] = group
    return by_label


def curves(
    runs: Sequence[RunRecord],
    metric: str,
    by: str = "step",
    smoothing: float = 0.0,
    band: bool = True,
    logarithmic: bool = False,
) -> go.Figure:
    """A metric over `step`, `epoch` or `seconds`, one line per configuration; several seeds: mean and a band of ± sd.

    Args:
        smoothing: weight of the past in an exponential average without bias at the start, 0 to below 1. The unsmoothed
            line of a single run stays, faintly.
        band: False gives each seed a line of its own.
    """
    groups = list(groups_of(runs, band).items())
    figure = base(metric)
    for number, (label, members) in enumerate(groups):
        lines = [line for run in members if (line := series(run, metric, by))]
        style = {"color": COLOURS[number % len(COLOURS)], "dash": DASHES[number // len(COLOURS) % len(DASHES)]}
        if len(lines) == 1:
            _add_line(figure, label, lines[0], style, smoothing)
        elif lines:
            _add_band(figure, f"{label} ({len(lines)} seeds)", averaged(lines, smoothing), style)
    wide = any(len(label) > WIDE_LABEL for label, _ in groups)
    below = LEGEND_ROW * (len(groups) if wide else -(-len(groups) // 2))
    return figure.update_layout(
        height=330 + below,
        margin={"t": 36, "b": 52 + below},
        hovermode="x unified" if len(groups) <= 12 else "closest",
        showlegend=True,
        legend={"orientation": "h", "x": 0, "yref": "container", "y": 0.01, "yanchor": "bottom", "font": {"size": 11}},
        xaxis={"title": {"text": AXIS_TITLES.get(by, by), "standoff": 6}},
        yaxis={"type": "log" if logarithmic else "linear"},
        uirevision="kept",
    )


def series(run: RunRecord, metric: str, by: str) -> Points:
    """The points of a run's curve (see `history.points`)."""
    return points(run.history(), metric, by)


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, divided by its weights' sum (Kingma & Ba 2015) so that it starts unbiased.

    What pandas' `ewm(adjust=True)` gives, without the half second that its import takes.
    """
    last, norm, averages = 0.0, 0.0, []
    for value in values:
        last = last * weight + (1 - weight) * value
        norm = norm * weight + (1 - weight)
        averages.append(last / norm)
    return averages


def averaged(lines: Sequence[Points], smoothing: float = 0.0) -> list[tuple[float, float, float]]:
    """(x, mean, sd) wherever at least two of the lines reach (one, where there is only one).

    Lines are read off between their points: clocks that differ by a second make one band, and a seed that is still
    running does not cut the others short.
    """
    x_N = np.unique(np.concatenate([[x for x, _ in line] for line in lines]))
    rows = []
    for line in lines:
        x, y = zip(*line, strict=True)
        rows.append(np.interp(x_N, x, smoothed(y, smoothing), left=np.nan, right=np.nan))
    at_MN = np.stack(rows)
    count_N = (~np.isnan(at_MN)).sum(axis=0)
    shared_N = count_N >= min(2, int(count_N.max()))
    x_N, at_MN, count_N = x_N[shared_N], at_MN[:, shared_N], count_N[shared_N]
    mean_N = np.nanmean(at_MN, axis=0)
    sd_N = np.sqrt(np.nansum((at_MN - mean_N) ** 2, axis=0) / np.maximum(count_N - 1, 1))
    return list(zip(x_N.tolist(), mean_N.tolist(), sd_N.tolist(), strict=True))


def _add_line(figure: go.Figure, label: str, line: Points, style: dict[str, str], smoothing: float) -> None:
    name = html.escape(label, quote=False)
    x, y = [point[0] for point in line], [point[1] for point in line]
    if smoothing > 0 and len(x) > 1:
        faint = {"line": {**style, "width": 1}, "opacity": 0.25, "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(x=_thin(x), y=_thin(y), mode="lines", legendgroup=name, **faint)
    mode = "lines" if len(x) > MARKED else "lines+markers"
    shown = {"line": {**style, "width": 2}, "marker": {"size": 5}, "name": name, "legendgroup": name}
    figure.add_scatter(x=_thin(x), y=_thin(smoothed(y, smoothing)), mode=mode, **shown)


def _add_band(figure: go.Figure, label: str, points: list[tuple[float, float, float]], style: dict[str, str]) -> None:
    name = html.escape(label, quote=False)
    points = _thin(points)
    x, mean = [p[0] for p in points], [p[1] for p in points]
    low, high = [m - sd for _, m, sd in points], [m + sd for _, m, sd in points]
    edge = {"mode": "lines", "line": {"width": 0}, "legendgroup": name, "showlegend": False, "hoverinfo": "skip"}
    figure.add_scatter(x=x + x[::-1], y=high + low[::-1], fill="toself", fillcolor=_faint(style["color"]), **edge)
    mode = "lines" if len(x) > MARKED else "lines+markers"
    shown = {"line": {**style, "width": 2}, "marker": {"size": 5}, "name": name, "legendgroup": name}
    figure.add_scatter(x=x, y=mean, mode=mode, **shown)


def _thin(values: list) -> list:
    """At most `MOST_POINTS` of them, the last among these."""
    every = -(-len(values) // MOST_POINTS)
    return values if every <= 1 else [*values[:-1:every], values[-1]]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
