"""What BM25 says of questions that it cannot answer."""

from __future__ import annotations

import logging

import pytest

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.retrieval import bm25
from rag_experiments.retrieval.bm25 import BM25Retriever
from tests.retrieval.fakes import ListPassages


@pytest.mark.parametrize(
    ("unknown", "known", "warned"),
    [
        (bm25.FEWEST_QUESTIONS, 0, True),
        (bm25.FEWEST_QUESTIONS - 1, 0, False),  # too few to say anything
        (3, 2, True),
        (3, 3, False),  # half of them found something
        (0, bm25.FEWEST_QUESTIONS, False),
    ],
)
def test_most_questions_without_a_known_word_are_said_once(
    passages: ListPassages, caplog: pytest.LogCaptureFixture, unknown: int, known: int, warned: bool
) -> None:
    retriever = BM25Retriever(RetrieverConfig(type="bm25"), passages, None)  # type: ignore[arg-type]
    questions = ["zzz unheard"] * unknown + ["a river"] * known
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = retriever.search(questions, 2)
    assert (found.rows_QK[unknown:] >= 0).all()
    assert (found.rows_QK[:unknown] == -1).all()
    sentences = [record.getMessage() for record in caplog.records if "share no word" in record.getMessage()]
    assert len(sentences) == (1 if warned else 0)
    assert all(f"{unknown} of {unknown + known}" in sentence for sentence in sentences)
