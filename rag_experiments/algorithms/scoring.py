"""How likely a frozen language model finds answers, each pair of prompt and answer computed once and for all.

The scores of a frozen model never change, so they are kept on disk under their content: the model with every setting
that changes its numbers (`Reader.fingerprint`) names the file, and the token ids of prompt and answer, which hold
instruction, template, passages, question and answer as the model sees them, are the key. A pair that was scored is
never scored again, in this run, in one beside it, or in the next. What is kept is the log-probability of each token,
from which every kind of target is made.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from rag_experiments.data.prompts import Prompt, TruncationCounts
from rag_experiments.errors import RequestError
from rag_experiments.models.reader import Reader
from rag_experiments.models.shared_prefix import PrefixScorer, can_share

log = logging.getLogger(__name__)

SCHEMA = "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, log_probs BLOB NOT NULL) WITHOUT ROWID"
KEYS_A_QUERY = 500
"""Below the number of parameters that every build of SQLite allows."""
PAIRS_A_COMMIT = 128
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
        found: dict[bytes, np.ndarray] = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), KEYS_A_QUERY):
            some = wanted[start : start + KEYS_A_QUERY]
            marks = ",".join("?" * len(some))
            rows = self.connection.execute(f"SELECT key, log_probs FROM scores WHERE key IN ({marks})", some)
            found |= {key: np.frombuffer(value, dtype="<f4") for key, value in rows}
        return found

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
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            # Autosaving checkpoints and the dataloader may use other threads; one of them at a time does.
            opened = sqlite3.connect(self.file or ":memory:", timeout=SECONDS_TO_WAIT, check_same_thread=False)
            opened.execute("PRAGMA journal_mode=WAL")
            opened.execute("PRAGMA synchronous=NORMAL")
            opened.execute(SCHEMA)
            opened.commit()
        except (sqlite3.Error, OSError) as error:
            raise RequestError(
                f"the score cache {self.file} cannot be opened ({error}): remove it, or choose another paths.cache"
            ) from error
        return opened


class AnswerScorer:
    """`Reader.score` behind a `ScoreCache`, with counts of what it cost."""

    def __init__(self, reader: Reader, cache: Path | None, batch_size: int | None = None):
        """`cache`: the folder of all runs' caches; `None`: kept in memory for this run."""
        self.reader = reader
        self.batch_size = batch_size
        self.cache = ScoreCache(None if cache is None else cache / "lm_scores" / f"{reader.fingerprint()}.sqlite")
        self.shared = PrefixScorer(reader) if can_share(reader) else None
        self.truncation = TruncationCounts()
        self.asked = self.hits = 0
        """Pairs asked for, and those of them that were known."""
        self.tokens_asked = 0
        """Tokens of all pairs asked for, as if each had been computed alone: the budget that objectives are held to."""
        self.tokens_computed = 0
        """Tokens that went through the model."""
        self.seconds = 0.0

    def token_log_probs(
        self, prompts: Sequence[Prompt], answers: Sequence[str], progress: bool = False
    ) -> list[np.ndarray]:
        """Log-probabilities of each answer's tokens after its prompt, end token left out: float32 `[T]` a pair."""
        answer_ids = {answer: self.reader.answer_ids(answer, include_end=False) for answer in set(answers)}
        keys = [pair_key(prompt.ids, answer_ids[answer]) for prompt, answer in zip(prompts, answers, strict=True)]
        known = self.cache.get(keys)
        missing = {key: pair for pair, key in enumerate(keys) if key not in known}
        self.asked += len(keys)
        self.hits += len(keys) - len(missing)
        self.tokens_asked += sum(
            len(prompt) + len(answer_ids[answer]) for prompt, answer in zip(prompts, answers, strict=True)
        )
        if missing:
            known |= self._computed(missing, prompts, answers, progress)
        return [known[key] for key in keys]

    def _computed(
        self, missing: Mapping[bytes, int], prompts: Sequence[Prompt], answers: Sequence[str], progress: bool
    ) -> dict[bytes, np.ndarray]:
        """Scores of the pairs `missing` (key to position), kept as they come: an interruption loses a few seconds."""
        started = time.perf_counter()
        # Pairs with the same passages beside each other, so that they are computed in one go; like lengths too.
        order = sorted(missing.items(), key=lambda item: _prefix_order(prompts[item[1]]))
        fresh: dict[bytes, np.ndarray] = {}
        with tqdm(total=len(order), desc="scoring answers", disable=not progress) as bar:
            for start in range(0, len(order), PAIRS_A_COMMIT):
                some = order[start : start + PAIRS_A_COMMIT]
                rows = self._compute([prompts[pair] for _, pair in some], [answers[pair] for _, pair in some])
                scored = {key: row for (key, _), row in zip(some, rows, strict=True)}
                self.cache.put(scored)
                fresh |= scored
                bar.update(len(some))
        self.seconds += time.perf_counter() - started
        return fresh

    def _compute(self, prompts: list[Prompt], answers: list[str]) -> list[np.ndarray]:
        for prompt in prompts:
            self.truncation.add(prompt)
        if self.shared is not None:
            before = self.shared.tokens_computed
            found = self.shared.score(prompts, answers, batch_size=self.batch_size)
            self.tokens_computed += self.shared.tokens_computed - before
        else:
            found = self.reader.score(prompts, answers, batch_size=self.batch_size)
            self.tokens_computed += sum(map(len, prompts)) + sum(map(len, found.tokens))
        return [row.float().numpy() for row in found.tokens]

    @property
    def hit_rate(self) -> float:
        """Share of the pairs asked for that were known; 0 before the first."""
        return self.hits / self.asked if self.asked else 0.0


def _prefix_order(prompt: Prompt) -> tuple[int, tuple[tuple[int, ...], ...]]:
    return sum(map(len, prompt.passages)), prompt.passages


def pair_key(prompt_ids: Iterable[int], answer_ids: Iterable[int]) -> bytes:
    """The content of a pair: 16 bytes that two different ones share by accident as good as never."""
    digest = hashlib.blake2b(digest_size=16)
    prompt = np.asarray(list(prompt_ids), dtype="<i4")
    digest.update(len(prompt).to_bytes(4, "little"))
    digest.update(prompt.tobytes())
    digest.update(np.asarray(list(answer_ids), dtype="<i4").tobytes())
    return digest.digest()
