"""Retrieval's laws: exact search against a plain loop with ties, BM25 against its formula, fusion against its rules."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval import index as index_module
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.retrieval.hybrid import DEPTH, HybridRetriever
from rag_experiments.retrieval.index import FaissIndex
from rag_experiments.retrieval.retriever import SearchResult, empty_result
from tests.retrieval.fakes import ListPassages

# -- vectors -------------------------------------------------------------------------------------------

WHOLE = st.integers(-3, 3)
"""Whole numbers: inner products are exact, and ties are ties."""
EXHAUSTIVE: dict[str, dict[str, Any]] = {
    "flat": {},
    "ivf": {"nlist": 3, "nprobe": 3},
    "hnsw": {"hnsw_m": 32, "ef_construction": 200, "ef_search": 200},
}


@pytest.mark.parametrize("kind", EXHAUSTIVE)
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(WHOLE, WHOLE, WHOLE), min_size=3, max_size=24),
    st.lists(st.tuples(WHOLE, WHOLE, WHOLE), min_size=1, max_size=3),
    st.integers(1, 30),
)
def test_an_exhaustive_search_is_a_plain_loop(kind, corpus, queries, k):
    vectors_ND, queries_QD = np.array(corpus, np.float32), np.array(queries, np.float32)
    made = FaissIndex.build(vectors_ND, RetrieverConfig(index=kind, **EXHAUSTIVE[kind]))
    scores_QK, rows_QK = made.search(queries_QD, k)
    for query, scores_K, rows_K in zip(queries_QD, scores_QK, rows_QK, strict=True):
        products = [float(query @ vector) for vector in vectors_ND]
        there = min(k, len(corpus))
        if kind == "hnsw" and there < k:  # a graph may not lead to all of them
            there = int((rows_K >= 0).sum())
        assert rows_K[there:].tolist() == [-1] * (k - there)
        assert np.isneginf(scores_K[there:]).all()
        assert len(set(rows_K[:there].tolist())) == there
        assert [products[row] for row in rows_K[:there]] == scores_K[:there].tolist()
        assert kind == "hnsw" or sorted(products, reverse=True)[:there] == scores_K[:there].tolist()
        assert sorted(scores_K[:there].tolist(), reverse=True) == scores_K[:there].tolist()


def gaussian(count: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, 16))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_an_index_does_what_its_options_say():
    """Each option of each kind reaches FAISS, at building and at opening."""
    config = RetrieverConfig(index="hnsw", hnsw_m=7, ef_construction=33, ef_search=44)
    graph = FaissIndex.build(gaussian(50), config)._index
    assert (graph.hnsw.nb_neighbors(1), graph.hnsw.efConstruction, graph.hnsw.efSearch) == (7, 33, 44)
    for nlist, nprobe, wanted in ((5, 3, (5, 3)), (2, 9, (2, 2)), (None, 1, (index_module.default_lists(200), 1))):
        lists = FaissIndex.build(gaussian(200), RetrieverConfig(index="ivf", nlist=nlist, nprobe=nprobe))._index
        assert (lists.nlist, lists.nprobe) == wanted


def test_more_lists_searched_find_more(tmp_path):
    corpus, queries = gaussian(600), gaussian(60, seed=1)
    _, exact = FaissIndex.build(corpus, RetrieverConfig()).search(queries, 5)
    found = []
    built = FaissIndex.build(corpus, RetrieverConfig(index="ivf", nlist=20))
    built.save(tmp_path)
    for nprobe in (1, 5, 20):
        opened = FaissIndex.load(tmp_path, RetrieverConfig(index="ivf", nlist=20, nprobe=nprobe))
        rows = opened.search(queries, 5)[1]
        found.append(np.mean([len(set(a) & set(b)) for a, b in zip(exact, rows, strict=True)]) / 5)
    assert found[0] < found[1] < found[2] == 1


def test_lists_are_made_from_a_sample_of_the_whole_corpus(monkeypatch):
    """A corpus sorted by topic must not be trained on its beginning; and the same corpus gives the same lists."""
    import faiss

    trained: list[np.ndarray] = []
    train = faiss.IndexIVFFlat.train
    monkeypatch.setattr(faiss.IndexIVFFlat, "train", lambda self, x: (trained.append(np.array(x)), train(self, x)))
    corpus = np.arange(3000, dtype=np.float32)[:, None].repeat(2, axis=1)
    for _ in range(2):
        FaissIndex.build(corpus, RetrieverConfig(index="ivf", nlist=4))
    rows = trained[0][:, 0]
    assert len(rows) == len(set(rows.tolist())) == 4 * 256
    assert (np.diff(rows) > 0).all(), "read from the disk in order"
    assert np.histogram(rows, bins=3, range=(0, 3000))[0].min() > 250
    np.testing.assert_array_equal(trained[0], trained[1])


def test_as_many_lists_as_vectors_and_no_more():
    assert FaissIndex.build(gaussian(4), RetrieverConfig(index="ivf", nlist=4)).size == 4
    with pytest.raises(RequestError, match="5 lists for 4 passages"):
        FaissIndex.build(gaussian(4), RetrieverConfig(index="ivf", nlist=5))


def test_vectors_of_an_index_are_given_out_by_the_exact_kind_only():
    corpus = gaussian(9)
    given_out = FaissIndex.build(corpus, RetrieverConfig()).vectors()
    gaussian(9, seed=1)
    np.testing.assert_array_equal(given_out, corpus, "and they live on after the index")
    assert FaissIndex.build(corpus, RetrieverConfig(index="hnsw")).vectors() is None
    assert FaissIndex.build(corpus, RetrieverConfig(index="ivf", nlist=2)).vectors() is None


@pytest.mark.parametrize("place", [0, 3, 9])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_found_wherever_it_stands(place, value, monkeypatch):
    monkeypatch.setattr(index_module, "BLOCK", 4)
    corpus = gaussian(10)
    corpus[place, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        FaissIndex.build(corpus, RetrieverConfig())


@pytest.mark.parametrize(
    ("config", "gpus", "said"),
    [
        (RetrieverConfig(device="gpu", index="hnsw"), 1, "no hnsw on a GPU"),
        (RetrieverConfig(device="gpu"), 0, "FAISS sees none"),
        (RetrieverConfig(device="cpu"), 1, None),
        (RetrieverConfig(device="auto", index="hnsw"), 1, None),
        (RetrieverConfig(device="auto"), 0, None),
    ],
)
def test_a_gpu_is_taken_where_it_may_be(config, gpus, said, monkeypatch):
    monkeypatch.setattr("faiss.get_num_gpus", lambda: gpus)
    monkeypatch.setattr("faiss.StandardGpuResources", lambda: pytest.fail("taken"), raising=False)
    if said is None:
        assert FaissIndex.build(gaussian(5), config).size == 5
    else:
        with pytest.raises(RequestError, match=said):
            FaissIndex.build(gaussian(5), config)


# -- words ---------------------------------------------------------------------------------------------

VOCABULARY = ["river", "stone", "bird", "tree", "hous"]
"""Each is its own stem, and none a stop word."""
TEXT = st.lists(st.sampled_from(VOCABULARY), max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TEXT, min_size=2, max_size=10).filter(lambda texts: any(texts)),
    st.lists(TEXT, min_size=1, max_size=3),
    st.integers(1, 12),
    st.sampled_from([0.5, 1.5, 3.0]),
    st.sampled_from([0.0, 0.4, 1.0]),
)
def test_bm25_is_its_formula(texts, queries, k, k1, b):
    config = RetrieverConfig(type="bm25", bm25_k1=k1, bm25_b=b)
    found = BM25Retriever(config, ListPassages(texts), None).search(queries, k)
    documents = [Counter(text.split()) for text in texts]
    mean = sum(document.total() for document in documents) / len(texts)
    assert found.rows_QK.shape == (len(queries), min(k, len(texts)))
    for query, rows_K, scores_K in zip(queries, found.rows_QK, found.scores_QK, strict=True):
        scores = []
        for document in documents:
            score = 0.0
            for word in query.split():
                having = sum(word in other for other in documents)
                idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
                tf = document[word]
                score += idf * tf / (tf + k1 * (1 - b + b * document.total() / mean)) if tf else 0.0
            scores.append(score)
        wanted = [score for score in sorted(scores, reverse=True)[: len(rows_K)] if score > 0]
        np.testing.assert_allclose(scores_K[: len(wanted)], wanted, rtol=1e-4)
        assert len({*rows_K[: len(wanted)].tolist()}) == len(wanted)
        np.testing.assert_allclose([scores[row] for row in rows_K[: len(wanted)]], wanted, rtol=1e-4)
        assert (rows_K[len(wanted) :] == -1).all(), "what shares no word is not found"
        assert np.isneginf(scores_K[len(wanted) :]).all()


# -- both ----------------------------------------------------------------------------------------------


class Given:
    """A retriever whose lists are given; remembers what it was asked."""

    def __init__(self, lists: list[list[tuple[int, float]]], size: int) -> None:
        self.lists, self.passages = lists, ListPassages([f"p{n}" for n in range(size)])
        self.depths: list[int] = []
        self.refreshed: list[bool] = []

    def search(self, queries: list[str], k: int) -> SearchResult:
        self.depths.append(k)
        result = empty_result(len(queries), k)
        for q, ranked in enumerate(self.lists):
            for place, (row, score) in enumerate(ranked[:k]):
                result.rows_QK[q, place], result.scores_QK[q, place] = row, score
        return result

    def refresh(self, persist: bool = False) -> None:
        self.refreshed.append(persist)


SIZE = 8
RANKED = st.permutations(range(SIZE)).flatmap(
    lambda rows: st.lists(st.integers(-4, 4), max_size=SIZE).map(
        lambda scores: list(zip(rows, sorted(map(float, scores), reverse=True), strict=False))
    )
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(RANKED, RANKED), min_size=1, max_size=3),
    st.integers(1, SIZE + 3),
    st.sampled_from(["rrf", "weighted"]),
    st.integers(1, 90),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_fusion_by_its_rule(lists, k, fusion, rrf_k, weight):
    dense, sparse = (Given([pair[side] for pair in lists], SIZE) for side in (0, 1))
    config = RetrieverConfig(type="hybrid", fusion=fusion, rrf_k=rrf_k, dense_weight=weight)
    found = HybridRetriever(config, dense, sparse).search(["q"] * len(lists), k)
    assert found.rows_QK.shape == found.scores_QK.shape == (len(lists), min(k, SIZE))
    for q, pair in enumerate(lists):
        fused: dict[int, float] = {}
        for ranked, share in zip(pair, (weight, 1 - weight), strict=True):
            scores = [score for _, score in ranked]
            for rank, (row, score) in enumerate(ranked, 1):
                if fusion == "rrf":
                    part = 1 / (rrf_k + rank)
                elif max(scores) == min(scores):
                    part = share
                else:
                    part = share * (score - min(scores)) / (max(scores) - min(scores))
                fused[row] = fused.get(row, 0.0) + part
        there = min(k, SIZE, len(fused))
        rows, scores = found.rows_QK[q].tolist(), found.scores_QK[q].tolist()
        assert rows[there:] == [-1] * (len(rows) - there)
        assert np.isneginf(scores[there:]).all()
        assert len(set(rows[:there])) == there
        np.testing.assert_allclose(scores[:there], sorted(fused.values(), reverse=True)[:there], atol=1e-6)
        np.testing.assert_allclose(scores[:there], [fused[row] for row in rows[:there]], atol=1e-6)
        if fusion == "rrf" and not {row for row, _ in pair[0]} & {row for row, _ in pair[1]}:
            # The same ranks have the same score: in order of the row.
            assert rows[:there] == sorted(fused, key=lambda row: (-fused[row], row))[:there]


@pytest.mark.parametrize(("k", "depth"), [(1, DEPTH), (DEPTH, DEPTH), (DEPTH + 1, DEPTH + 1)])
def test_a_fused_list_stands_on_deeper_ones(k, depth):
    dense, sparse = Given([[]], 500), Given([[]], 500)
    HybridRetriever(RetrieverConfig(type="hybrid"), dense, sparse).search(["q"], k)
    assert dense.depths == sparse.depths == [depth]


def test_refreshing_a_hybrid_is_refreshing_its_vectors():
    dense, sparse = Given([], 3), Given([], 3)
    hybrid = HybridRetriever(RetrieverConfig(type="hybrid"), dense, sparse)
    hybrid.refresh()
    hybrid.refresh(persist=True)
    assert dense.refreshed == [False, True]
    assert sparse.refreshed == []
