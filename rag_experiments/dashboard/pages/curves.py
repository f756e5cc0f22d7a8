"""Curves: any logged figure over steps, epochs or minutes, also of running runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rag_experiments.comparison.output import figures
from rag_experiments.comparison.output.learning_curves import groups_of
from rag_experiments.dashboard.shared.address import Value, View
from rag_experiments.dashboard.shared.scope import scope_of
from rag_experiments.dashboard.shared.watch import Run, Watch

DEFAULTS: dict[str, Value] = {"metric": (), "x": "step", "smooth": "0", "seeds": "band", "log": ""}
DRAWN, FIGURES, NAMED = 24, 8, 300
X = {"step": "step", "epoch": "epoch", "seconds": "time"}
SEEDS = {"band": "as a band", "lines": "a line each"}


def context(watch: Watch, view: View) -> dict[str, Any]:
    """The values that `curves.html` shows."""
    scope = scope_of(watch.look(), view)
    # The newest first, because users want to see running runs.
    shown = scope.selected or sorted(scope.matching, key=_recency, reverse=True)
    shown = [run for run in shown if run.logged]
    names = logged_names(shown[:NAMED])
    default = default_names(names)
    metrics = ([name for name in view.many("metric") if name in names] or default)[:FIGURES]
    view.forget("metric", tuple(default))
    x = view.one("x") if view.one("x") in X else "step"
    smoothing = view.number("smooth", 0, 0.95)
    band = view.one("seeds") != "lines"
    groups = groups_of(shown, band)
    line_runs = [run for members in list(groups.values())[:DRAWN] for run in members]
    return {
        "scope": scope,
        "names": names,
        "metrics": metrics,
        "figures": [figures.curves(line_runs, name, x, smoothing, band, bool(view.one("log"))) for name in metrics],
        "x": x,
        "X": X,
        "SEEDS": SEEDS,
        "smoothing": smoothing,
        "drawn": min(len(groups), DRAWN),
        "left_out": max(0, len(groups) - DRAWN),
    }


def _recency(run: Run) -> tuple[bool, str]:
    return run.state == "running", str(run.status.get("started") or "")


def logged_names(runs: Sequence[Run]) -> list[str]:
    """All figures that some run logged: those during training first, zero shot last."""
    counted = Counter(
        name
        for run in runs
        for name in {name: None for line in run.history() for name in line}
        if name not in ("step", "epoch", "seconds") and not name.endswith(("_ci_low", "_ci_high"))
    )
    stages = ("train/", "dev/", "test/", "zero_shot/")

    def order(name: str) -> tuple[int, int, str]:
        stage = next((i for i, prefix in enumerate(stages) if name.startswith(prefix)), len(stages))
        return stage, -counted[name], name

    return sorted(counted, key=order)


def default_names(names: Sequence[str]) -> list[str]:
    """The loss, and the usual dev figure that most runs logged."""
    dev = [name for name in names if name in ("dev/exact_match", "dev/f1", "dev/recall@1", "dev/recall@4")]
    return [name for name in ("train/loss", *dev[:1]) if name in names] or list(names[:2])
