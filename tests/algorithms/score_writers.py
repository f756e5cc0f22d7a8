"""What the processes of test_scoring.py do; a file of its own, because they import it and not torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rag_experiments.algorithms.shared.score_cache import ScoreCache
from rag_experiments.core.errors import RequestError


def write_many(file: Path, worker: int) -> None:
    cache = ScoreCache(file)
    for i in range(60):
        cache.put({f"{worker}/{i}/{j}".encode(): np.full(3, -float(worker), dtype=np.float32) for j in range(5)})
        cache.put({f"shared/{i}".encode(): np.full(3, -1.0, dtype=np.float32)})
        assert cache.get([f"{worker}/{i}/4".encode()])


def open_new(folder: Path, together: Any, failures: Any) -> None:
    for number in range(12):
        together.wait(60)
        try:
            ScoreCache(folder / f"{number}.sqlite").put({b"k": np.zeros(1, dtype=np.float32)})
        except RequestError as error:
            failures.put(str(error))
