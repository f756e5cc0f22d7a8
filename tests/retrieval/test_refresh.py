"""Candidates during training: what is found, what is added, what a resumed run gets back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.retrieval.candidates import Candidates, RefreshCandidates, add_golds
from rag_experiments.retrieval.dense import DenseRetriever
from tests.retrieval.fakes import ListPassages, WordEncoder

QUERIES = ["river item12", "fox item5", "house stone"]


@pytest.fixture
def retriever(passages: ListPassages, encoder: WordEncoder, tmp_path: Path) -> DenseRetriever:
    made = DenseRetriever(RetrieverConfig(), passages, encoder, tmp_path / "cache")  # type: ignore[arg-type]
    made.progress = False
    return made


def candidates(retriever: DenseRetriever, **fields: object) -> Candidates:
    return Candidates(retriever, QUERIES, 4, progress=False, **fields)  # type: ignore[arg-type]


def best(passages: ListPassages, query_seed: int, passage_seed: int) -> np.ndarray:
    scores = WordEncoder(query_seed).embed_queries(QUERIES) @ WordEncoder(passage_seed).embed_queries(passages.texts).T
    return np.argsort(-scores, axis=1)[:, :4]


def test_corpus_mode_follows_the_weights(
    retriever: DenseRetriever, encoder: WordEncoder, passages: ListPassages
) -> None:
    found = candidates(retriever)
    np.testing.assert_array_equal(found.rows_QK, best(passages, 0, 0))
    encoder.seed = 1
    np.testing.assert_array_equal(found.rows_QK, best(passages, 0, 0))  # until a refresh
    figures = found.refresh()
    np.testing.assert_array_equal(found.rows_QK, best(passages, 1, 1))
    kept = [
        len(set(a) & set(b)) for a, b in zip(best(passages, 0, 0).tolist(), best(passages, 1, 1).tolist(), strict=True)
    ]
    assert figures["candidates_changed"] == pytest.approx(1 - sum(kept) / 12)
    assert figures["refresh_seconds"] > 0


def test_questions_mode_keeps_the_passages_of_the_start(
    retriever: DenseRetriever, encoder: WordEncoder, passages: ListPassages
) -> None:
    found = candidates(retriever, mode="questions")
    embedded = encoder.embedded
    encoder.seed = 1
    found.refresh()
    assert encoder.embedded == embedded
    np.testing.assert_array_equal(found.rows_QK, best(passages, 1, 0))
    retriever.refresh()  # as an evaluation does
    found.refresh()
    np.testing.assert_array_equal(found.rows_QK, best(passages, 1, 0))


def test_questions_mode_needs_vectors(passages: ListPassages) -> None:
    words = BM25Retriever(RetrieverConfig(type="bm25"), passages, None)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="needs a faiss retriever"):
        candidates(words, mode="questions")  # type: ignore[arg-type]
    assert candidates(words).rows_QK.shape == (3, 4)  # type: ignore[arg-type]


def test_golds_take_the_last_places() -> None:
    rows = np.array([[4, 3, 2, 1], [4, 3, 2, 1], [4, 3, -1, -1], [4, 3, 2, 1], [4, 3, 2, 1], [1, 9, 8, 7]])
    golds = [[9], [1], [9], [7, 8, 9, 5, 6], [], [7, 1, 2]]
    assert add_golds(rows, golds).tolist() == [
        [4, 3, 2, 9],
        [4, 3, 2, 1],
        [4, 3, 9, -1],
        [7, 8, 9, 5],
        [4, 3, 2, 1],
        [1, 9, 7, 2],
    ]
    assert rows[0].tolist() == [4, 3, 2, 1]


def test_gold_found_is_measured_before_any_is_added(retriever: DenseRetriever) -> None:
    found = candidates(retriever, golds=[[12], [59], []])
    assert found.refresh()["gold_found"] == 0.5
    assert 59 in found.rows_QK[1]


def states(step: int, folder: Path) -> tuple[TrainingArguments, TrainerState, TrainerControl]:
    return TrainingArguments(output_dir=str(folder)), TrainerState(global_step=step, max_steps=6), TrainerControl()


def test_callback_refreshes_every_n_steps_but_not_after_the_last(retriever: DenseRetriever, tmp_path: Path) -> None:
    recorded: list[tuple[int, str]] = []
    step = 0
    callback = RefreshCandidates(candidates(retriever), 2, lambda name, _: recorded.append((step, name)))
    for step in range(1, 7):
        callback.on_step_end(*states(step, tmp_path))
    assert [s for s, name in recorded if name == "refresh_seconds"] == [2, 4]
    callback.every = 0
    callback.on_step_end(*states(2, tmp_path))
    assert [s for s, name in recorded if name == "refresh_seconds"] == [2, 4]


def test_a_resumed_run_gets_its_candidates_back(
    retriever: DenseRetriever, encoder: WordEncoder, passages: ListPassages, tmp_path: Path
) -> None:
    callback = RefreshCandidates(candidates(retriever), 2, lambda *_: None)
    callback.on_train_begin(*states(0, tmp_path))
    _ = callback.candidates.rows_QK
    (tmp_path / "checkpoint-3").mkdir()
    callback.candidates.save(tmp_path / "checkpoint-3")
    encoder.seed = 1  # the weights moved on since the last refresh
    resumed = RefreshCandidates(candidates(retriever), 2, lambda *_: None)
    resumed.on_train_begin(*states(3, tmp_path))
    np.testing.assert_array_equal(resumed.candidates.rows_QK, best(passages, 0, 0))


def test_a_checkpoint_of_other_questions_is_not_taken(
    retriever: DenseRetriever, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    candidates(retriever).save(tmp_path / "checkpoint-3")
    other = Candidates(retriever, QUERIES[:2], 4, progress=False)
    RefreshCandidates(other, 2, lambda *_: None).on_train_begin(*states(3, tmp_path))
    assert "holds no candidates" in caplog.text
    assert other.rows_QK.shape == (2, 4)
