"""Vectors and candidates: who embeds what, what is kept where, what a refresh takes up and what it reports."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core import cache as disk_cache
from rag_experiments.core import distributed
from rag_experiments.retrieval import candidates as refresh
from rag_experiments.retrieval import embedding
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.retrieval.candidates import Candidates, RefreshCandidates
from rag_experiments.retrieval.dense import DenseRetriever
from rag_experiments.retrieval.embedding import embed_corpus, vectors_key
from rag_experiments.retrieval.factory import build_retriever
from rag_experiments.retrieval.hybrid import HybridRetriever
from rag_experiments.retrieval.index import FaissIndex
from tests.retrieval.fakes import ListPassages, WordEncoder


def dense(passages: ListPassages, encoder: WordEncoder, cache: Path | None, **fields: Any) -> DenseRetriever:
    retriever = DenseRetriever(RetrieverConfig(**fields), passages, encoder, cache)  # type: ignore[arg-type]
    retriever.progress = False
    return retriever


# -- vectors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count", "block"), [(60, 3, 7), (5, 3, 100), (2, 4, 1), (7, 2, 7)])
def test_the_processes_of_a_run_embed_a_share_each(size, count, block, passages, monkeypatch):
    """Every passage once over all of them, and every one of them has all vectors in order."""
    corpus = ListPassages(passages.texts[:size])
    shares: dict[int, list[np.ndarray]] = {}

    def embedded_by(rank: int, known: list[list[np.ndarray]] | None) -> tuple[np.ndarray, int]:
        encoder, calls = WordEncoder(), iter(range(1000))

        def gathered(own):
            shares.setdefault(rank, []).append(own)
            if known is None:
                return [own if other == rank else np.zeros((0, 24), np.float32) for other in range(count)]
            call = next(calls)
            return [own if other == rank else known[other][call] for other in range(count)]

        monkeypatch.setattr(distributed, "rank_and_count", lambda: (rank, count))
        monkeypatch.setattr(distributed, "gathered", gathered)
        if known is None:
            # What each would hand in, before any has what the others hand in.
            for rows in embedding._blocks(size, block):
                gathered(encoder.embed_passages(corpus.full_texts(slice(rows.start + rank, rows.stop, count))))
            return np.empty(0), encoder.embedded
        return embed_corpus(encoder, corpus, None, False, block=block), encoder.embedded  # type: ignore[arg-type]

    for rank in range(count):
        embedded_by(rank, None)
    known = [shares.pop(rank) for rank in range(count)]
    results = [embedded_by(rank, known) for rank in range(count)]
    assert sum(embedded for _, embedded in results) == size
    assert max(embedded for _, embedded in results) <= -(-block // count) * -(-size // block)
    for vectors, _ in results:
        np.testing.assert_array_equal(vectors, WordEncoder().embed_queries(corpus.texts))


def test_what_one_process_does_not_find_none_takes(passages, tmp_path, monkeypatch):
    """Another run may write the vectors between two looks: all processes must go the same way."""
    embed_corpus(WordEncoder(), passages, tmp_path, False)
    encoder = WordEncoder()
    monkeypatch.setattr(distributed, "gathered", lambda own: [own, False] if isinstance(own, bool) else [own])
    found = embed_corpus(encoder, passages, tmp_path, False, store=False)
    assert encoder.embedded == len(passages)
    assert not isinstance(found, np.memmap)


def test_an_entry_of_another_shape_is_no_entry(passages, tmp_path):
    place = disk_cache.Entry(tmp_path, "vectors", vectors_key(WordEncoder(), passages))
    assert embedding._open(place, (60, 24)) is None
    place.partial.mkdir(parents=True)
    np.save(place.partial / "vectors.npy", np.zeros((3, 24), np.float32))
    place.put()
    assert embedding._open(place, (60, 24)) is None
    found = embedding._open(place, (3, 24))
    assert isinstance(found, np.memmap)


def test_work_begun_with_other_blocks_is_begun_again(passages, tmp_path):
    killed = WordEncoder()
    killed.fail_after = 30
    with pytest.raises(KeyboardInterrupt):
        embed_corpus(killed, passages, tmp_path, False, block=10)
    (partial,) = (tmp_path / "vectors").glob(".partial-*")
    assert json.loads((partial / "layout.json").read_text()) == {"shape": [60, 24], "block": 10}
    heir = WordEncoder()
    found = embed_corpus(heir, passages, tmp_path, False, block=15)
    assert heir.embedded == 60
    np.testing.assert_array_equal(found, WordEncoder().embed_queries(passages.texts))
    folders = {path.name for path in (tmp_path / "vectors").glob("*") if path.is_dir()}
    assert folders == {vectors_key(WordEncoder(), passages)}  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "vectors").iterdir() if path.name.count(".") > 1] == []


# -- dense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("cached", [False, True])
def test_vectors_may_be_asked_for_before_any_search(kind, cached, passages, encoder, tmp_path):
    """As mining does, where BM25 searches and the encoder only judges."""
    made = dense(passages, encoder, tmp_path if cached else None, index=kind)
    np.testing.assert_array_equal(made.vectors, encoder.embed_queries(passages.texts))


def test_vectors_are_held_once(passages, encoder, tmp_path):
    """A flat index in memory has a copy of its own; from the disk they are mapped; a graph gives none back."""
    made = dense(passages, encoder, None)
    made.search(["stone"], 1)
    assert made._vectors_ND is None
    graph = dense(passages, encoder, None, index="hnsw")
    graph.search(["stone"], 1)
    assert graph._vectors_ND is not None
    mapped = dense(passages, encoder, tmp_path)
    assert isinstance(mapped.vectors, np.memmap)


def test_what_passes_is_not_kept_on_disk_whatever_the_index(passages, tmp_path):
    encoder = WordEncoder()
    made = dense(passages, encoder, tmp_path, index="hnsw")
    made.search(["stone"], 1)
    encoder.seed = 1
    made.refresh()
    assert len([path for path in (tmp_path / "indices").glob("*") if path.is_dir()]) == 1
    np.testing.assert_array_equal(made.vectors, WordEncoder(1).embed_queries(passages.texts))
    encoder.seed = 2
    made.refresh(persist=True)
    assert len([path for path in (tmp_path / "indices").glob("*") if path.is_dir()]) == 2


def test_a_refresh_before_the_first_search_builds(passages, encoder, tmp_path):
    made = dense(passages, encoder, tmp_path)
    made.refresh()
    assert encoder.embedded == len(passages)
    assert not (tmp_path / "vectors" / made._key).exists(), "refreshed weights pass"
    assert made.search(["river item12"], 1).rows_QK.tolist() == [[12]]
    assert encoder.embedded == len(passages)


@pytest.mark.parametrize("kind", ["faiss", "bm25", "hybrid"])
def test_a_retriever_is_built_of_what_is_given(kind, passages, encoder, tmp_path):
    config = RetrieverConfig(type=kind)
    made: Any = build_retriever(config, passages, encoder, tmp_path)
    parts = [made.dense, made.sparse] if kind == "hybrid" else [made]
    assert isinstance(made, {"faiss": DenseRetriever, "bm25": BM25Retriever, "hybrid": HybridRetriever}[kind])
    for part in [made, *parts]:
        assert part.config is config
        assert part.passages is passages
    assert all(part.cache == tmp_path for part in parts)
    made.save(tmp_path / "saved")
    names = {str(path.relative_to(tmp_path / "saved")) for path in (tmp_path / "saved").rglob("index.faiss")}
    assert names == {"faiss": {"index.faiss"}, "bm25": set(), "hybrid": {"dense/index.faiss"}}[kind]
    if kind != "bm25":
        (folder,) = {path.parent for path in (tmp_path / "saved").rglob("index.json")}
        facts = {"kind": "flat", "size": 60, "dimension": 24, "metric": "inner_product"}
        assert json.loads((folder / "index.json").read_text()) == facts
        assert FaissIndex.load(folder).size == 60


def test_a_bm25_index_half_written_is_written_again(passages, tmp_path):
    config = RetrieverConfig(type="bm25")
    name = BM25Retriever(config, passages, tmp_path).fingerprint()
    (tmp_path / "bm25" / f".partial-{name}").mkdir(parents=True)
    (tmp_path / "bm25" / f".partial-{name}" / "rest").write_text("of a killed run")
    found = BM25Retriever(config, passages, tmp_path).search(["item7"], 1)
    assert found.rows_QK.tolist() == [[7]]
    assert not (tmp_path / "bm25" / name / "rest").exists()


# -- candidates ----------------------------------------------------------------------------------------

QUERIES = ["river item12", "fox item5", "house stone"]


def candidates(retriever: Any, k: int = 4, **fields: Any) -> Candidates:
    return Candidates(retriever, QUERIES, k, progress=False, **fields)


def test_blocks_of_questions_change_nothing(passages, encoder, monkeypatch):
    retriever = dense(passages, encoder, None)
    whole = candidates(retriever).rows_QK
    for block in (1, 2, 3):
        monkeypatch.setattr(refresh, "QUERY_BLOCK", block)
        np.testing.assert_array_equal(candidates(retriever).rows_QK, whole)


def test_no_more_candidates_than_passages(encoder):
    few = ListPassages(["river", "stone", "fox"])
    assert candidates(dense(few, encoder, None), k=9).rows_QK.shape == (3, 3)
    assert candidates(dense(few, encoder, None), k=2).rows_QK.shape == (3, 2)


def test_figures_by_hand(passages, encoder):
    retriever: Any = SimpleNamespace(passages=passages, refresh=lambda: None)
    rows = [[[1, 2], [3, 4], [5, -1]], [[2, 1], [3, 9], [5, 6]]]
    given = iter([np.array(one) for one in rows])
    retriever.search = lambda queries, k: SimpleNamespace(rows_QK=next(given))
    found = candidates(retriever, k=2, golds=[[1], [8], []])
    first = found.refresh()
    assert first["gold_found"] == 0.5
    assert "candidates_changed" not in first
    assert found.rows_QK.tolist() == [[1, 2], [3, 8], [5, -1]]
    second = found.refresh()
    # [3, 9] becomes [3, 8] with its gold, so only 6 is new.
    assert second["candidates_changed"] == pytest.approx(1 / 6)
    assert second["gold_found"] == 0.5
    assert refresh._share_with_gold(np.array([[1]]), [[]]) == 0.0
    assert refresh._share_changed(np.empty((0, 2)), np.empty((0, 2))) == 0.0


def test_only_a_checkpoint_with_the_same_places_is_taken(passages, encoder, tmp_path):
    retriever = dense(passages, encoder, None)
    found = candidates(retriever)
    assert not found.load(tmp_path)
    found.save(tmp_path)
    assert found.load(tmp_path)
    assert not candidates(retriever, k=3).load(tmp_path)
    again = candidates(retriever)
    assert again.load(tmp_path)
    encoder.seed = 1
    np.testing.assert_array_equal(again.rows_QK, found.rows_QK)


def test_questions_mode_of_a_hybrid_is_that_of_its_vectors(passages, encoder):
    config = RetrieverConfig(type="hybrid")
    hybrid = HybridRetriever(config, dense(passages, encoder, None), BM25Retriever(config, passages, None))
    wanted = candidates(dense(passages, encoder, None)).rows_QK
    np.testing.assert_array_equal(candidates(hybrid, mode="questions").rows_QK, wanted)
    np.testing.assert_array_equal(candidates(hybrid).rows_QK, hybrid.search(QUERIES, 4).rows_QK)


def state(step: int, folder: Path, first: bool = True) -> tuple[TrainingArguments, TrainerState, TrainerControl]:
    trainer = TrainerState(global_step=step, max_steps=6, is_world_process_zero=first)
    return TrainingArguments(output_dir=str(folder)), trainer, TrainerControl()


def test_the_callback_records_each_figure(passages, encoder, tmp_path, caplog):
    recorded: dict[str, float] = {}
    callback = RefreshCandidates(candidates(dense(passages, encoder, None), golds=[[1]] * 3), 3, recorded.__setitem__)
    _ = callback.candidates.rows_QK
    with caplog.at_level(logging.WARNING):
        callback.on_train_begin(*state(0, tmp_path))
    assert caplog.text == "", "a run that begins has no checkpoint to miss"
    callback.on_step_end(*state(2, tmp_path))
    assert recorded == {}
    callback.on_step_end(*state(3, tmp_path))
    assert set(recorded) == {"refresh_seconds", "gold_found", "candidates_changed"}
    recorded.clear()
    callback.on_step_end(*state(6, tmp_path))
    assert recorded == {}, "nobody reads them after the last step"


def test_a_fingerprint_knows_the_index_and_who_embeds_the_questions(passages, encoder, tmp_path):
    """Between two refreshes the encoder goes on learning: the index stays, and the questions' vectors are others."""
    retriever = dense(passages, encoder, tmp_path)
    retriever.refresh()
    before = retriever.fingerprint()
    encoder.seed = 7
    between = retriever.fingerprint()
    retriever.refresh()
    assert len({before, between, retriever.fingerprint()}) == 3
