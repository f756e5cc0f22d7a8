"""The retrieval evaluator over a retriever that returns what the test says."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from rag_experiments.data.schema import Question, Turn
from rag_experiments.evaluation.retrieval import RetrievalEvaluator
from rag_experiments.retrieval.base import SearchResult, empty_result
from rag_experiments.schema import EvaluationConfig


class Corpus:
    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def ids(self, rows: Sequence[int]) -> list[str]:
        return [f"p{int(row)}" for row in rows]


class Scripted:
    """`found[query]` are the rows; where fewer than k, -1 as the real ones give."""

    def __init__(self, size: int, found: dict[str, list[int]]):
        self.passages = Corpus(size)
        self.found = found
        self.asked: list[tuple[list[str], int]] = []

    def search(self, queries: list[str], k: int) -> SearchResult:
        self.asked.append((queries, k))
        result = empty_result(len(queries), k)
        for row, query in enumerate(queries):
            rows = self.found[query][:k]
            result.rows_QK[row, : len(rows)] = rows
            result.scores_QK[row, : len(rows)] = -np.arange(len(rows))
        return result


QUESTIONS = [
    Question("q0", "first", answers=("yes",), positive_ids=("p0",)),
    Question("q1", "second", positive_ids=("p1", "p2")),
    Question("q2", "third", positive_ids=("p1",)),
    Question("q3", "nothing known"),
]
FOUND = {"first": [0, 5], "second": [7, 1, 2], "third": [8, 9, 7, 6, 5, 1], "nothing known": [3]}


def evaluator(size: int = 50, **settings: object) -> tuple[RetrievalEvaluator, Scripted]:
    retriever = Scripted(size, FOUND)
    return RetrievalEvaluator(retriever, EvaluationConfig(**settings), "user", seed=0), retriever


def test_figures_and_rows() -> None:
    judge, _ = evaluator()
    result = judge.evaluate(QUESTIONS)
    assert result.metrics["recall@1"] == pytest.approx(1 / 3)  # q3 has no gold: three questions count
    assert result.metrics["recall@4"] == pytest.approx(2 / 3)
    assert result.metrics["recall@20"] == pytest.approx(1)
    assert result.metrics["hit@4"] == pytest.approx(2 / 3)
    assert result.metrics["mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 6) / 3)
    assert result.metrics["questions"] == 4
    assert result.metrics["seconds/retrieval"] > 0
    assert 0 <= result.metrics["recall@1_ci_low"] <= result.metrics["recall@1"] <= result.metrics["recall@1_ci_high"]
    assert "recall@4_ci_low" in result.metrics
    row = result.rows[1]
    assert (row["id"], row["retrieved_ids"], row["gold_ids"]) == ("q1", ["p7", "p1", "p2"], ["p1", "p2"])
    assert row["retrieved_scores"] == [0.0, -1.0, -2.0]
    assert result.rows[0]["references"] == ["yes"]
    assert result.rows[0]["answer"] is None
    assert result.rows[3]["metrics"] == {}
    json.dumps(result.rows, allow_nan=False)  # what is missing (-inf scores) never reaches the file


def test_same_questions_same_figures() -> None:
    first, second = (evaluator()[0].evaluate(QUESTIONS).metrics for _ in range(2))
    del first["seconds/retrieval"], second["seconds/retrieval"]
    assert first == second


def test_depth_follows_the_cutoffs_and_ends_at_the_corpus() -> None:
    for size, settings, wanted in [
        (1000, {}, 20),
        (1000, {"cutoffs": [100]}, 100),
        (1000, {"depth": 1, "cutoffs": [1]}, 10),  # mrr@10 needs ten
        (6, {"cutoffs": [100]}, 6),
    ]:
        judge, retriever = evaluator(size, **settings)
        metrics = judge.evaluate(QUESTIONS).metrics
        assert retriever.asked[0][1] == wanted
        assert {"recall@1", "recall@4", "mrr@10"} <= set(metrics)


def test_bootstrap_zero_leaves_intervals_out() -> None:
    judge, _ = evaluator(bootstrap=0)
    assert not [name for name in judge.evaluate(QUESTIONS).metrics if "_ci_" in name]


def test_history_stands_before_the_question_and_is_told() -> None:
    retriever = Scripted(50, {"who\nand he?": [1]})
    judge = RetrievalEvaluator(retriever, EvaluationConfig(), "user", seed=0)
    question = Question("q", "and he?", positive_ids=("p1",), history=(Turn("user", "who"), Turn("assistant", "he")))
    result = judge.evaluate([question])
    assert result.metrics["recall@1"] == 1
    assert result.rows[0]["query"] == "who\nand he?"


def test_no_questions() -> None:
    judge, _ = evaluator()
    result = judge.evaluate([])
    assert result.rows == []
    assert result.metrics["questions"] == 0
