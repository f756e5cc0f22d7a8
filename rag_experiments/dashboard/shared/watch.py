"""The current state of run directories: each is read once, and again when a file changes; broken ones do no harm.

Checking 2,000 unchanged runs takes 8,000 `stat` calls. Time, size and inode show whether a file changed, because every
file except `metrics.jsonl` is replaced as a whole, and that one only grows (or is replaced on resume).
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rag_experiments.comparison.records.record_cache import RecordCache
from rag_experiments.comparison.records.run_records import RunRecord, default_cache, load_record
from rag_experiments.core.bounded_files import open_regular
from rag_experiments.core.digest import digest, settled_digest
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory, parsed_metrics
from rag_experiments.runs.identity import find_runs

LOOK_AGAIN_SECONDS = 1.0
"""Seconds; requests within this time see the same state of the disk."""
READ_AT_ONCE = 256 << 20
"""Maximum number of bytes of a log read at once; after a change the next call continues from there."""
WATCHED = ("status.json", "config.yaml", "metrics.json", "metrics.jsonl")
Stamp = tuple[int, int, int]
"""Modification time, size, inode."""
Stamps = dict[str, Stamp | None]


@dataclass
class Run(RunRecord):
    """A record that is kept up to date, with the lines logged so far."""

    key: str = ""
    """A hash of the run's name, ten hexadecimal digits, which identifies the run in addresses."""
    logged: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """The lines of `metrics.jsonl`."""
    read_to: int = 0
    stamps: Stamps = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The last part of its path."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def folder(self) -> str:
        """The path before the label; empty at the top."""
        return self.name.rpartition("/")[0]

    @property
    def figures(self) -> dict[str, float]:
        """The final figures; for a run without them, the last logged value of each figure."""
        return self.metrics or self._latest

    @property
    def seconds(self) -> float | None:
        """The duration of the run; for an unfinished run, the duration by its log."""
        value = self.status.get("seconds")
        if self.state != "completed" and self.logged:
            value = max(value or 0.0, self.logged[-1].get("seconds") or 0.0)
        return value

    def history(self) -> list[dict[str, Any]]:
        """The logged lines as of the last `look()`."""
        return self.logged

    @cached_property
    def _latest(self) -> dict[str, float]:
        latest: dict[str, float] = {}
        for line in self.logged:
            latest |= {name: value for name, value in line.items() if isinstance(value, int | float)}
        return {name: value for name, value in latest.items() if name not in ("step", "epoch", "seconds")}


class Watch:
    """The runs below `roots`, by key. `look()` brings them up to date; safe to call from several threads.

    Raises:
        RequestError: a root does not exist.
    """

    def __init__(self, roots: Iterable[Path | str], cache: Path | None = None):
        self.roots = [Path(root).resolve() for root in roots]
        for root in self.roots:
            if not root.is_dir():
                raise RequestError(f"{root}: there is no such directory")
        self.base = Path(os.path.commonpath(self.roots)) if len(self.roots) > 1 else self.roots[0]
        self.cache = cache or default_cache()
        self.runs: dict[str, Run] = {}
        self.version = ""
        """Changes whenever something that a page shows has changed."""
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def look(self) -> dict[str, Run]:
        """The current runs on disk, in the order of their paths."""
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_AGAIN_SECONDS:
                self._look()
                self._looked = time.monotonic()
            return self.runs

    def _look(self) -> None:
        there: dict[str, tuple[str, RunDirectory, Stamps]] = {}
        for root in self.roots:
            for directory in find_runs(root):
                key, name = self._key(directory.path)
                there.setdefault(key, (name, directory, _stamps(directory)))  # once, even if it is below several roots
        old = self.runs
        changed = [key for key, (_, _, stamps) in there.items() if key not in old or old[key].stamps != stamps]
        fresh = self._read(there, changed) if changed else {}
        self.runs = {key: fresh.get(key) or old[key] for key in there}
        states = []
        for key, run in self.runs.items():
            if run.state == "running":  # it may have been killed, so its process is checked every time
                with suppress(RequestError):
                    run.state = run.directory.state
            states.append([key, run.state, run.stamps])
        self.version = digest(states, size=6)

    def _read(self, there: dict[str, tuple[str, RunDirectory, Stamps]], keys: list[str]) -> dict[str, Run]:
        """Make new objects for the runs that changed, so that threads can still use the old ones."""
        runs = {}
        with RecordCache(self.cache) as store:
            for key in keys:
                name, directory, stamps = there[key]
                run = Run(**vars(load_record(directory.path, name, store)), key=key, stamps=stamps)
                run.logged, run.read_to = _history(self.runs.get(key), directory, stamps["metrics.jsonl"])
                runs[key] = run
        return runs

    def _key(self, path: Path) -> tuple[str, str]:
        """The run's key and name. The name is its path below the watched directories, so addresses also fit a copy."""
        name = os.path.relpath(path, self.base)
        name = path.name if name == "." else name
        return settled_digest(name)[:10], name


def _stamps(directory: RunDirectory) -> Stamps:
    return {file: _stamp(directory.path / file) for file in WATCHED}


def _stamp(path: Path) -> Stamp | None:
    try:
        file_status = path.stat()
    except OSError:
        return None
    return file_status.st_mtime_ns, file_status.st_size, file_status.st_ino


def _history(run: Run | None, directory: RunDirectory, stamp: Stamp | None) -> tuple[list[dict[str, Any]], int]:
    """The lines of `metrics.jsonl` and the position up to which it was read. Only new lines are read.

    The log of a resumed run is a new file, which is read from the start.
    """
    if stamp is None:
        return [], 0
    lines: list[dict[str, Any]] = []
    start = 0
    earlier = run.stamps.get("metrics.jsonl") if run is not None else None
    if run is not None and earlier is not None and earlier[2] == stamp[2] and run.read_to <= stamp[1]:
        lines, start = list(run.logged), run.read_to
    try:
        with open_regular(directory.history_path) as file:
            file.seek(start)
            data = file.read(READ_AT_ONCE)
    except (OSError, ValueError):
        return lines, start
    whole, newline, _ = data.rpartition(b"\n")  # the last line may be incomplete
    with suppress(ValueError):  # a line that is too long
        lines += parsed_metrics(io.BytesIO(whole))
    return lines, start + len(whole) + len(newline)
