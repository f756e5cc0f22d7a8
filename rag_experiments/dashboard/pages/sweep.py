"""Sweep: which hyper-parameters matter, and which values are good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_experiments.comparison.analysis.labels import option_names
from rag_experiments.comparison.analysis.table import Group, RunTable
from rag_experiments.comparison.analysis.table_columns import default_metric, group_key
from rag_experiments.comparison.records.metric_fields import higher_is_better, split_metric
from rag_experiments.dashboard.shared import wording
from rag_experiments.dashboard.shared.address import Value, View
from rag_experiments.dashboard.shared.importance import importances
from rag_experiments.dashboard.shared.scope import choosing_metric, comparable, differing, metric_names, scope_of
from rag_experiments.dashboard.shared.sweep_axes import Axis
from rag_experiments.dashboard.shared.sweep_figures import contour, importance_bars, parallel, slice_plot
from rag_experiments.dashboard.shared.watch import Run, Watch

DEFAULTS: dict[str, Value] = {"metric": "", "x": "", "y": ""}
AXES, SLICES, BEST = 7, 6, 5


def context(watch: Watch, view: View) -> dict[str, Any]:
    """The values that `sweep.html` shows."""
    scope = scope_of(watch.look(), view)
    done = [run for run in scope.shown if run.completed and run.metrics]
    names = metric_names(done)
    default = choosing_metric(default_metric(done) or "", done)
    metric = view.one("metric") if view.one("metric") in names else default
    view.forget("metric", default)
    measured = [run for run in done if metric in run.metrics]
    keys = [key for key in differing(measured) if _varied(measured, key)]  # the seed is not a setting to choose
    shown = _test_of(metric, measured)
    values: dict[str, Any] = {
        "scope": scope,
        "names": names,
        "metric": metric,
        "count": len(measured),
        "shown": shown,
        "on_test": split_metric(metric)[0] == "test",
        "keys": keys,
        "labels": wording.labels(keys),
        "warning": comparable(measured),
    }
    if not keys or len({group_key(run) for run in measured}) < 3:
        return values | {"figures": None}
    return values | figures(measured, keys, metric, view)


def _varied(runs: list[Run], key: str) -> bool:
    return len({repr(run.flat.get(key)) for run in runs}) > 1


def figures(everyone: list[Run], keys: list[str], metric: str, view: View) -> dict[str, Any]:
    """Figures over configurations, each with the mean over its seeds, because the best single seed is mostly luck."""
    groups = best_groups(everyone, metric)
    runs = [group.counted[0] for group in groups]
    labels, lower = wording.labels(keys), not higher_is_better(metric)
    options = option_names(runs)
    columns = {key: [_named(run.flat.get(key), options.get(key, {})) for run in runs] for key in keys}
    goal = Axis(metric, metric, [summary.mean for group in groups if (summary := group.summary(metric))])
    # Over single runs: the spread over seeds is the noise with which a setting's share is compared.
    everything = {key: [_named(run.flat.get(key), options.get(key, {})) for run in everyone] for key in keys}
    shares = importances(everything, [run.metrics[metric] for run in everyone])
    ranked = [item.key for item in shares]
    axes = {key: Axis(key, labels[key], columns[key]) for key in keys}
    names = [run.name for run in runs]
    axis_keys = [key for key in keys if key in ranked[:AXES]]
    x, y = _two(view, ranked)
    view.forget("x", ranked[0])
    view.forget("y", next(iter(ranked[1:]), ""))
    return {
        "figures": {
            "parallel": parallel([axes[key] for key in axis_keys], goal, names, lower),
            "importance": importance_bars(shares, labels),
            "slices": [(key, slice_plot(axes[key], goal, names, lower)) for key in ranked[:SLICES]],
            "contour": contour(axes[x], axes[y], goal, names) if x and y else None,
        },
        "options": options,
        "x": x,
        "y": y,
        "best": groups[:BEST],
        "shares": shares,
    }


def best_groups(runs: list[Run], metric: str) -> list[Group]:
    """Configurations in order of the mean over their seeds, the best first."""
    table = RunTable([run for run in runs if metric in run.metrics], metric=metric)
    groups = [group for group in table.groups if group.summary(metric)]

    def mean(group: Group) -> float:
        summary = group.summary(metric)
        assert summary is not None
        return summary.mean

    return sorted(groups, key=mean, reverse=higher_is_better(metric))


def _test_of(metric: str, runs: list[Run]) -> str:
    """The test figure shown next to the dev figure that chooses; empty if there is none."""
    stage, name = split_metric(metric)
    test_metric = f"test/{name}"
    return test_metric if stage == "dev" and any(test_metric in run.metrics for run in runs) else ""


def _named(value: Any, names: Mapping[str, str]) -> Any:
    return names.get(str(value), value)


def _two(view: View, ranked: list[str]) -> tuple[str, str]:
    """The two hyper-parameters of the contour: the chosen ones, or else the two that matter most."""
    if len(ranked) < 2:
        return "", ""
    x = view.one("x") if view.one("x") in ranked else next(key for key in ranked if key != view.one("y"))
    y = view.one("y") if view.one("y") in ranked and view.one("y") != x else next(key for key in ranked if key != x)
    return x, y
