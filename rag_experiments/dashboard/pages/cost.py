"""Cost: what quality was paid for, in time and memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rag_experiments.comparison.columns import default_metric
from rag_experiments.comparison.fields import higher_is_better, short_value
from rag_experiments.dashboard import text
from rag_experiments.dashboard.address import Value, View
from rag_experiments.dashboard.curve_figures import PALETTE
from rag_experiments.dashboard.pages.runs import ordered
from rag_experiments.dashboard.scope import comparable, metric_names, scope_of
from rag_experiments.dashboard.sweep_figures import escaped
from rag_experiments.dashboard.watch import Run, Watch

DEFAULTS: dict[str, Value] = {"metric": "", "cost": "", "log": ""}
COST_WORDS = ("seconds", "latency", "memory", "tokens")
ROWS = 100
WHOLE = "whole run, seconds"


def context(watch: Watch, view: View) -> dict[str, Any]:
    """What `cost.html` shows."""
    scope = scope_of(watch.look(), view)
    done = [run for run in scope.shown if run.completed and run.metrics]
    names = metric_names(done)
    qualities = [name for name in names if not is_cost(name) and higher_is_better(name)]
    costs = [WHOLE, *(name for name in names if is_cost(name))]
    default = default_metric(done) or ""
    metric = view.one("metric") if view.one("metric") in qualities else default
    cost = view.one("cost") if view.one("cost") in costs else ("seconds/train" if "seconds/train" in costs else WHOLE)
    view.forget("metric", default)
    view.forget("cost", "seconds/train" if "seconds/train" in costs else WHOLE)
    measured = [run for run in done if metric in run.metrics and cost_of(run, cost) is not None]
    front = pareto([(cost_of(run, cost) or 0.0, run.metrics[metric]) for run in measured], _more_is_better(cost))
    keys = {measured[i].key for i in front}
    return {
        "scope": scope,
        "qualities": qualities,
        "costs": costs,
        "metric": metric,
        "cost": cost,
        "figure": scatter(measured, front, metric, cost, bool(view.one("log"))) if measured else None,
        "rows": [measured[i] for i in front] + [run for run in ordered(measured, f"-{metric}") if run.key not in keys],
        "front": keys,
        "columns": table_columns(measured),
        "spent": spent(scope.shown),
        "warning": comparable(measured),
        "ROWS": ROWS,
    }


def is_cost(name: str) -> bool:
    """Whether a figure is a time, a memory, a throughput."""
    return any(word in name for word in COST_WORDS)


def _more_is_better(cost: str) -> bool:
    return "per_second" in cost


def cost_of(run: Run, name: str) -> float | None:
    """A run's cost under a name."""
    return run.seconds if name == WHOLE else run.metrics.get(name)


def pareto(points: Sequence[tuple[float, float]], more_is_better: bool = False) -> list[int]:
    """The points (cost, quality) that no other beats in both, by rising cost."""
    front: list[int] = []
    best = -np.inf
    sign = -1 if more_is_better else 1
    for index in sorted(range(len(points)), key=lambda i: (sign * points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front


def scatter(runs: Sequence[Run], front: Sequence[int], metric: str, cost: str, logarithmic: bool) -> dict[str, Any]:
    """Quality against cost, a colour an algorithm, a line through the runs that nothing beats."""
    by_algorithm: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_algorithm[run.algorithm].append(run)
    line = [runs[i] for i in front]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best for its cost",
            "x": [cost_of(run, cost) for run in line],
            "y": [run.metrics[metric] for run in line],
            "line": {"color": "#8a9099", "width": 1.5, "dash": "dot", "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    for number, (algorithm, members) in enumerate(sorted(by_algorithm.items())):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escaped(algorithm),
                "x": [cost_of(run, cost) for run in members],
                "y": [run.metrics[metric] for run in members],
                "text": [escaped(run.name) for run in members],
                "marker": {"color": PALETTE[number % len(PALETTE)], "size": 9, "symbol": number},
                "hovertemplate": "%{text}<br>%{x:.4g}: %{y:.4g}<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"title": {"text": escaped(cost), "standoff": 8}, "type": "log" if logarithmic else "linear"},
        "yaxis": {"title": {"text": escaped(metric)}},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    return {"data": traces, "layout": layout}


def table_columns(runs: Sequence[Run]) -> list[str]:
    """The costs that the runs recorded, most common first."""
    wanted = ("seconds/train", "tokens_per_second", "peak_memory_mb")
    names = [name for name in metric_names(runs) if is_cost(name)]
    first = [name for name in wanted if name in names]
    latencies = [name for name in names if "latency" in name and name.startswith(("test/", "dev/"))]
    return [*first, *latencies[:2]]


def spent(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Where the time went: label, time, share; by state, then by algorithm."""
    total = sum(run.seconds or 0.0 for run in runs)
    if not total:
        return []
    rows = [("in all", text.duration(total), f"{len(runs)} runs")]
    for state in ("completed", "running", "interrupted", "failed"):
        seconds = [run.seconds or 0.0 for run in runs if run.state == state]
        if seconds:
            rows.append((state, text.duration(sum(seconds)), f"{sum(seconds) / total:.0%} · {len(seconds)} runs"))
    for algorithm in sorted({run.algorithm for run in runs}):
        seconds = [run.seconds or 0.0 for run in runs if run.algorithm == algorithm]
        rows.append((short_value(algorithm), text.duration(sum(seconds)), f"{sum(seconds) / total:.0%} · {len(seconds)} runs"))
    return rows
