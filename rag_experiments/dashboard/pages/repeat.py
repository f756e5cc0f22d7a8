"""Repeat: one run, its configuration, and the exact command line that starts it again."""

from __future__ import annotations

import os
from typing import Any

import yaml

from rag_experiments.comparison.analysis import seed_repeats
from rag_experiments.comparison.records.metric_fields import split_metric
from rag_experiments.config.overrides import typed
from rag_experiments.core.bounded_files import open_regular
from rag_experiments.dashboard.shared.address import Value, View
from rag_experiments.dashboard.shared.predictions import stages_of
from rag_experiments.dashboard.shared.scope import scope_of
from rag_experiments.dashboard.shared.watch import Run, Watch

DEFAULTS: dict[str, Value] = {"run": ""}
OFFERED = 300
ERROR_SHOWN = 20_000
"""Number of characters shown from the end of a traceback."""


def context(watch: Watch, view: View) -> dict[str, Any]:
    """The values that `repeat.html` shows."""
    runs = watch.look()
    scope = scope_of(runs, view)
    run = runs.get(view.one("run")) or next(iter(scope.shown), None)
    if run is None:
        return {"scope": scope, "run": None}
    offered = list(dict.fromkeys([run.key, *(other.key for other in scope.shown)]))[:OFFERED]
    return {
        "scope": scope,
        "run": run,
        "offered": offered,
        "labels": {other.key: other.name for other in runs.values()},
        "commands": commands(run),
        "table": before_after(run),
        "other": {k: v for k, v in sorted(run.figures.items()) if not split_metric(k)[0]},
        "facts": facts(run),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else "",
        "error": error_text(run),
        "stages": stages_of(run),
    }


def commands(run: Run) -> list[tuple[str, str, str]]:
    """Identifier, explanation and text of each command line for a run."""
    again = seed_repeats.command(run)
    command_lines = [("again", "Run it again", again)] if again else []
    if run.state in ("interrupted", "failed"):
        resume = _override("resume", run)
        command_lines.append(("resume", "Go on where it stopped", f"python -m rag_experiments.train {resume}"))
    if run.state == "completed":
        this = _override("run", run)
        command_lines.append(("evaluate", "Evaluate it again", f"python -m rag_experiments.evaluate {this}"))
        command_lines.append(("ask", "Ask it", f'python -m rag_experiments.ask {this} "a question"'))
    return command_lines


def _override(key: str, run: Run) -> str:
    """`key=<the run's directory>` for a shell."""
    return typed(key, str(run.directory.path))


def facts(run: Run) -> dict[str, str]:
    """What affects a run's figures besides its configuration: versions of code, data and libraries."""
    status = run.status
    commit = str(status.get("git_commit") or "")
    versions, data = _mapping(status.get("versions")), _mapping(status.get("data"))
    values = {
        "directory": str(run.directory.path),
        "typed": str(status.get("command") or ""),
        "code": commit[:12] + (", with changes that were not committed" if status.get("git_dirty") else ""),
        "data": ", ".join(f"{name} {value}" for name, value in data.items() if value is not None),
        "data hash": str(status.get("data_hash") or ""),
        "corpus hash": str(status.get("corpus_hash") or ""),
        "config hash": str(status.get("config_hash") or ""),
        "seed": "" if run.seed is None else str(run.seed),
        "machine": f"{status.get('host')}, process {status.get('pid')}" if status.get("host") else "",
        "resumed": f"{status['resumed']} times" if status.get("resumed") else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: text for name, text in values.items() if text}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def before_after(run: Run) -> list[dict[str, Any]]:
    """One row per metric and split: zero shot, after training, and the interval after training."""
    rows = []
    for name, after in run.figures.items():
        stage, metric = split_metric(name)
        if stage not in ("dev", "test") or metric.endswith(("_ci_low", "_ci_high")) or metric.startswith("seconds"):
            continue
        low, high = run.figures.get(f"{name}_ci_low"), run.figures.get(f"{name}_ci_high")
        before = run.figures.get(f"zero_shot/{name}")
        change, note = _change(run, stage, metric, before, after)
        rows.append({"name": name, "before": before, "after": after, "low": low, "high": high})
        rows[-1] |= {"change": change, "note": note}
    return sorted(rows, key=lambda row: row["name"].split("/")[0] != "test")


def _change(run: Run, stage: str, metric: str, before: float | None, after: float) -> tuple[float | None, str]:
    """After minus before over the same questions, and a note on their number if they are not all questions.

    Zero shot often uses fewer questions (`evaluation.max_questions`). The difference of the two figures would then
    compare different samples, and could even have the wrong sign.
    """
    if before is None:
        return None, ""
    first, last = run.stages.get(f"zero_shot/{stage}"), run.stages.get(stage)
    if first is not None and last is not None and first.digest == last.digest:
        return after - before, ""
    try:
        earlier, later = run.predictions(f"zero_shot/{stage}"), run.predictions(stage)
    except (OSError, ValueError):
        return None, ""
    if not earlier and not later:  # there are no predictions: only the counts can tell
        counts = {run.figures.get(f"{name}/questions") for name in (stage, f"zero_shot/{stage}")}
        return (after - before, "") if len(counts) == 1 else (None, "not over the same questions")
    pairs = [
        (earlier[key]["metrics"].get(metric), later[key]["metrics"].get(metric)) for key in later if key in earlier
    ]
    differences = [new - old for old, new in pairs if old is not None and new is not None]
    if not differences:
        return None, "not over the same questions"
    return sum(differences) / len(differences), f"over the {len(differences)} questions asked both times"


def error_text(run: Run) -> str:
    """The end of the traceback of a failed run; without one, the error in its status."""
    try:
        with open_regular(run.directory.error_path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * ERROR_SHOWN))
            return file.read(4 * ERROR_SHOWN).decode("utf-8", "replace")[-ERROR_SHOWN:]
    except (OSError, ValueError):
        error = run.status.get("error")
        return f"{error.get('type')}: {error.get('message')}" if isinstance(error, dict) else ""
