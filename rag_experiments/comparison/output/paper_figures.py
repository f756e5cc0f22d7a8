"""The comparison's figures as files for a paper, `rag-compare … --figures DIR`: each as PDF, PNG and SVG.

    write_figures(document, folder)     # bars.pdf, bars.png, bars.svg, forest.pdf, …

The figures of the report (`figures` has the same functions), without titles: a paper has captions. What a colour says
is also told by a marker or a place, for print without colour and for eyes that see fewer of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rag_experiments.comparison.analysis import causes as causes_module
from rag_experiments.comparison.analysis.before_after import Change
from rag_experiments.comparison.analysis.judgement import OUTCOMES, Comparison
from rag_experiments.comparison.analysis.matrix import Matrix
from rag_experiments.comparison.analysis.table import Group, RunTable
from rag_experiments.comparison.output import drawing, run_plots
from rag_experiments.comparison.output.drawing import canvas, legend_below, named_rows, wrapped
from rag_experiments.comparison.output.figure_choice import figure_calls
from rag_experiments.comparison.output.figures import MOST, pareto, spread
from rag_experiments.comparison.output.learning_curves import averaged, groups_of, series
from rag_experiments.comparison.output.render import Document
from rag_experiments.comparison.records.metric_fields import bare, higher_is_better
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_bytes
from rag_experiments.core.text_table import one_line
from rag_experiments.runs.directory import RunDirectory

LINES = 8
"""Configurations of which the learning curves are shown, the first ones."""
NAMED = 8
"""Dots up to which each has its name beside it."""
OUTCOME_LOOKS = {
    "better": (drawing.GREEN, "o"),
    "worse": (drawing.RED, "s"),
    "same": (drawing.SOFT, "D"),
    "undecided": (drawing.ORANGE, "^"),
}
CAUSE_COLOURS = {
    causes_module.RIGHT: drawing.GREEN,
    causes_module.FOUND: drawing.GREEN,
    causes_module.IN_SPITE: drawing.SKY,
    causes_module.READER_MISS: drawing.ORANGE,
    causes_module.RETRIEVER_MISS: drawing.RED,
}


def write_figures(document: Document, folder: Path) -> list[str]:
    """Draw all that there is to show; returns the names of the files in `folder`, which is made.

    Raises:
        RequestError: no run has finished, or the folder cannot be written.
    """
    with drawing.house_style():
        files = {
            f"{name}.{form}": drawing.encoded(figure, form, name.replace("_", " "))
            for name, figure in make_figures(document).items()
            for form in drawing.FORMS
        }
    if not files:
        raise RequestError("--figures: none of these runs has finished, so there is nothing to draw")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            atomic_write_bytes(folder / name, data)
    except OSError as error:
        raise RequestError(f"--figures {folder}: cannot be written ({error.strerror or error})") from error
    return list(files)


def make_figures(document: Document) -> dict[str, Figure]:
    """Name → figure; several of a kind are numbered. Call it within `drawing.house_style`."""
    results = [(name, globals()[name](*arguments)) for name, arguments in figure_calls(document)]
    results.append(("learning_curves", curves(document.table)))
    figures = [(name, figure) for name, figure in results if figure is not None]
    count = Counter(name for name, _ in figures)
    numbers: Counter[str] = Counter()
    by_name = {}
    for name, figure in figures:
        numbers[name] += 1
        by_name[name if count[name] == 1 else f"{name}-{numbers[name]}"] = figure
    return by_name


def _rows(names: Sequence[str], more: float = 0.0) -> tuple[Figure, Axes]:
    """A figure of horizontal rows with these names, high enough for them; `more` inches for what stands below."""
    lines = sum(max(1, wrapped(name).count("\n") + 1) * 0.14 + 0.16 for name in names)
    figure, (axes,) = canvas(0.6 + lines + more)
    named_rows(axes, list(names))
    return figure, axes


def _texts_beside(axes: Axes, texts: Sequence[str]) -> None:
    """A text right of each row."""
    for row, text in enumerate(texts):
        axes.annotate(text, (1, row), (6, 0), ("axes fraction", "data"), "offset points", va="center_baseline")


def bars(table: RunTable) -> Figure:
    """The primary metric a group, best on top: mean, spread over seeds (else the 95 % interval), a dot a seed."""
    metric = table.metric or ""
    held = [(place, group) for place, section in enumerate(table.sections) for group in section.groups]
    summaries = [(place, group, summary) for place, group in held if (summary := group.summary(metric))][:MOST]
    several = len({place for place, _, _ in summaries}) > 1
    figure, axes = _rows([group.label for _, group, _ in summaries], more=0.3 * several)
    entries = {}
    error: dict[str, Any] = {"ecolor": drawing.INK, "error_kw": {"linewidth": 1, "capsize": 2}}
    for row, (place, group, summary) in enumerate(summaries):
        up, down = spread(group, metric, summary.mean, summary.sd)
        colour = drawing.COLOURS[place % len(drawing.COLOURS)]
        bar = axes.barh(row, summary.mean, 0.6, xerr=[[down], [up]] if up or down else None, color=colour, **error)
        entries[f"{chr(65 + place % 26)}. {table.sections[place].title}"] = bar
        if summary.n > 1:
            values = [run.metrics[metric] for run in group.counted if metric in run.metrics]
            axes.plot(values, [row] * len(values), "o", color=drawing.PAPER, markeredgecolor=drawing.INK, markersize=3)
    _texts_beside(axes, [str(summary) for _, _, summary in summaries])
    axes.set_xlabel(f"{one_line(metric)}: mean ± sd over seeds (of one seed: its 95 % interval over questions)")
    legend_below(figure, entries if several else {}, columns=1)
    return figure


def before_after(changes: Sequence[Change]) -> Figure | None:
    """Each metric before and after training, with 95 % intervals, and the paired difference."""
    return run_plots.bars_figure(changes)


def forest(comparison: Comparison) -> Figure | None:
    """Difference from the baseline with its 95 % interval, coloured by verdict; None where no question has a figure."""
    tests = [(v, v.questions) for v in comparison.verdicts if v.questions][:MOST]
    if not tests:
        return None
    several = len({v.metric for v, _ in tests}) > 1
    names = [f"{v.candidate.label} · {v.metric}" if several else v.candidate.label for v, _ in tests]
    figure, axes = _rows(names, more=0.3)
    axes.axvline(0, color=drawing.INK, linewidth=0.8, linestyle=":")
    entries = {}
    for row, (verdict, test) in enumerate(tests):
        colour, marker = OUTCOME_LOOKS[verdict.outcome]
        error = [[test.difference - test.low], [test.high - test.difference]]
        bar = axes.errorbar(test.difference, row, xerr=error, fmt=marker, color=colour, markersize=5, capsize=2)
        entries[OUTCOMES[verdict.outcome]] = bar
    _texts_beside(axes, [f"{t.difference:+.3f} [{t.low:+.3f}, {t.high:+.3f}]" for _, t in tests])
    what = "difference" if several else f"difference in {tests[0][0].metric}"
    label = f"{what} from {comparison.baseline.label} (95 % interval over questions)"
    axes.set_xlabel(wrapped(label, 76))
    legend_below(figure, entries, columns=4)
    return figure


def wins(win_counts: Sequence[causes_module.Outcomes]) -> Figure:
    """Questions lost to the left, won to the right, per candidate."""
    figure, axes = _rows([one.candidate.label for one in win_counts], more=0.3)
    lost = axes.barh(range(len(win_counts)), [-one.losses for one in win_counts], 0.6, color=drawing.RED)
    won = axes.barh(range(len(win_counts)), [one.wins for one in win_counts], 0.6, color=drawing.GREEN)
    axes.bar_label(lost, [str(one.losses) for one in win_counts], padding=3)
    axes.bar_label(won, [str(one.wins) for one in win_counts], padding=3)
    axes.axvline(0, color=drawing.INK, linewidth=0.8)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlabel("questions")
    legend_below(figure, {"lost against the baseline": lost, "won": won})
    return figure


def causes(groups: Sequence[Group], stage: str) -> Figure | None:
    """Share of questions per cause and group; None where nothing is known of any question."""
    judge = causes_module.judged_by([run for group in groups for run in group.counted], stage)
    group_shares = [(group.label, share) for group in groups if (share := causes_module.shares(group, stage, judge))][
        :MOST
    ]
    if not group_shares:
        return None
    figure, axes = _rows([label for label, _ in group_shares], more=0.3)
    entries, left_R = {}, np.zeros(len(group_shares))
    for cause, colour in CAUSE_COLOURS.items():
        share_R = np.array([share.get(cause, 0.0) for _, share in group_shares])
        if share_R.any():
            bar = axes.barh(range(len(group_shares)), share_R, 0.6, left=left_R, color=colour)
            axes.bar_label(bar, [f"{value:.0%}" if value >= 0.06 else "" for value in share_R], label_type="center")
            entries[cause] = bar
            left_R += share_R
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"questions ({stage})" + ("; right: F1 of at least 0.5" if judge == "f1" else ""))
    legend_below(figure, entries, columns=4)
    return figure


def cost(table: RunTable, against: str) -> Figure | None:
    """Quality against a cost: groups as dots, the best of each price joined. None for fewer than two dots."""
    metric = table.metric or ""
    points = [(g.summary(against), g.summary(metric), g) for g in table.groups]
    dots = [(price.mean, quality.mean, group) for price, quality, group in points if price and quality]
    if len(dots) < 2:
        return None
    figure, (axes,) = canvas(3.2)
    entries = {}
    members: dict[str, list[tuple[float, float, Group]]] = defaultdict(list)
    for dot in dots:
        members[dot[2].runs[0].algorithm].append(dot)
    for number, (algorithm, ones) in enumerate(sorted(members.items())):
        colour, marker = drawing.COLOURS[number % 6], drawing.MARKERS[number % 6]
        (entries[algorithm],) = axes.plot([one[0] for one in ones], [one[1] for one in ones], marker, color=colour)
    for section in table.sections:  # one beats another only on the same questions
        inside = [(price, quality) for price, quality, group in dots if group in section.groups]
        if len(front := pareto(inside, higher_is_better(metric))) > 1:
            x, y = zip(*front, strict=True)
            (entries["best for its price"],) = axes.step(x, y, ":", where="post", color=drawing.SOFT, linewidth=1)
    middle = (min(dot[0] for dot in dots) + max(dot[0] for dot in dots)) / 2
    for price, quality, group in dots if len(dots) <= NAMED else []:
        place, side = ((5, 4), "left") if price <= middle else ((-5, 4), "right")
        small: dict[str, Any] = {"ha": side, "fontsize": 7, "color": drawing.SOFT}
        axes.annotate(wrapped(group.label, 40), (price, quality), place, textcoords="offset points", **small)
    axes.set_xlabel(one_line(against))
    axes.set_ylabel(one_line(metric))
    axes.margins(0.08)
    legend_below(figure, entries, columns=4)
    return figure


def matrix(pivot: Matrix) -> Figure:
    """A heat map with the figures in its cells; what it is of stands in the text, as `rag-compare` prints it."""
    values_RC = np.array([[cell.mean if cell else np.nan for cell in row] for row in pivot.cells], dtype=float)
    figure, (axes,) = canvas(0.9 + 0.42 * len(pivot.rows))
    axes.imshow(values_RC, cmap="Blues", aspect="auto")
    low, high = np.nanmin(values_RC), np.nanmax(values_RC)
    axes.set_xticks(range(len(pivot.columns)), [wrapped(name, 18) for name in pivot.columns])
    axes.set_yticks(range(len(pivot.rows)), [wrapped(name) for name in pivot.rows])
    axes.tick_params(length=0, labelcolor=drawing.INK)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row, cells in enumerate(pivot.cells):
        for column, cell in enumerate(cells):
            dark = cell is not None and cell.mean > low + 0.6 * (high - low)
            colour = drawing.PAPER if dark else drawing.INK
            axes.text(column, row, str(cell or "–"), ha="center", va="center", color=colour)
    return figure


def curves(table: RunTable) -> Figure | None:
    """What was logged over steps: of a single run each figure, of several the loss and the metric that they rank by.

    Seeds of one configuration are a line with a band of ± sd. None where nothing was logged.
    """
    runs = [run for group in table.groups for run in group.counted]
    if len(runs) == 1:
        return run_plots.curves_figure(run_plots.curves_of(RunDirectory(runs[0].path)))
    groups = list(groups_of(runs).items())[:LINES]
    lines_by_metric = {}
    for metric in ("train/loss", f"dev/{bare(table.metric or '')}"):
        lines = [
            (label, [line for run in members if (line := series(run, metric, "step"))]) for label, members in groups
        ]
        if any(ones for _, ones in lines):
            lines_by_metric[metric] = lines
    if not lines_by_metric:
        return None
    figure, panels = canvas(2.6 + 0.16 * len(groups), 1, len(lines_by_metric))
    entries = {}
    for axes, (metric, lines) in zip(panels, lines_by_metric.items(), strict=True):
        for number, (label, ones) in enumerate(lines):
            colour, dash = drawing.COLOURS[number % 6], drawing.DASHES[number % 4]
            if ones:
                x, mean, sd = map(np.array, zip(*averaged(ones), strict=True))
                (entries[f"{label} ({len(ones)} seeds)" if len(ones) > 1 else label],) = axes.plot(
                    x, mean, dash, color=colour
                )
                if len(ones) > 1:
                    axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0)
        axes.set_title(wrapped(metric))
        axes.set_xlabel("step", loc="right")
    legend_below(figure, entries, columns=1)
    return figure
