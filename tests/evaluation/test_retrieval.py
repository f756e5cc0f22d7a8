"""The retrieval evaluator over a retriever that returns what the test says."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from rag_experiments.config.schema import EvaluationConfig
from rag_experiments.data.records import Question, Turn
from rag_experiments.evaluation import retrieval_evaluator as module
from rag_experiments.evaluation.bootstrap import intervals
from rag_experiments.evaluation.ranking import ranking_metrics
from rag_experiments.evaluation.retrieval_evaluator import RetrievalEvaluator, summarise
from rag_experiments.retrieval.retriever import SearchResult, empty_result
from tests.evaluation.clock import Clock


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


def test_a_list_is_as_deep_as_a_reader_reads() -> None:
    retriever = Scripted(1000, FOUND)
    judge = RetrievalEvaluator(retriever, EvaluationConfig(), "user", seed=0, given=33)
    judge.evaluate(QUESTIONS)
    assert retriever.asked[0][1] == judge.depth == 33


def test_intervals_are_over_clusters_of_questions_that_share_a_gold_passage() -> None:
    """Four questions a passage, found or missed together: four times the questions are no more evidence."""
    questions = [Question(f"q{i}", f"question {i}", positive_ids=(f"p{i // 4}",)) for i in range(80)]
    found = {f"question {i}": [i // 4 if i // 4 % 3 else 50, 60] for i in range(80)}
    found |= {f"question {i}": [60, i // 4] for i in range(0, 80, 7)}
    judge = RetrievalEvaluator(Scripted(70, found), EvaluationConfig(bootstrap=500), "user", seed=3)
    metrics = judge.evaluate(questions).metrics
    rows = judge.evaluate(questions).rows
    for name in ("recall@1", "recall@4"):
        values = {name: [row["metrics"][name] for row in rows]}
        expected = intervals(values, np.arange(80) // 4, 500, seed=3)[name]
        assert (metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"]) == (expected.low, expected.high)
        one_by_one = intervals(values, np.arange(80), 500, seed=3)[name]
        assert expected.high - expected.low > 1.3 * (one_by_one.high - one_by_one.low)
    assert {name for name in metrics if "_ci_" in name} == {
        f"{name}_ci_{end}" for name in ("recall@1", "recall@4") for end in ("low", "high")
    }


def test_a_figure_is_the_mean_over_the_questions_that_have_it_and_its_interval_leaves_the_others_out() -> None:
    rows = [
        {"gold_ids": [str(i)], "metrics": {"f1": float(i)} | ({"recall@1": i / 4} if i % 2 else {})} for i in range(4)
    ]
    figures = summarise(rows, ["recall@1", "gone"], 300, seed=1)
    assert figures["f1"] == 1.5
    assert figures["recall@1"] == 0.5
    expected = intervals({"m": [np.nan, 0.25, np.nan, 0.75]}, np.arange(4), 300, seed=1)["m"]
    assert (figures["recall@1_ci_low"], figures["recall@1_ci_high"]) == (expected.low, expected.high)
    assert set(figures) == {"f1", "recall@1", "recall@1_ci_low", "recall@1_ci_high"}


def test_seconds_are_those_of_the_search_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, retriever = evaluator()
    clock = Clock(monkeypatch)
    search = retriever.search
    retriever.search = lambda queries, k: (clock.wait(7.0), search(queries, k))[1]
    monkeypatch.setattr(module, "ranking_metrics", lambda *a: (clock.wait(100.0), ranking_metrics(*a))[1])
    assert judge.evaluate(QUESTIONS).metrics["seconds/retrieval"] == 7.0


def test_bootstrap_zero_leaves_intervals_out() -> None:
    judge, _ = evaluator(bootstrap=0)
    assert not [name for name in judge.evaluate(QUESTIONS).metrics if "_ci_" in name]


@pytest.mark.parametrize(
    ("history", "query"), [("user", "who\nand he?"), ("all", "who\nhe\nand he?"), ("none", "and he?")]
)
def test_history_stands_before_the_question_as_asked_and_is_told(history: str, query: str) -> None:
    retriever = Scripted(50, {query: [1]})
    judge = RetrievalEvaluator(retriever, EvaluationConfig(), history, seed=0)
    question = Question("q", "and he?", positive_ids=("p1",), history=(Turn("user", "who"), Turn("assistant", "he")))
    result = judge.evaluate([question])
    assert result.metrics["recall@1"] == 1
    row = result.rows[0]
    assert row.get("query") == (query if history != "none" else None)
    assert row["question"] == "and he?"
    assert list(row["metrics"])[:3] == ["recall@1", "recall@4", "recall@20"]


def test_graded_gold_passages_are_the_rows_gold() -> None:
    judge, _ = evaluator()
    question = Question("q", "second", positive_ids=("p7",), relevance={"p1": 2, "p7": 0, "p9": 1})
    (row,) = judge.evaluate([question]).rows
    assert row["gold_ids"] == ["p1", "p9"]
    assert row["metrics"]["recall@4"] == 0.5


def test_no_questions() -> None:
    judge, retriever = evaluator()
    result = judge.evaluate([])
    assert result.rows == []
    assert retriever.asked == [], "an index is not asked for nothing"
    assert result.metrics.keys() == {"questions", "seconds/retrieval", "truncation/queries_cut"}
    assert result.metrics["questions"] == 0
