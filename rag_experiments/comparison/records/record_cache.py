"""Keep parsed runs between calls in one SQLite file, which is safe for concurrent readers and writers.

If the file cannot be opened or written (read-only home, full disk, broken file), everything works without it, but more
slowly.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

from rag_experiments.core.cache import Entry

log = logging.getLogger(__name__)

VERSION = 3
"""Raised when the content of a record changes; older files are then ignored."""


class RecordCache:
    """`get` and `put` records by run path and stamp; new records are written at the end of the `with` block."""

    def __init__(self, folder: Path):
        self.file = Entry(folder, "compare", f"runs-v{VERSION}").file(".sqlite")
        self.connection: sqlite3.Connection | None = None
        self.fresh: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> RecordCache:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(self.file, timeout=5)
            self.connection.execute("CREATE TABLE IF NOT EXISTS runs (path TEXT PRIMARY KEY, stamp TEXT, record TEXT)")
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return self

    def get(self, path: str, stamp: str) -> dict[str, Any] | None:
        """The record of a run if its files have not changed since, else None."""
        if self.connection is None:
            return None
        try:
            row = self.connection.execute("SELECT stamp, record FROM runs WHERE path = ?", (_key(path),)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return json.loads(row[1]) if row and row[0] == _key(stamp) else None

    def put(self, path: str, stamp: str, record: dict[str, Any]) -> None:
        """Keep a record for the next call."""
        self.fresh[_key(path)] = (_key(stamp), json.dumps(record))

    def __exit__(self, *exception: object) -> None:
        if self.connection is None:
            return
        try:
            with self.connection:  # one transaction: all or nothing
                rows = [(path, stamp, record) for path, (stamp, record) in self.fresh.items()]
                self.connection.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", rows)
            self.connection.close()
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.info("%s is not used: %s", self.file, error)
        self.connection = None


def _key(text: str) -> str:
    """A key that SQLite accepts, because the bytes of a path may be invalid Unicode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
