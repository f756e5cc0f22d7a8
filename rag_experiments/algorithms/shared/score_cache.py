"""A language model's scores on disk: what was computed once is never computed again.

The scores of a frozen model never change, so they are kept under their content: the model with every setting that
changes its numbers (`Reader.fingerprint`) names the file, and the token ids of prompt and answer, which hold
instruction, template, passages, question and answer as the model sees them, are the key.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from rag_experiments.core.cache import Entry
from rag_experiments.core.digest import digest
from rag_experiments.core.errors import RequestError

SCHEMA = "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, log_probs BLOB NOT NULL) WITHOUT ROWID"
KEYS_A_QUERY = 500
"""Below the number of parameters that every build of SQLite allows."""
SECONDS_TO_WAIT = 120.0
"""For another process that writes to the same file."""


class ScoreCache:
    """Token log-probabilities by key, in a SQLite file that several processes may read and write at once.

    WAL mode: readers never wait, writers wait for each other, and a process that is killed loses what it had not
    committed and nothing else. Values are plain little-endian float32; nothing is pickled. The file must be on a
    disk of this machine: WAL needs memory shared between the processes.
    """

    def __init__(self, file: Path | None):
        """`None`: in memory, for this process alone."""
        self.file = file
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    @property
    def connection(self) -> sqlite3.Connection:
        """Open, and this process's own: a connection must not be taken through a fork."""
        if self._connection is None or self._process != os.getpid():
            self._connection, self._process = self._open(), os.getpid()
        return self._connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Those of `keys` that are known, `[T]` float32 each."""
        log_probs_by_key: dict[bytes, np.ndarray] = {}
        distinct_keys = list(dict.fromkeys(keys))
        for start in range(0, len(distinct_keys), KEYS_A_QUERY):
            some = distinct_keys[start : start + KEYS_A_QUERY]
            marks = ",".join("?" * len(some))
            rows = self.connection.execute(f"SELECT key, log_probs FROM scores WHERE key IN ({marks})", some)
            log_probs_by_key |= {key: np.frombuffer(value, dtype="<f4") for key, value in rows}
        return log_probs_by_key

    def put(self, scores: Mapping[bytes, np.ndarray]) -> None:
        """Keep `scores`; where another process was first, its value stays, so that all read the same."""
        rows = [(key, np.asarray(value, dtype="<f4").tobytes()) for key, value in scores.items()]
        with self.connection as connection:
            connection.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", rows)

    def __len__(self) -> int:
        return self.connection.execute("SELECT COUNT(*) FROM scores").fetchone()[0]

    def close(self) -> None:
        """Close the file; it opens again at the next use."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    def _open(self) -> sqlite3.Connection:
        """Raises `RequestError` for a file that is no such cache, or that cannot be written."""
        try:
            if self.file is None:
                return self._connect()
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait its timeout for the change to WAL: of two processes that made the file, one failed.
            with FileLock(f"{self.file}.lock"):
                return self._connect()
        except (sqlite3.Error, OSError) as error:
            raise RequestError(
                f"the score cache {self.file} cannot be opened ({error}): remove it, or choose another paths.cache"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # Autosaving checkpoints and the dataloader may use other threads; one of them at a time does.
        opened = sqlite3.connect(self.file or ":memory:", timeout=SECONDS_TO_WAIT, check_same_thread=False)
        opened.execute("PRAGMA journal_mode=WAL")
        opened.execute("PRAGMA synchronous=NORMAL")
        opened.execute(SCHEMA)
        return opened


def score_file(cache: Path | None, room: str, key: str) -> Path | None:
    """Where the scores under `key`, which holds all that decides one besides what is scored, are in `cache`."""
    return None if cache is None else Entry(cache, room, key).file(".sqlite")


def pair_key(prompt_ids: Iterable[int], answer_ids: Iterable[int]) -> bytes:
    """The content of a pair: 16 bytes that two different ones share by accident as good as never."""
    return content_key(token_bytes(prompt_ids), token_bytes(answer_ids))


def token_bytes(ids: Iterable[int]) -> bytes:
    """Token ids as a part of a key: 4 bytes each."""
    return np.asarray(list(ids), dtype="<i4").tobytes()


def content_key(*parts: Any) -> bytes:
    """The key of a score: a `digest` in 16 bytes."""
    return bytes.fromhex(digest(*parts))
