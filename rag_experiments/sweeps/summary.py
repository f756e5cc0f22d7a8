"""The output of a sweep: a line when a job ends, a table when all have ended, and `sweep.json` for tools."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_experiments.core.files import atomic_write_json
from rag_experiments.core.text_table import Grid
from rag_experiments.runs.recorder import now
from rag_experiments.sweeps.jobs import Job, Result

log = logging.getLogger(__name__)

SUMMARY = "sweep.json"


def ended(number: int, total: int | None, job: Job, result: Result) -> None:
    """Print one line about a job that has ended."""
    place = f"[{number}/{total}]" if total else f"[{number}]"
    text = f"{place} {job.label}: {_state(job, result)}"
    if result.value is not None:
        text += f", {job.metric} {result.value:.4f}"
    if result.seconds and job.action != "reuse":
        text += f", {result.seconds:.0f} s"
    if result.note:
        text += f": {result.note}"
    if result.failed:
        text += f" (see {job.path / 'error.txt'})"
        log.error(text)
    else:
        log.info(text)


def table(rows: Sequence[tuple[Job, Result]]) -> Grid:
    """The closing table with the jobs in their order."""
    metric = next((job.metric for job, _ in rows if job.metric), None)
    headers = ["job", "state", metric or "figure", "seconds", "note"]
    cells = []
    for job, result in rows:
        value = "" if result.value is None else f"{result.value:.4f}"
        seconds = "" if result.seconds is None else f"{result.seconds:.0f}"
        cells.append([job.label, _state(job, result), value, seconds, _short(result.note)])
    return Grid("", headers, cells, [False, False, True, True, False])


def totals(rows: Sequence[tuple[Job, Result]]) -> str:
    """The last line, such as `12 jobs: 10 completed (7 reused), 1 failed, 1 not started; 95 s saved by reuse`."""
    states = Counter(result.state for _, result in rows)
    parts = []
    for state in ("completed", "pruned", "failed", "interrupted", "running", "not started"):
        if not states[state]:
            continue
        text = f"{states[state]} {state}"
        reused = [job for job, result in rows if result.state == state and job.action == "reuse"]
        if state == "completed" and reused:
            other = sum(job.other_code for job in reused)
            text += f" ({len(reused)} reused{f', {other} made by another version of the code' if other else ''})"
        parts.append(text)
    saved = sum(result.seconds or 0.0 for job, result in rows if job.action == "reuse")
    reuse_note = f"; {saved:.0f} s saved by reuse" if saved >= 1 else ""
    return f"{len(rows)} job{'s' if len(rows) != 1 else ''}: {', '.join(parts)}{reuse_note}"


def best(rows: Sequence[tuple[Job, Result]], maximise: bool) -> tuple[Job, Result] | None:
    """The completed job with the best figure."""
    figures = [(result.value, number) for number, (_, result) in enumerate(rows) if result.value is not None]
    if not figures:
        return None
    value, _ = max(figures) if maximise else min(figures)
    return next(row for row in rows if row[1].value == value)


def write_summary(folder: Path, rows: Sequence[tuple[Job, Result]], arguments: Sequence[str]) -> None:
    """Write `sweep.json`: the jobs of this command and how they ended."""
    jobs: list[dict[str, Any]] = [
        {
            "job": job.label,
            "directory": str(job.path.relative_to(folder)) if job.path.is_relative_to(folder) else job.directory,
            "overrides": job.overrides,
            "config_hash": job.config_hash,
            "state": result.state,
            "reused": job.action == "reuse",
            "metric": job.metric,
            "value": result.value,
            "seconds": result.seconds,
            "note": result.note,
        }
        for job, result in rows
    ]
    atomic_write_json(
        folder / SUMMARY, {"name": folder.name, "written": now(), "arguments": list(arguments), "jobs": jobs}
    )


def _state(job: Job, result: Result) -> str:
    if job.action == "reuse":
        return f"{result.state} (reused)"
    if job.action == "leave":
        return "failed (left)"
    if result.failed and result.error_kind == "out_of_memory":
        return "out of memory"
    if result.failed and result.error_kind == "disk_full":
        return "disk full"
    return result.state


def _short(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
