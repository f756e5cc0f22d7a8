"""Plotly figures of runs, shared by the report and the dashboard.

    bars(table), forest(comparison), before_after(changes), causes(groups, stage), wins(outcomes),
    cost(table, against), matrix(found), curves(runs, metric, by, smoothing)

Backgrounds are transparent and lines of the frame grey, so that one figure reads on a light page and on a dark one;
the page sets the colour of text. Names come from users: Plotly reads a little HTML in text, so they are escaped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import plotly.graph_objects as go

from rag_experiments.comparison.analysis import causes as causes_module
from rag_experiments.comparison.analysis.before_after import Change
from rag_experiments.comparison.analysis.judgement import Comparison
from rag_experiments.comparison.analysis.matrix import Matrix
from rag_experiments.comparison.analysis.table import Group, RunTable
from rag_experiments.comparison.output.figure_style import COLOURS, base, escaped
from rag_experiments.comparison.output.learning_curves import curves
from rag_experiments.comparison.records.metric_fields import higher_is_better

__all__ = ["bars", "base", "before_after", "causes", "cost", "curves", "escaped", "forest", "matrix", "pareto", "wins"]

OUTCOME_COLOURS = {"better": "#2fa56d", "worse": "#c94f5c", "same": "#7f8a99", "undecided": "#c9a23a"}
CAUSE_COLOURS = {
    causes_module.RIGHT: "#2fa56d",
    causes_module.FOUND: "#2fa56d",
    causes_module.IN_SPITE: "#1f9ab5",
    causes_module.READER_MISS: "#e0a339",
    causes_module.RETRIEVER_MISS: "#c94f5c",
}
SECTION_COLOURS = ("#3b7dd8", "#8a97a8", "#2fa56d", "#b652c9", "#1f9ab5", "#a08a2c")
MOST = 40
"""Bars that a figure holds; the table has them all."""


def _height(bars: int) -> int:
    return 140 + 26 * max(bars, 2)


def bars(table: RunTable) -> go.Figure:
    """The primary metric per group, best on top: mean, spread over seeds (else the 95 % interval), a dot a seed.

    A colour a section: bars of different colours are of different questions, and do not compare.
    """
    metric = table.metric or ""
    held = [(index, group) for index, section in enumerate(table.sections) for group in section.groups]
    held = [(index, group) for index, group in held if group.summary(metric)][:MOST]
    title = f"{metric}: mean, and ± sd over seeds (one seed: 95 % interval over questions)"
    figure = base(title, _height(len(held)), barmode="overlay")
    several = len({index for index, _ in held}) > 1
    for index, section in enumerate(table.sections):
        groups = [group for place, group in held if place == index]
        summaries = [summary for group in groups if (summary := group.summary(metric))]
        spreads = [spread(g, metric, s.mean, s.sd) for g, s in zip(groups, summaries, strict=True)]
        error = {"type": "data", "array": [up for up, _ in spreads], "arrayminus": [down for _, down in spreads]}
        if groups:
            figure.add_bar(
                x=[summary.mean for summary in summaries],
                y=[escaped(group.label) for group in groups],
                orientation="h",
                error_x=error | {"color": "#808890"},
                marker_color=COLOURS[0] if not several else SECTION_COLOURS[index % len(SECTION_COLOURS)],
                name=escaped(f"{chr(65 + index % 26)}. {section.title}" if several else "mean"),
            )
    dots = [(run.metrics[metric], escaped(group.label)) for _, group in held for run in group.counted]
    if len(dots) > len(held):
        x, y = zip(*dots, strict=True)
        marker = {"color": COLOURS[1], "size": 6}
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, name="a seed", showlegend=False)
    order = [escaped(group.label) for _, group in held][::-1]
    if several:
        figure.update_layout(height=_height(len(held)) + 24 * len(table.sections))
    return figure.update_layout(
        showlegend=several, yaxis={"categoryorder": "array", "categoryarray": order}, legend={"traceorder": "normal"}
    )


def spread(group: Group, metric: str, mean: float, sd: float | None) -> tuple[float, float]:
    """How far the error bar reaches above and below the mean: sd over seeds, or a single seed's 95 % interval."""
    if sd is not None:
        return sd, sd
    metrics = group.counted[0].metrics
    low, high = metrics.get(f"{metric}_ci_low"), metrics.get(f"{metric}_ci_high")
    return (high - mean, mean - low) if low is not None and high is not None else (0.0, 0.0)


def forest(comparison: Comparison) -> go.Figure:
    """Difference from the baseline with its 95 % interval, coloured by verdict."""
    verdicts = [v for v in comparison.verdicts if v.questions][:MOST][::-1]
    figure = base(f"difference from {comparison.baseline.label} (95 % interval over questions)", _height(len(verdicts)))
    several = len({v.metric for v in verdicts}) > 1
    for outcome, colour in OUTCOME_COLOURS.items():
        points = [v for v in verdicts if v.outcome == outcome]
        tests = [v.questions for v in points if v.questions]
        figure.add_scatter(
            x=[test.difference for test in tests],
            y=[escaped(f"{v.candidate.label} · {v.metric}" if several else v.candidate.label) for v in points],
            error_x={
                "type": "data",
                "array": [test.high - test.difference for test in tests],
                "arrayminus": [test.difference - test.low for test in tests],
            },
            mode="markers",
            marker={"color": colour, "size": 9},
            name={"same": "no relevant difference"}.get(outcome, outcome),
        )
    return figure.add_vline(x=0, line={"color": "#808890", "dash": "dot"})


def before_after(changes: Sequence[Change]) -> go.Figure:
    """Each metric before and after training, with 95 % intervals."""
    figure = base("before and after training (95 % intervals over questions)", barmode="group")
    names = [escaped(f"{change.split} {change.metric}") for change in changes]
    for label, colour in (("before", "#9aa4b1"), ("after", COLOURS[0])):
        intervals = [getattr(change, label) for change in changes]
        error = {
            "type": "data",
            "array": [i.high - i.mean for i in intervals],
            "arrayminus": [i.mean - i.low for i in intervals],
        }
        figure.add_bar(x=names, y=[i.mean for i in intervals], name=label, marker_color=colour, error_y=error)
    return figure


def causes(groups: Sequence[Group], stage: str) -> go.Figure | None:
    """Share of questions by what went wrong; None where nothing is known."""
    judge = causes_module.judged_by([run for group in groups for run in group.counted], stage)
    group_shares = [(g, s) for g in groups[:MOST] if (s := causes_module.shares(g, stage, judge))][::-1]
    if not group_shares:
        return None
    figure = base(f"why questions fail ({stage})", _height(len(group_shares)) + 30, barmode="stack")
    labels = [escaped(group.label) for group, _ in group_shares]
    for cause, colour in CAUSE_COLOURS.items():
        if any(cause in share for _, share in group_shares):
            x = [share.get(cause, 0.0) for _, share in group_shares]
            figure.add_bar(x=x, y=labels, orientation="h", name=cause, marker_color=colour)
    return figure.update_xaxes(tickformat=".0%", range=[0, 1])


def wins(win_counts: Sequence[causes_module.Outcomes]) -> go.Figure:
    """Questions lost to the left, won to the right, per candidate."""
    figure = base("questions won and lost against the baseline", _height(len(win_counts)), barmode="relative")
    labels = [escaped(o.candidate.label) for o in win_counts]
    figure.add_bar(x=[o.wins for o in win_counts], y=labels, orientation="h", name="won", marker_color="#2fa56d")
    return figure.add_bar(
        x=[-o.losses for o in win_counts], y=labels, orientation="h", name="lost", marker_color="#c94f5c"
    )


def cost(table: RunTable, against: str) -> go.Figure | None:
    """Quality against a cost (`seconds/train`, a latency): groups as dots, the best of each price joined.

    None where fewer than two groups have both.
    """
    metric = table.metric or ""
    points: list[tuple[float, float, Group]] = []
    for group in table.groups:
        quality, price = group.summary(metric), group.summary(against)
        if quality and price:
            points.append((price.mean, quality.mean, group))
    if len(points) < 2:
        return None
    figure = base(f"{metric} against {against}")
    by_algorithm: dict[str, list[tuple[float, float, Group]]] = defaultdict(list)
    for point in points:
        by_algorithm[point[2].runs[0].algorithm].append(point)
    hover = "%{text}<br>%{x:.4g}, %{y:.4f}<extra></extra>"
    for number, (algorithm, members) in enumerate(sorted(by_algorithm.items())):
        x, y, groups = zip(*members, strict=True)
        marker = {"size": 10, "symbol": number, "color": COLOURS[number % len(COLOURS)]}
        text = [escaped(group.label) for group in groups]
        figure.add_scatter(
            x=x, y=y, text=text, mode="markers", marker=marker, name=escaped(algorithm), hovertemplate=hover
        )
    line = {"dash": "dot", "color": "#808890", "shape": "hv"}
    named = False
    for section in table.sections:  # one beats another only on the same questions
        inside = [(price, quality) for price, quality, group in points if group in section.groups]
        if len(front := pareto(inside, higher_is_better(metric))) > 1:
            x, y = zip(*front, strict=True)
            figure.add_scatter(x=x, y=y, mode="lines", line=line, name="best for its price", showlegend=not named)
            named = True
    return figure.update_xaxes(title=against).update_yaxes(title=metric)


def pareto(points: Sequence[tuple[float, float]], high: bool = True) -> list[tuple[float, float]]:
    """The (price, quality) pairs that no cheaper one beats, by price.

    In two dimensions one pass over sorted pairs; libraries for fronts (pymoo, paretoset) are made for many.
    """
    front: list[tuple[float, float]] = []
    for price, quality in sorted(points, key=lambda p: (p[0], -p[1] if high else p[1])):
        if not front or (quality > front[-1][1] if high else quality < front[-1][1]):
            front.append((price, quality))
    return front


def matrix(pivot: Matrix) -> go.Figure:
    """A heat map with the figures in its cells."""
    figure = base(pivot.title, 160 + 44 * len(pivot.rows))
    values = [[cell.mean if cell else None for cell in row] for row in pivot.cells]
    text = [[str(cell) if cell else "" for cell in row] for row in pivot.cells]
    return (
        figure.add_heatmap(
            z=values,
            x=[escaped(name) for name in pivot.columns],
            y=[escaped(name) for name in pivot.rows],
            text=text,
            texttemplate="%{text}",
            colorscale="Blues",
        )
        .update_yaxes(autorange="reversed", type="category")
        .update_xaxes(type="category")
    )
