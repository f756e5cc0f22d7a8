"""Predictions of runs, without keeping more of them in memory than a page shows.

Only an index of a predictions file is kept: the start of each question's line, its id, text and figures. The lines of
the few questions on a page are read when they are shown.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from rag_experiments.comparison.records.history import is_number
from rag_experiments.core.bounded_files import BROKEN_LINES, LINE_BYTES, open_regular, parse_json
from rag_experiments.dashboard.shared.watch import Run

KEPT = 8
"""Number of indices kept at once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One question of a predictions file."""

    start: int
    id: str
    question: str
    searched: str
    """The searchable text in lower case: question, answer, references."""
    metrics: dict[str, float]


@dataclass(frozen=True)
class PredictionIndex:
    """The questions of one file by id, in the order of the file."""

    path: Path
    entries: dict[str, Entry]
    broken: int
    """Number of lines that could not be read."""

    def rows(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """The complete rows of some questions."""
        row_by_id = {}
        with open_regular(self.path) as file:
            for id_ in ids:
                if id_ in self.entries:
                    file.seek(self.entries[id_].start)
                    row_by_id[id_] = parse_json(file.readline(LINE_BYTES))
        return row_by_id


_indices: OrderedDict[tuple[str, int, int], PredictionIndex] = OrderedDict()
_lock = Lock()


def index_of(run: Run, stage: str) -> PredictionIndex | None:
    """The index of `predictions/<stage>.jsonl` in its present state, or None if there is no file."""
    path = run.directory.predictions_path(stage)
    try:
        file_status = path.stat()
    except OSError:
        return None
    key = (str(path), file_status.st_mtime_ns, file_status.st_ino)
    with _lock:
        if key in _indices:
            _indices.move_to_end(key)
            return _indices[key]
    try:
        index = read_index(path)
    except (OSError, ValueError):  # a pipe, a folder, an endless file: the table shows the run as unreadable
        return None
    with _lock:
        _indices[key] = index
        while len(_indices) > KEPT:
            _indices.popitem(last=False)
    return index


def read_index(path: Path) -> PredictionIndex:
    """Read a predictions file once. A line that is not a question is counted and skipped."""
    entries: dict[str, Entry] = {}
    start = broken = blank = 0
    with open_regular(path) as file:
        while line := file.readline(LINE_BYTES + 1):
            if len(line) > LINE_BYTES:
                raise ValueError(f"a line has more than {LINE_BYTES:,} bytes")
            try:
                row = parse_json(line)
                words = [row["question"], row.get("answer") or "", *(row.get("references") or [])]
                searched = " ".join(map(str, words)).lower()
                metrics = {k: float(v) for k, v in (row.get("metrics") or {}).items() if is_number(v)}
                entries[str(row["id"])] = Entry(start, str(row["id"]), str(row["question"]), searched, metrics)
            except (ValueError, KeyError, TypeError, AttributeError):
                blank, broken = (blank, broken + 1) if line.strip() else (blank + 1, broken)
                if max(blank, broken) > BROKEN_LINES:
                    break
            start += len(line)
    return PredictionIndex(path, entries, broken)


def stages_of(run: Run) -> list[str]:
    """The stages for which the run has predictions; the final ones first."""
    folder = run.directory.path / "predictions"
    stages = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.jsonl")]
    order = ["test", "dev", "zero_shot/test", "zero_shot/dev"]
    return sorted(
        (stage for stage in stages if not stage.rpartition("/")[2].startswith(".")),
        key=lambda stage: (order.index(stage) if stage in order else len(order), stage),
    )
