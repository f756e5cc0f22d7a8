"""Cost: quality compared with time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rag_experiments.comparison.analysis.table import Group, RunTable
from rag_experiments.comparison.analysis.table_columns import default_metric
from rag_experiments.comparison.output import figures
from rag_experiments.comparison.records.metric_fields import higher_is_better, short_value
from rag_experiments.dashboard.shared import wording
from rag_experiments.dashboard.shared.address import Value, View
from rag_experiments.dashboard.shared.scope import comparable, metric_names, scope_of
from rag_experiments.dashboard.shared.watch import Run, Watch

DEFAULTS: dict[str, Value] = {"metric": "", "cost": "", "log": ""}
COST_WORDS = ("seconds", "latency", "memory")
FIRST_COSTS = ("seconds/train", "seconds/prepare")
ROWS = 100


def context(watch: Watch, view: View) -> dict[str, Any]:
    """The values that `cost.html` shows."""
    scope = scope_of(watch.look(), view)
    done = [run for run in scope.shown if run.completed and run.metrics]
    names = metric_names(done)
    qualities = [name for name in names if not is_cost(name) and higher_is_better(name) and "tokens" not in name]
    costs = sorted(
        (name for name in names if is_cost(name)),
        key=lambda name: -FIRST_COSTS.index(name) if name in FIRST_COSTS else 1,
    )
    metric, cost = _choice(view, "metric", qualities, default_metric(done)), _choice(view, "cost", costs, None)
    values: dict[str, Any] = {
        "scope": scope,
        "qualities": qualities,
        "costs": costs,
        "metric": metric,
        "cost": cost,
        "figure": None,
        "spent": spent(scope.shown),
        "warning": comparable(done),
    }
    if not metric or not cost:
        return values
    table = RunTable([run for run in done if metric in run.metrics], metric=metric)
    figure = figures.cost(table, cost)
    if figure is not None and view.one("log"):
        figure.update_xaxes(type="log")
    rows = sorted(table.groups, key=lambda group: -_mean(group, metric))
    front = [group for section in table.sections for group in front_of(section.groups, metric, cost)]
    return values | {
        "figure": figure,
        "rows": rows[:ROWS],
        "left_out": max(0, len(rows) - ROWS),
        "front": {id(group) for group in front},
        "columns": [cost, *(name for name in table_columns(names) if name != cost)],
    }


def _choice(view: View, name: str, options: Sequence[str], default: str | None) -> str:
    first = default if default is not None and default in options else next(iter(options), "")
    view.forget(name, first)
    return view.one(name) if view.one(name) in options else first


def is_cost(name: str) -> bool:
    """Whether a figure is a time or an amount of memory."""
    return any(word in name for word in COST_WORDS)


def _mean(group: Group, metric: str) -> float:
    summary = group.summary(metric)
    return summary.mean if summary else float("-inf")


def front_of(groups: Sequence[Group], metric: str, cost: str) -> list[Group]:
    """The configurations that are not beaten by a cheaper one."""
    priced = [group for group in groups if group.summary(cost) and group.summary(metric)]
    front = set(figures.pareto([(_mean(group, cost), _mean(group, metric)) for group in priced]))
    return [group for group in priced if (_mean(group, cost), _mean(group, metric)) in front]


def table_columns(names: Sequence[str]) -> list[str]:
    """The usual costs and rates among those that the runs recorded."""
    columns = [name for name in (*FIRST_COSTS, "tokens_per_second", "peak_memory_mb") if name in names]
    return columns + [name for name in names if name.startswith("test/seconds/") and name.endswith("p50")][:2]


def spent(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Where the time was spent, as (label, time, share): by state, then by algorithm."""
    total = sum(run.seconds or 0.0 for run in runs)
    if not total:
        return []

    def row(label: str, members: Sequence[Run]) -> tuple[str, str, str]:
        seconds = sum(run.seconds or 0.0 for run in members)
        count = f"{len(members)} run{'' if len(members) == 1 else 's'}"
        share = count if len(members) == len(runs) else f"{seconds / total:.0%} · {count}"
        return label, wording.duration(seconds), share

    rows = [row("in all", runs)]
    for values in (("completed", "running", "interrupted", "failed"), sorted({run.algorithm for run in runs})):
        parts = [(value, [run for run in runs if value in (run.state, run.algorithm)]) for value in values]
        if sum(bool(members) for _, members in parts) > 1:
            rows += [row(short_value(value), members) for value, members in parts if members]
    return rows
