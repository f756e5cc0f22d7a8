"""Retrievers: dense, BM25, hybrid, and the one that builds them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.retrieval.dense import DenseRetriever
from rag_experiments.retrieval.factory import build_retriever
from rag_experiments.retrieval.hybrid import HybridRetriever
from rag_experiments.retrieval.retriever import SearchResult
from tests.retrieval.fakes import ListPassages, WordEncoder


def dense(passages: ListPassages, encoder: WordEncoder, cache: Path | None, **fields: Any) -> DenseRetriever:
    retriever = DenseRetriever(RetrieverConfig(**fields), passages, encoder, cache)  # type: ignore[arg-type]
    retriever.progress = False
    return retriever


def test_dense_finds_the_nearest(passages: ListPassages, encoder: WordEncoder, tmp_path: Path) -> None:
    queries = ["river item12", "fox item5", "house item58"]
    found = dense(passages, encoder, tmp_path).search(queries, 3)
    wanted = encoder.embed_queries(queries) @ encoder.embed_queries(passages.texts).T
    np.testing.assert_array_equal(found.rows_QK, np.argsort(-wanted, axis=1)[:, :3])
    assert found.rows_QK[:, 0].tolist() == [12, 5, 58]


def test_the_index_searches_by_the_similarity_that_was_trained(tmp_path: Path) -> None:
    passages = ListPassages(["stone", "stone stone stone bird"])
    cosine = dense(passages, WordEncoder(cosine=True), tmp_path).search(["stone"], 2)
    dot = dense(passages, WordEncoder(cosine=False), tmp_path).search(["stone"], 2)
    assert cosine.rows_QK.tolist() == [[0, 1]]
    assert dot.rows_QK.tolist() == [[1, 0]]


def test_k_is_clamped_and_no_question_is_no_row(
    passages: ListPassages, encoder: WordEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = dense(passages, encoder, tmp_path)
    assert retriever.search(["stone"], 500).rows_QK.shape == (1, 60)
    assert retriever.search([], 4).rows_QK.shape == (0, 4)
    queries = [f"item{i}" for i in range(11)]
    whole = retriever.search(queries, 4)
    monkeypatch.setattr("rag_experiments.retrieval.dense.QUERY_BLOCK", 3)
    np.testing.assert_array_equal(retriever.search(queries, 4).rows_QK, whole.rows_QK)


def test_refresh_follows_the_weights_and_search_alone_does_not(passages: ListPassages, tmp_path: Path) -> None:
    encoder = WordEncoder()
    retriever = dense(passages, encoder, tmp_path)
    before, first_print = retriever.vectors.copy(), retriever.fingerprint()
    encoder.seed = 1  # training changed the weights
    retriever.search(["stone"], 1)
    np.testing.assert_array_equal(retriever.vectors, before)
    retriever.refresh()
    np.testing.assert_array_equal(retriever.vectors, WordEncoder(seed=1).embed_queries(passages.texts))
    assert retriever.fingerprint() != first_print
    assert len(list((tmp_path / "vectors").glob("*/vectors.npy"))) == 1  # passing weights are not kept
    embedded = encoder.embedded
    retriever.refresh()
    assert encoder.embedded == embedded  # the same weights again: nothing to do
    encoder.seed = 2
    retriever.refresh(persist=True)
    assert len(list((tmp_path / "vectors").glob("*/vectors.npy"))) == 2


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_a_new_retriever_over_changed_weights_never_gets_the_cached_index(
    passages: ListPassages, tmp_path: Path, kind: str
) -> None:
    dense(passages, WordEncoder(seed=0), tmp_path, index=kind).search(["stone"], 1)
    changed = WordEncoder(seed=1)
    found = dense(passages, changed, tmp_path, index=kind, nprobe=100).search(["item7 stone", "item33"], 1)
    wanted = changed.embed_queries(["item7 stone", "item33"]) @ changed.embed_queries(passages.texts).T
    np.testing.assert_array_equal(found.rows_QK, np.argsort(-wanted, axis=1)[:, :1])


def test_a_graph_is_built_once_for_its_parameters(
    passages: ListPassages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag_experiments.retrieval.index import FaissIndex

    built: list[str] = []
    build = FaissIndex.build
    monkeypatch.setattr(
        FaissIndex, "build", lambda vectors, config: built.append(config.index) or build(vectors, config)
    )
    for fields in ({}, {}, {"ef_search": 7}, {"hnsw_m": 8}):
        dense(passages, WordEncoder(), tmp_path, index="hnsw", **fields).search(["stone"], 1)
    assert len(built) == 2  # search parameters need no new graph, construction parameters do


def test_dense_without_a_cache(passages: ListPassages, encoder: WordEncoder) -> None:
    for kind in ("flat", "ivf", "hnsw"):
        retriever = dense(passages, encoder, None, index=kind)
        assert retriever.search(["river item12"], 1).rows_QK.tolist() == [[12]]
        np.testing.assert_array_equal(retriever.vectors, encoder.embed_queries(passages.texts))


def bm25(passages: ListPassages, cache: Path | None = None, **fields: Any) -> BM25Retriever:
    return BM25Retriever(RetrieverConfig(type="bm25", **fields), passages, cache)  # type: ignore[arg-type]


def test_bm25_by_hand() -> None:
    passages = ListPassages(["river stone", "river river bird tree", "house"])
    found = bm25(passages, bm25_k1=1.2, bm25_b=0.75).search(["river"], 3)
    # Lucene's form: idf * tf / (tf + k1 * (1 - b + b * length / mean length)), idf = ln(1 + (N - n + .5) / (n + .5))
    idf, mean = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5)), (2 + 4 + 1) / 3
    scores = {row: idf * tf / (tf + 1.2 * (0.25 + 0.75 * length / mean)) for row, tf, length in ((0, 1, 2), (1, 2, 4))}
    order = sorted(scores, key=lambda row: -scores[row])
    assert found.rows_QK.tolist() == [[*order, -1]]
    np.testing.assert_allclose(found.scores_QK[0, :2], [scores[row] for row in order], rtol=1e-5)
    assert np.isneginf(found.scores_QK[0, 2])


def test_bm25_stems_and_knows_stop_words_and_unknown_ones() -> None:
    passages = ListPassages(["The rivers are flowing", "A stone", "of the and"])
    found = bm25(passages).search(["river flows", "the", "zyxwv", "zyxwv stones", ""], 2)
    assert found.rows_QK[:, 0].tolist() == [0, -1, -1, 1, -1]


def test_bm25_is_opened_from_its_cache(passages: ListPassages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bm25(passages, tmp_path).search(["item7 stone"], 5)
    monkeypatch.setattr(BM25Retriever, "_build", lambda _: pytest.fail("built again"))
    second = bm25(passages, tmp_path).search(["item7 stone"], 5)
    np.testing.assert_array_equal(first.rows_QK, second.rows_QK)
    np.testing.assert_allclose(first.scores_QK, second.scores_QK)
    assert bm25(passages, bm25_b=0.1).fingerprint() != bm25(passages).fingerprint()


def test_bm25_corpus_is_read_in_blocks(passages: ListPassages, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bm25(passages).search(["item7 stone"], 5)
    monkeypatch.setattr("rag_experiments.retrieval.bm25.BLOCK", 7)
    passages.largest_read = 0
    np.testing.assert_array_equal(bm25(passages).search(["item7 stone"], 5).rows_QK, whole.rows_QK)
    assert passages.largest_read == 7


class Fixed:
    """A retriever whose list is given."""

    def __init__(self, rows: list[int], scores: list[float]) -> None:
        self.passages = ListPassages([f"p{i}" for i in range(6)])
        self.rows, self.scores = rows, scores

    def search(self, queries: list[str], k: int) -> SearchResult:
        return SearchResult(np.array([self.rows] * len(queries)), np.array([self.scores] * len(queries), np.float32))


def hybrid(**fields: Any) -> SearchResult:
    first = Fixed([2, 0, 1], [0.9, 0.5, 0.1])
    second = Fixed([1, 3, -1], [8.0, 4.0, -np.inf])
    return HybridRetriever(RetrieverConfig(type="hybrid", **fields), first, second).search(["q"], 4)  # type: ignore[arg-type]


def test_reciprocal_rank_fusion_by_hand() -> None:
    found = hybrid(rrf_k=10)
    wanted = {1: 1 / 13 + 1 / 11, 2: 1 / 11, 0: 1 / 12, 3: 1 / 12}
    assert found.rows_QK.tolist() == [[1, 2, 0, 3]]
    np.testing.assert_allclose(found.scores_QK[0], [wanted[row] for row in (1, 2, 0, 3)], rtol=1e-6)


def test_weighted_fusion_by_hand() -> None:
    found = hybrid(fusion="weighted", dense_weight=0.6)
    # dense brought to 0..1: 2 -> 1, 0 -> .5, 1 -> 0; words: 1 -> 1, 3 -> 0
    assert found.rows_QK.tolist() == [[2, 1, 0, 3]]
    np.testing.assert_allclose(found.scores_QK[0], [0.6, 0.4, 0.3, 0.0], atol=1e-6)


@pytest.mark.parametrize("kind", ["faiss", "bm25", "hybrid"])
def test_build_search_save(kind: str, passages: ListPassages, encoder: WordEncoder, tmp_path: Path) -> None:
    config = RetrieverConfig(type=kind)  # type: ignore[arg-type]
    retriever = build_retriever(config, passages, encoder, tmp_path / "cache")  # type: ignore[arg-type]
    assert encoder.embedded == 0  # nothing is computed before it is asked for
    assert retriever.search(["river item12"], 1).rows_QK.tolist() == [[12]]
    retriever.refresh()
    assert len(retriever.fingerprint()) == 32
    retriever.save(tmp_path / "saved")
    assert any((tmp_path / "saved").iterdir())


def test_an_encoder_is_needed(passages: ListPassages) -> None:
    for kind in ("faiss", "hybrid"):
        with pytest.raises(RequestError, match=r"retriever\.encoder"):
            build_retriever(RetrieverConfig(type=kind), passages, None, None)  # type: ignore[arg-type]
