"""Runs: the sorted, filtered and paged table, and a comparison of the settings and figures of ticked runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rag_experiments.comparison.analysis.judgement import headline
from rag_experiments.comparison.analysis.labels import option_names
from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.analysis.table_columns import group_key
from rag_experiments.comparison.analysis.verdict import judge
from rag_experiments.comparison.records.metric_fields import higher_is_better, split_metric
from rag_experiments.core.errors import RequestError
from rag_experiments.dashboard.shared import wording as text
from rag_experiments.dashboard.shared.address import Value, View
from rag_experiments.dashboard.shared.scope import (
    choosing_metric,
    comparable,
    differing,
    metric_names,
    plain,
    scope_of,
    telling,
)
from rag_experiments.dashboard.shared.watch import Run, Watch

DEFAULTS: dict[str, Value] = {"sort": "", "page": "1", "key": (), "metric": (), "noise": "", "usual": ()}
ROWS = 50
_judged: dict[tuple[str, ...], dict[str, Any]] = {}
"""The last verdict is kept, because a live page asks for it again after every change."""
SETTINGS_SHOWN, METRICS_SHOWN, COMPARED = 5, 4, 8


@dataclass
class Cell:
    """A figure in the comparison of ticked runs."""

    text: str
    difference: str = ""
    """Difference from the first run."""
    better: bool | None = None
    best: bool = False


@dataclass
class Line:
    """One setting or figure for all ticked runs."""

    name: str
    cells: list[Cell]


def context(watch: Watch, view: View) -> dict[str, Any]:
    """The values that `runs.html` shows."""
    scope = scope_of(watch.look(), view)
    _forget_usual_columns(view)
    keys_there, names_there = differing(scope.everything, seed=True), metric_names(scope.everything)
    keys = [key for key in view.many("key") if any(key in run.flat for run in scope.everything)]
    usual = tuple(telling(scope.matching if len(scope.matching) > 1 else scope.everything, SETTINGS_SHOWN))
    keys = keys or list(usual)
    usual_names = _default_metrics(metric_names(scope.matching) or names_there)
    names = [name for name in view.many("metric") if name in names_there] or usual_names
    view.forget("key", usual)
    view.forget("metric", tuple(usual_names))
    first = choosing_metric(names[0], scope.matching) if names else ""
    order = view.one("sort") or (f"-{first}" if first and higher_is_better(first) else "")
    rows = ordered(scope.matching, order)
    pages = max(1, math.ceil(len(rows) / ROWS))
    page = int(view.number("page", 1, pages))
    return {
        "scope": scope,
        "keys": keys,
        "keys_there": keys_there,
        "names": names,
        "names_there": names_there,
        "usual": [
            *(f"key:{key}" for key in usual if "key" not in view.values),
            *(f"metric:{name}" for name in usual_names if "metric" not in view.values),
        ],
        "options": option_names(scope.everything),
        "short": text.labels([*keys, *keys_there]),
        "numeric": [key for key in keys if _numeric(scope.everything, key)],
        "order": order,
        "rows": rows[(page - 1) * ROWS : page * ROWS],
        "first_row": (page - 1) * ROWS + 1,
        "page": page,
        "pages": pages,
        "off_page": _ticked_elsewhere(view, rows[(page - 1) * ROWS : page * ROWS]),
        "compared": compare(scope.selected[:COMPARED]) if len(scope.selected) > 1 else None,
        "noise": _noise(watch, scope.selected, names) if view.one("noise") and len(scope.selected) > 1 else None,
        "stage": _shared_stage(names),
        "sets": len({_set_of(run, name) for run in scope.matching if run.completed for name in names[:1]}),
        "bests": {name: _bests(scope.matching, name) for name in names},
    }


def _forget_usual_columns(view: View) -> None:
    """Remove default columns from the view: the form sends all shown columns, but other runs have other defaults."""
    usual = view.values.pop("usual", ())
    for name in ("key", "metric"):
        if view.values.get(name) and set(view.many(name)) == {
            item[len(name) + 1 :] for item in usual if item.startswith(f"{name}:")
        }:
            del view.values[name]


def _default_metrics(names: Sequence[str]) -> list[str]:
    """The first few metrics of one stage: test if possible, else any."""
    tested = [name for name in names if name.startswith("test/") and not text.is_seconds(name)]
    return (tested or list(names))[:METRICS_SHOWN]


def _numeric(runs: Sequence[Run], key: str) -> bool:
    values = [run.flat[key] for run in runs if run.flat.get(key) is not None]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _ticked_elsewhere(view: View, rows: Sequence[Run]) -> list[str]:
    here = {run.key for run in rows}
    return [key for key in view.many("sel") if key not in here]


def _noise(watch: Watch, runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """`noise` for the first figure of the table with values per question; kept until something changes on disk."""
    metric = next((name for name in names if name.startswith(("test/", "dev/"))), names[0] if names else "")
    runs = [run for run in runs if metric in run.metrics]
    if len(runs) < 2:
        return {"problem": "A verdict needs two ticked runs that are completed."}
    key = (watch.version, metric, *(run.key for run in runs))
    if key not in _judged:
        _judged.clear()
        _judged[key] = noise(runs, metric)
    return _judged[key]


def ordered(runs: Sequence[Run], order: str) -> list[Run]:
    """Sort runs by a setting, a figure, `name`, `state`, `started` or `seconds`; a leading `-` reverses the order.

    Runs without the value come last in both directions. Without an order the newest run is first.
    """
    backwards, name = (order.startswith("-"), order.removeprefix("-")) if order else (True, "started")

    def key(run: Run) -> tuple[int, float, str]:
        value = sort_value(run, name)
        return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))

    having = sorted((run for run in runs if sort_value(run, name) is not None), key=key, reverse=backwards)
    return having + [run for run in runs if sort_value(run, name) is None]


def sort_value(run: Run, name: str) -> Any:
    """The value by which a run is sorted."""
    if name in ("name", "state", "seconds", "algorithm"):
        return getattr(run, name)
    if name == "started":
        return run.status.get("started")
    if name in run.figures:
        return run.figures[name]
    return plain(run.flat.get(name))


def _shared_stage(names: Sequence[str]) -> str:
    """`test/` if all figures are of that stage; it is shown once above the table instead of in every heading."""
    stages = {split_metric(name)[0] for name in names}
    return f"{stages.pop()}/" if len(stages) == 1 and "" not in stages else ""


def _set_of(run: Run, name: str) -> tuple[str, str]:
    """The set of questions and passages on which a figure was measured."""
    return run.comparable_key(split_metric(name)[0] or "test")


def _bests(runs: Sequence[Run], name: str) -> set[str]:
    """The keys of the runs of the best configuration on each set of questions that has several configurations.

    The best has the best mean over seeds, on dev if all runs have the figure there; so for a figure on test the marked
    configuration is the one that dev would choose.
    """
    sets: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.completed and name in run.figures:
            sets[_set_of(run, name)].append(run)
    best_keys: set[str] = set()
    for members in (members for members in sets.values() if len(members) > 1):
        by = choosing_metric(name, members)
        groups: dict[str, list[Run]] = defaultdict(list)
        for run in members:
            groups[group_key(run)].append(run)
        means = {key: fmean(run.figures[by] for run in alike) for key, alike in groups.items()}
        best = max(means.values()) if higher_is_better(by) else min(means.values())
        best_keys |= {run.key for key, alike in groups.items() if means[key] == best for run in alike}
    return best_keys


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """The settings that differ between some runs, and their figures with differences from the first run."""
    keys = differing(runs, seed=True)
    options = option_names(runs)
    settings = [Line(key, [Cell(text.setting(run, key, options)) for run in runs]) for key in keys]
    lines = [figure_line(name, runs) for name in metric_names(runs)]
    figures = [line for line in lines if len({cell.text for cell in line.cells}) > 1]
    return {
        "runs": runs,
        "settings": settings,
        "figures": figures,
        "equal": len(lines) - len(figures),
        "warning": comparable(runs),
    }


def noise(runs: Sequence[Run], metric: str) -> dict[str, Any]:
    """Whether the differences of the ticked runs from the first one's configuration are noise, as in `rag-compare`.

    Ticked runs of one configuration with different seeds count together.
    """
    try:
        table = RunTable(list(runs), metric=metric)
        comparison = judge(table, runs[0].path)
    except RequestError as error:
        return {"problem": str(error)}
    if not comparison.verdicts:
        return {"problem": "The ticked runs are seeds of one configuration: there is nothing to compare."}
    return {
        "problem": None,
        "grid": comparison.grid(),
        "sentences": [headline(verdict) for verdict in comparison.verdicts],
    }


def figure_line(name: str, runs: Sequence[Run]) -> Line:
    """One figure for all runs: the best is marked, and all except the first have their difference from the first."""
    values = [run.figures.get(name) for run in runs]
    there = [value for value in values if value is not None]
    lower = not higher_is_better(name)
    best = (min(there) if lower else max(there)) if len(there) > 1 and min(there) < max(there) else None
    first, cells = values[0], []
    for index, value in enumerate(values):
        cell = Cell(text.metric(name, value), best=value is not None and value == best)
        if index and value is not None and first is not None:
            cell.difference = text.difference(name, value - first)
            cell.better = None if value == first else (value < first) == lower
        cells.append(cell)
    return Line(name, cells)
