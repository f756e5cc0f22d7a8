"""Curves: any logged figure over steps, epochs or minutes, while the runs go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rag_experiments.comparison.columns import group_key
from rag_experiments.comparison.fields import short_value
from rag_experiments.dashboard.address import Value, View
from rag_experiments.dashboard.curve_figures import Series, curves
from rag_experiments.dashboard.scope import differing, scope_of
from rag_experiments.dashboard.watch import Run, Watch

DEFAULTS: dict[str, Value] = {"metric": (), "x": "step", "smooth": "0", "seeds": "band", "log": ""}
DRAWN, FIGURES = 24, 8
NAMING_KEYS = 3
X = {"step": "step", "epoch": "epoch", "seconds": "time"}
SEEDS = {"band": "as a band", "lines": "a line each"}


def context(watch: Watch, view: View) -> dict[str, Any]:
    """What `curves.html` shows."""
    scope = scope_of(watch.look(), view)
    # The newest first: of many runs, those that are going on are the ones one wants to see.
    shown = scope.selected or sorted(scope.matching, key=_recency, reverse=True)
    shown = [run for run in shown if run.logged]
    series = grouped(shown, view.one("seeds") == "band")[:DRAWN]
    names = logged_names([run for run in shown[:300]])
    default = default_names(names)
    wanted = [name for name in view.many("metric") if name in names] or default
    view.forget("metric", tuple(default))
    x = view.one("x") if view.one("x") in X else "step"
    smoothing = view.number("smooth", 0, 0.95)
    return {
        "scope": scope,
        "names": names,
        "wanted": wanted[:FIGURES],
        "figures": [(name, curves(name, series, x, smoothing, bool(view.one("log")))) for name in wanted[:FIGURES]],
        "x": x,
        "X": X,
        "SEEDS": SEEDS,
        "smoothing": smoothing,
        "drawn": len(series),
        "left_out": max(0, len(grouped(shown, view.one("seeds") == "band")) - DRAWN),
    }


def _recency(run: Run) -> tuple[bool, str]:
    return run.state == "running", str(run.status.get("started") or "")


def grouped(runs: Sequence[Run], band: bool) -> list[Series]:
    """A series a configuration, or one a run; named by what differs between them."""
    keys = differing(runs)[:NAMING_KEYS]
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(group_key(run) if band else run.key, []).append(run)
    labels = [" · ".join(short_value(group[0].flat.get(key)) for key in keys) for group in members.values()]
    twice = Counter(labels)
    found = []
    for label, group in zip(labels, members.values(), strict=True):
        name = label if label and twice[label] == 1 else group[0].label
        if not band and len({run.seed for run in runs}) > 1 and label and twice[label] > 1:
            name = f"{label} · seed {group[0].seed}"
        found.append(Series(name, [run.history() for run in group]))
    return found


def logged_names(runs: Sequence[Run]) -> list[str]:
    """Every figure that some run logged; those over training first, zero shot last."""
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
    """The loss, and the first figure on dev that people look at."""
    dev = [name for name in ("dev/exact_match", "dev/f1", "dev/recall@1", "dev/recall@4") if name in names]
    return [name for name in ("train/loss", *dev[:1]) if name in names] or list(names[:2])
