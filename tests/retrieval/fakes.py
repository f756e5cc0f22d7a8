"""A corpus in memory and an encoder of word counts: retrieval without a transformer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from rag_experiments.data.records import Passage


class ListPassages:
    """What retrieval asks of a passage store, over a list of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.content_hash = hashlib.sha256("\n".join(self.texts).encode()).hexdigest()
        self.largest_read = 0

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> Passage:
        return Passage(str(row), self.texts[row])

    def full_texts(self, rows: slice | Sequence[int]) -> list[str]:
        found = self.texts[rows] if isinstance(rows, slice) else [self.texts[row] for row in rows]
        self.largest_read = max(self.largest_read, len(found))
        return found


class WordEncoder:
    """Each word has a random direction; a text is their sum. `embedded` counts the passages embedded."""

    dimension = 24

    def __init__(self, seed: int = 0, cosine: bool = True) -> None:
        self.seed = seed
        self.cosine = cosine
        self.embedded = 0
        self.fail_after: int | None = None

    def fingerprint(self) -> str:
        return f"words-{self.seed}-{self.cosine}"

    def _vector(self, text: str) -> np.ndarray:
        vector = np.zeros(self.dimension, dtype=np.float32)
        for word in text.lower().split():
            digest = int(hashlib.md5(f"{self.seed} {word}".encode()).hexdigest()[:8], 16)
            vector += np.random.default_rng(digest).standard_normal(self.dimension).astype(np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-9) if self.cosine else vector

    def embed_queries(self, texts: Sequence[str], **_: object) -> np.ndarray:
        return np.stack([self._vector(t) for t in texts]) if texts else np.empty((0, self.dimension), np.float32)

    def embed_passages(self, texts: Sequence[str], **_: object) -> np.ndarray:
        if self.fail_after is not None and self.embedded >= self.fail_after:
            raise KeyboardInterrupt
        self.embedded += len(texts)
        return self.embed_queries(texts)
