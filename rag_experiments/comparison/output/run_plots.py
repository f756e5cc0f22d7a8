"""Pictures in the run directory, as each run ends: `plots/learning_curves.svg` and `plots/before_after.svg`.

    curves_figure(curves_of(run), title), bars_figure(before_after(run), title)    # within `drawing.house_style`

A browser, GitHub and an editor show the files as they are, light or dark. Static: what moves is in the report and the
dashboard. `rag-compare RUN --figures DIR` draws the same two for a paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rag_experiments.comparison.analysis.before_after import Change, before_after
from rag_experiments.comparison.analysis.table_columns import ANSWERS, RANKINGS
from rag_experiments.comparison.output import drawing
from rag_experiments.comparison.records.history import Points, points
from rag_experiments.comparison.records.run_records import read_config
from rag_experiments.core.files import atomic_write_bytes
from rag_experiments.runs.directory import RunDirectory

CURVES, BARS = "learning_curves", "before_after"
PANELS = 6
SPAN = 0.1
"""What an axis of shares spans at least: one question more or less must not look like a climb."""


@dataclass(frozen=True)
class Curve:
    """What a run logged of a metric, and its value before training."""

    name: str
    points: Points
    zero_shot: float | None = None


def write_plots(run: RunDirectory) -> list[str]:
    """Draw what the run has to show; returns the files written, below the run's directory."""
    folder, written = run.path / "plots", []
    with drawing.house_style():
        for name, figure in run_figures(run, before_after(run)).items():
            if run.writes:
                folder.mkdir(exist_ok=True)
                data = drawing.encoded(figure, "svg", f"{name} of {run.path.name}")
                atomic_write_bytes(folder / f"{name}.svg", data)
                written.append(f"plots/{name}.svg")
    return written


def run_figures(run: RunDirectory, changes: Sequence[Change]) -> dict[str, Figure]:
    """Name → figure, of those that the run has anything for."""
    name = run.path.name
    figures = {CURVES: curves_figure(curves_of(run), f"Learning curves of {name}")}
    figures[BARS] = bars_figure(changes, f"Before and after training: {name}")
    return {name: figure for name, figure in figures.items() if figure is not None}


def curves_of(run: RunDirectory) -> list[Curve]:
    """The loss, then what the best model was chosen by, then the usual figures on dev, as far as they were logged."""
    lines = run.read_metrics()
    best_metric = (read_config(run.config_path).get("trainer") or {}).get("metric_for_best_model")
    names = ["train/loss", best_metric, "dev/loss", *(f"dev/{name}" for name in (*ANSWERS, *RANKINGS))]
    curves = []
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        curve, before = points(lines, name), points(lines, f"zero_shot/{name}")
        zero = before[0][1] if before else None
        if zero is not None and name != best_metric and all(value == zero for _, value in curve):
            continue  # the half of the system that this run does not train
        if curve:
            curves.append(Curve(name, curve, zero))
    return curves[:PANELS]


# -- learning curves -----------------------------------------------------------------------------------


def curves_figure(curves: Sequence[Curve], title: str | None = None) -> Figure | None:
    """A panel a figure over steps, zero shot as a dashed line; None where nothing was logged."""
    if not curves:
        return None
    rows, columns = -(-len(curves) // 2), min(2, len(curves))
    figure, panels = drawing.canvas(0.5 + 1.9 * rows, rows, columns)
    for axes, curve in zip(panels, curves, strict=False):
        _panel(axes, curve)
    for axes in panels[len(curves) :]:
        axes.remove()
    return drawing.titled(figure, title) if title else figure


def _panel(axes: Axes, curve: Curve) -> None:
    steps, values = zip(*curve.points, strict=True)
    axes.plot(steps, values, color=drawing.BLUE, marker="o" if len(steps) <= 40 else "", markersize=3.5)
    axes.set_title(drawing.wrapped(curve.name))
    if curve.zero_shot is not None:
        axes.axhline(curve.zero_shot, color=drawing.BROWN, linestyle="--", linewidth=1)
        note = f"zero shot {curve.zero_shot:.3f} (dashed)"
        axes.set_title(note, loc="right", color=drawing.BROWN, fontsize=8, fontweight="normal")
    first, last = min(0, *steps), max(1, *steps)
    axes.set_xlim(first - 0.02 * (last - first), last + 0.02 * (last - first))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("step", loc="right")
    low, high = min([*values, curve.zero_shot or values[0]]), max([*values, curve.zero_shot or values[0]])
    if curve.name.startswith("dev/") and 0 <= low <= high <= 1 and high - low < SPAN:  # of a share
        low = min(max(0.0, (low + high - SPAN) / 2), 1 - SPAN)
        axes.set_ylim(low - 0.05 * SPAN, low + 1.05 * SPAN)


# -- before and after ----------------------------------------------------------------------------------


def bars_figure(changes: Sequence[Change], title: str | None = None) -> Figure | None:
    """Two bars a metric with their 95 % intervals, from 0 to 1, and the paired difference beside them.

    What training left as it was for every question (a reader's retriever) is left out.
    """
    subset = [change for change in changes if (change.difference.low, change.difference.high) != (0, 0)] or changes
    if not subset:
        return None
    splits = {change.split: [c for c in subset if c.split == change.split] for change in subset}
    figure, panels = drawing.canvas(0.9 + 0.4 * len(splits) + 0.36 * len(subset), len(splits))
    entries = {}
    for axes, (split, rows) in zip(panels, splits.items(), strict=True):
        axes.set_title(f"{split}, {rows[0].questions} questions")
        for offset, side, colour in ((-0.18, "before", drawing.BEFORE), (0.18, "after", drawing.BLUE)):
            intervals = [getattr(change, side) for change in rows]
            places = [row + offset for row in range(len(rows))]
            entries[side] = axes.barh(places, [i.mean for i in intervals], 0.34, color=colour)
            axes.hlines(places, [i.low for i in intervals], [i.high for i in intervals], drawing.INK, linewidth=1)
        drawing.named_rows(axes, [change.metric for change in rows])
        axes.set_xlim(0, 1)
        for row, change in enumerate(rows):
            d = change.difference
            difference = f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
            axes.annotate(difference, (1, row), (8, 0), ("axes fraction", "data"), "offset points", va="center")
        above: dict[str, Any] = {"va": "bottom", "color": drawing.SOFT}
        axes.annotate("paired difference", (1, 1), (8, 4), "axes fraction", "offset points", **above)
    names = ("before training", "after training, with 95 % intervals")
    drawing.legend_below(figure, dict(zip(names, entries.values(), strict=True)))
    return drawing.titled(figure, title) if title else figure
