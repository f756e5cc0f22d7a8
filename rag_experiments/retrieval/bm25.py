"""Retrieval by words: BM25 (Robertson & Zaragoza 2009), with the `bm25s` library (Lù 2024).

English stop words and stemming, as in most published baselines. The index is cached by corpus and parameters and
memory-mapped when it is opened again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import bm25s
import numpy as np
import Stemmer
from filelock import FileLock

from rag_experiments.retrieval.base import Retriever, SearchResult, empty_result

if TYPE_CHECKING:
    from rag_experiments.data.passages import PassageStore
    from rag_experiments.schema import RetrieverConfig

BLOCK = 65_536
"""Passages whose text is in memory at a time while they are tokenised."""


class BM25Retriever(Retriever):
    """The passages that share the rarest words with the question; a passage that shares none is not returned."""

    def __init__(self, config: RetrieverConfig, passages: PassageStore, cache: Path | None) -> None:
        self.config = config
        self.passages = passages
        self.cache = cache
        self._index: bm25s.BM25 | None = None

    def search(self, queries: Sequence[str], k: int) -> SearchResult:
        """See `Retriever.search`."""
        k = min(k, len(self.passages))
        result = empty_result(len(queries), k)
        if not len(queries):
            return result
        tokens = _tokenize(list(queries))
        vocabulary = self.index.vocab_dict
        # bm25s refuses a question of unknown words only; such a one finds nothing.
        known = [i for i, words in enumerate(tokens) if any(word in vocabulary for word in words)]
        if known:
            rows_QK, scores_QK = self.index.retrieve([tokens[i] for i in known], k=k, show_progress=False)
            result.rows_QK[known] = np.where(scores_QK > 0, rows_QK, -1)
            result.scores_QK[known] = np.where(scores_QK > 0, scores_QK, -np.inf)
        return result

    def fingerprint(self) -> str:
        """A hash of the corpus and the two parameters."""
        parameters = [bm25s.__version__, self.passages.content_hash, self.config.bm25_k1, self.config.bm25_b]
        return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:32]

    def save(self, folder: Path) -> None:
        """The files that `bm25s.BM25.load` opens."""
        folder.mkdir(parents=True, exist_ok=True)
        self.index.save(folder, show_progress=False)

    @property
    def index(self) -> bm25s.BM25:
        """The index, built or opened now if it was not."""
        if self._index is None:
            self._index = self._open_or_build()
        return self._index

    def _open_or_build(self) -> bm25s.BM25:
        if self.cache is None:
            return self._build()
        root = self.cache / "bm25"
        folder = root / self.fingerprint()
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{folder.name}.lock"):
            if not folder.is_dir():
                temporary = root / f"{folder.name}.partial"
                shutil.rmtree(temporary, ignore_errors=True)
                self._build().save(temporary, show_progress=False)
                temporary.rename(folder)
        return bm25s.BM25.load(folder, mmap=True, show_progress=False)

    def _build(self) -> bm25s.BM25:
        """Tokenise block by block into word numbers (4 bytes a word, not a Python string), then index."""
        vocabulary: dict[str, int] = {}
        ids: list[np.ndarray] = []
        for start in range(0, len(self.passages), BLOCK):
            rows = slice(start, min(start + BLOCK, len(self.passages)))
            for words in _tokenize(self.passages.full_texts(rows)):
                numbers = [vocabulary.setdefault(word, len(vocabulary)) for word in words]
                ids.append(np.array(numbers, dtype=np.int32))
        index = bm25s.BM25(k1=self.config.bm25_k1, b=self.config.bm25_b, method="lucene")
        index.index(bm25s.tokenization.Tokenized(ids=ids, vocab=vocabulary), show_progress=False)
        return index


def _tokenize(texts: list[str]) -> list[list[str]]:
    """Lower-cased, stemmed words without the English stop words."""
    stem: Callable[[list[str]], list[str]] = Stemmer.Stemmer("english").stemWords
    return bm25s.tokenize(texts, stopwords="en", stemmer=stem, return_ids=False, show_progress=False)
