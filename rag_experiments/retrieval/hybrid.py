"""Two retrievers' lists made one: vectors and words.

`rrf` adds 1 / (rrf_k + rank) over the lists (reciprocal rank fusion, Cormack et al. 2009): it needs no common scale.
`weighted` adds the scores, each list first brought to 0..1 for its question; a passage one list misses counts 0 there.
Two sums, written here: ranx, which has both, compiles with numba and wants dictionaries of ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_experiments.core.digest import digest
from rag_experiments.retrieval.retriever import Retriever, SearchResult, empty_result

if TYPE_CHECKING:
    from rag_experiments.config.schema import RetrieverConfig
    from rag_experiments.models.encoder.encoder import Encoder
    from rag_experiments.retrieval.bm25 import BM25Retriever
    from rag_experiments.retrieval.dense import DenseRetriever

DEPTH = 100
"""Passages taken from each list at least: one that stands 50th in both may belong among the first."""


class HybridRetriever(Retriever):
    """Dense and BM25, fused."""

    def __init__(self, config: RetrieverConfig, dense: DenseRetriever, sparse: BM25Retriever) -> None:
        self.config = config
        self.dense = dense
        self.sparse = sparse
        self.passages = dense.passages

    @property
    def encoder_behind(self) -> Encoder:
        """Of the vectors' half."""
        return self.dense.encoder

    def search(self, queries: Sequence[str], k: int) -> SearchResult:
        """See `Retriever.search`."""
        depth = max(k, DEPTH)
        results = (self.dense.search(queries, depth), self.sparse.search(queries, depth))
        result = empty_result(len(queries), min(k, len(self.passages)))
        for q in range(len(queries)):
            lists = [(one.rows_QK[q], one.scores_QK[q]) for one in results]
            fused = self._rrf(lists) if self.config.fusion == "rrf" else self._weighted(lists)
            # Equal scores in order of the row: the same question gives the same list on every machine.
            best = sorted(fused, key=lambda row: (-fused[row], row))[: result.rows_QK.shape[1]]
            result.rows_QK[q, : len(best)] = best
            result.scores_QK[q, : len(best)] = [fused[row] for row in best]
        return result

    def refresh(self, persist: bool = False) -> None:
        """See `Retriever.refresh`; words do not change."""
        self.dense.refresh(persist)

    def fingerprint(self) -> str:
        """A hash of both lists and of how they are fused."""
        return digest(self.dense.fingerprint(), self.sparse.fingerprint(), self.config)

    def save(self, folder: Path) -> None:
        """Both indices, each in its own folder."""
        self.dense.save(folder / "dense")
        self.sparse.save(folder / "bm25")

    def _rrf(self, lists: list[tuple[np.ndarray, np.ndarray]]) -> dict[int, float]:
        fused: dict[int, float] = {}
        for rows_K, _ in lists:
            for rank, row in enumerate(rows_K[rows_K >= 0].tolist(), start=1):
                fused[row] = fused.get(row, 0.0) + 1.0 / (self.config.rrf_k + rank)
        return fused

    def _weighted(self, lists: list[tuple[np.ndarray, np.ndarray]]) -> dict[int, float]:
        fused: dict[int, float] = {}
        weights = (self.config.dense_weight, 1.0 - self.config.dense_weight)
        for (rows_K, scores_K), weight in zip(lists, weights, strict=True):
            present = rows_K >= 0
            for row, score in zip(rows_K[present].tolist(), _to_unit(scores_K[present]).tolist(), strict=True):
                fused[row] = fused.get(row, 0.0) + weight * score
        return fused


def _to_unit(scores_K: np.ndarray) -> np.ndarray:
    """Scores of one list brought to 0..1; all 1 where they are equal."""
    if not len(scores_K):
        return scores_K
    low, high = scores_K.min(), scores_K.max()
    return (scores_K - low) / (high - low) if high > low else np.ones_like(scores_K)
