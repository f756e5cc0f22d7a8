"""A retriever whose first passages a reranker puts into a new order.

The first `rerank_depth` passages that the retriever finds are scored with the question, and come in the order of those
scores; equal scores keep the retriever's order. Passages below that depth follow as they were.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_experiments.core.digest import digest
from rag_experiments.retrieval.retriever import Retriever, SearchResult

if TYPE_CHECKING:
    from rag_experiments.config.schema import RetrieverConfig
    from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class Reranked:
    """One search, before and after reranking."""

    first: SearchResult
    """What the first retriever found."""
    final: SearchResult
    """The same in the reranker's order."""
    pairs: int
    """How many pairs of a question and a passage were scored."""
    seconds: float
    """That scoring them took."""


class RerankingRetriever(Retriever):
    """A retriever and a reranker behind it."""

    def __init__(self, config: RetrieverConfig, first: Retriever, reranker: CrossEncoder) -> None:
        self.config = config
        self.first = first
        self.reranker = reranker
        self.passages = first.passages

    @property
    def encoder_behind(self) -> Any:
        """The first retriever's."""
        return self.first.encoder_behind

    def search(self, queries: Sequence[str], k: int) -> SearchResult:
        """See `Retriever.search`. A reranked passage's score is its logit; those below follow in steps of 1."""
        return self.search_both(queries, k).final

    def search_both(self, queries: Sequence[str], k: int) -> Reranked:
        """The `k` best passages before and after reranking, from one search."""
        deep = self.first.search(queries, max(k, self.config.rerank_depth))
        started = time.perf_counter()
        order_QD, scores_QD, pairs = self._order(queries, deep)
        seconds = time.perf_counter() - started
        rows_QD = np.take_along_axis(deep.rows_QK, order_QD, axis=1)
        width = min(k, rows_QD.shape[1])
        first = SearchResult(deep.rows_QK[:, :width], deep.scores_QK[:, :width])
        return Reranked(first, SearchResult(rows_QD[:, :width], scores_QD[:, :width]), pairs, seconds)

    def refresh(self, persist: bool = False) -> None:
        """See `Retriever.refresh`. A reranker has nothing to renew."""
        self.first.refresh(persist)

    def fingerprint(self) -> str:
        """A hash of the first list, of the reranker, and of how deep it goes."""
        return digest(self.first.fingerprint(), self.reranker.fingerprint(), self.config.rerank_depth)

    def save(self, folder: Path) -> None:
        """The first retriever's index, and the reranker in `reranker/`."""
        self.first.save(folder)
        self.reranker.save(folder / "reranker")

    def _order(self, queries: Sequence[str], deep: SearchResult) -> tuple[np.ndarray, np.ndarray, int]:
        """For each question the places of its passages in their new order, their scores, and the number of pairs."""
        rows_QD = deep.rows_QK
        depth = min(self.config.rerank_depth, rows_QD.shape[1])
        questions_P, places = np.nonzero(rows_QD[:, :depth] >= 0)
        rows_P = rows_QD[questions_P, places]
        unique, inverse = np.unique(rows_P, return_inverse=True)
        texts = self.passages.full_texts(unique.tolist())
        batch_size = self.config.rerank_batch_size
        logits = self.reranker.score(
            [queries[q] for q in questions_P.tolist()], [texts[i] for i in inverse.tolist()], batch_size
        )
        scores_QD = np.full(rows_QD.shape, -np.inf, dtype=np.float32)
        scores_QD[questions_P, places] = logits
        order_QD = np.tile(np.arange(rows_QD.shape[1]), (len(rows_QD), 1))
        order_QD[:, :depth] = np.argsort(-scores_QD[:, :depth], axis=1, kind="stable")
        sorted_QD = np.take_along_axis(scores_QD, order_QD, axis=1)
        if depth < rows_QD.shape[1]:
            below_T = np.arange(1, rows_QD.shape[1] - depth + 1, dtype=np.float32)
            last_Q = sorted_QD[:, depth - 1 : depth]
            sorted_QD[:, depth:] = np.where(rows_QD[:, depth:] >= 0, last_Q - below_T, -np.inf)
        return order_QD, sorted_QD, len(rows_P)
