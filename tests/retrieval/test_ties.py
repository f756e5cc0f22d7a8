"""Passages with equal scores: every retriever gives the one that stands first in the corpus first."""

from __future__ import annotations

import numpy as np
import pytest

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.retrieval.dense import DenseRetriever
from rag_experiments.retrieval.hybrid import HybridRetriever
from rag_experiments.retrieval.index import FaissIndex
from rag_experiments.retrieval.retriever import best_rows
from tests.retrieval.fakes import ListPassages, WordEncoder

TEXTS = [f"the {name} keeps copper" for name in ("river", "stone", "forest")]
ORDER = np.random.default_rng(0).permutation(30)
CORPUS = [TEXTS[number % 3] for number in ORDER]


def retriever(kind: str, cosine: bool):
    passages = ListPassages(CORPUS)
    dense = DenseRetriever(RetrieverConfig(), passages, WordEncoder(cosine=cosine), None)
    sparse = BM25Retriever(RetrieverConfig(type="bm25"), passages, None)
    fused = RetrieverConfig(type="hybrid", fusion="rrf" if cosine else "weighted")
    return {"flat": dense, "bm25": sparse, "hybrid": HybridRetriever(fused, dense, sparse)}[kind]


@pytest.mark.parametrize("kind", ["flat", "bm25", "hybrid"])
@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("k", [1, 3, 9, 10, 30])
def test_a_retriever_breaks_ties_by_row_inside_the_list_and_at_its_end(kind, cosine, k):
    found = retriever(kind, cosine).search(["where is the stone"], k)
    same = [row for row, text in enumerate(CORPUS) if text == TEXTS[1]]
    assert found.rows_QK[0, :10].tolist() == same[:k]


@pytest.mark.parametrize("seed", range(20))
def test_best_rows_is_a_stable_sort_cut(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=rng.integers(1, 40)).astype(np.float32)
    for k in (1, 2, 7, 40):
        assert best_rows(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_what_an_approximate_index_does_not_fill_stands_last(seed):
    """FAISS gives row -1 where it looked into too few lists, with whatever score; equal scores are in any order."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 3, size=12).astype(np.float32)
    rows = rng.permutation(12)
    rows[rng.choice(12, size=4, replace=False)] = -1

    class Unordered:
        ntotal = 12

        def search(self, queries_QD, k):
            return scores[None, :k].copy(), rows[None, :k].copy()

    found, found_rows = FaissIndex(Unordered(), "ivf").search(np.zeros((1, 2)), 12)
    wanted = sorted((-score, row) for score, row in zip(scores, rows, strict=True) if row >= 0)
    assert list(zip(-found[0, :8], found_rows[0, :8], strict=True)) == wanted
    assert found_rows[0, 8:].tolist() == [-1] * 4
    assert np.isneginf(found[0, 8:]).all()
