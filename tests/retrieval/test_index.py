"""Nearest neighbours: exact against brute force, approximate against exact."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval.index import FaissIndex, default_lists
from tests.numeric import assert_near


def vectors(count: int, dimension: int = 32, seed: int = 0, unit: bool = True) -> np.ndarray:
    """Points around 50 centres, as texts on topics are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((50, dimension))
    found = centres[rng.integers(0, 50, count)] + 0.5 * rng.standard_normal((count, dimension))
    if unit:
        found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32)


@pytest.mark.parametrize("unit", [True, False])
def test_flat_is_brute_force(unit: bool) -> None:
    corpus, queries = vectors(500, unit=unit), vectors(20, seed=1, unit=unit)
    scores, rows = FaissIndex.build(corpus, RetrieverConfig()).search(queries, 5)
    wanted = queries @ corpus.T
    order = np.argsort(-wanted, axis=1)[:, :5]
    np.testing.assert_array_equal(rows, order)
    assert_near(scores, np.take_along_axis(wanted, order, 1))
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_approximate_kinds_find_nearly_what_flat_finds(kind: str, unit: bool) -> None:
    corpus, queries = vectors(4000, unit=unit), vectors(200, seed=1, unit=unit)
    _, exact = FaissIndex.build(corpus, RetrieverConfig()).search(queries, 10)
    _, found = FaissIndex.build(corpus, RetrieverConfig(index=kind)).search(queries, 10)  # type: ignore[arg-type]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert recall > 0.9


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_saved_and_opened_finds_the_same(kind: str, tmp_path: Path) -> None:
    config = RetrieverConfig(index=kind, nprobe=3, ef_search=40)  # type: ignore[arg-type]
    index, queries = FaissIndex.build(vectors(600), config), vectors(9, seed=1)
    index.save(tmp_path)
    opened = FaissIndex.load(tmp_path, config)
    assert (opened.kind, opened.size) == (kind, 600)
    for one, two in zip(index.search(queries, 4), opened.search(queries, 4), strict=True):
        np.testing.assert_array_equal(one, two)


def test_more_asked_for_than_there_is() -> None:
    scores, rows = FaissIndex.build(vectors(3), RetrieverConfig()).search(vectors(2, seed=1), 5)
    assert (rows[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()
    assert sorted(rows[0, :3]) == [0, 1, 2]


def test_ivf_works_on_a_handful_of_vectors() -> None:
    _, rows = FaissIndex.build(vectors(5), RetrieverConfig(index="ivf")).search(vectors(1), 1)
    assert rows.tolist() == [[0]]


def test_default_lists() -> None:
    assert [default_lists(n) for n in (1, 100, 10_000, 1_000_000)] == [1, 2, 256, 4000]


def test_added_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_experiments.retrieval.index.BLOCK", 7)
    corpus = vectors(30)
    index = FaissIndex.build(corpus, RetrieverConfig())
    assert index.size == 30
    stored = index.vectors()
    assert stored is not None
    np.testing.assert_array_equal(stored, corpus)


def test_diverged_weights_are_said() -> None:
    corpus = vectors(10)
    corpus[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        FaissIndex.build(corpus, RetrieverConfig())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RetrieverConfig(index="ivf", nlist=50), r"retriever\.nlist: 50 lists for 20 passages"),
        (RetrieverConfig(device="gpu"), r"retriever\.device: gpu, but FAISS sees none"),
    ],
)
def test_wrong_requests_are_refused(config: RetrieverConfig, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    with pytest.raises(RequestError, match=message):
        FaissIndex.build(vectors(20), config)


def test_an_index_on_a_gpu_is_brought_back_to_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = faiss.IndexFlatIP(4)

    class GpuIndexFlat:
        ntotal, d = 0, 4

    monkeypatch.setattr(faiss, "index_gpu_to_cpu", lambda index: on_cpu, raising=False)
    FaissIndex(GpuIndexFlat(), "flat").save(tmp_path)
    assert faiss.read_index(str(tmp_path / "index.faiss")).d == 4


def test_a_gpu_is_asked_for_no_more_than_it_gives_where_scores_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS on a GPU returns `GPU_DEPTH` results at most."""
    index = FaissIndex.build(np.ones((50, 4), np.float32), RetrieverConfig())
    asked: list[int] = []
    search = index._index.search
    monkeypatch.setattr("rag_experiments.retrieval.index._is_on_gpu", lambda _: True)
    monkeypatch.setattr("rag_experiments.retrieval.index.GPU_DEPTH", 9)

    class Counting:
        ntotal = 50

        def search(self, queries_QD: np.ndarray, k: int):
            asked.append(k)
            return search(queries_QD, k)

    index._index = Counting()
    scores_QK, _ = index.search(np.ones((1, 4), np.float32), 3)
    assert scores_QK.tolist() == [[4.0] * 3]
    assert asked == [4, 9]
