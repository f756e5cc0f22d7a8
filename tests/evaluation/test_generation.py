"""The generation evaluator: end to end with the retriever's passages, every figure from the rows it writes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rag_experiments.data.prompts import TruncationCounts
from rag_experiments.data.schema import Passage, Question, Turn
from rag_experiments.evaluation.generation import GenerationEvaluator, answer_metrics
from rag_experiments.models.reader import Reader
from rag_experiments.schema import EvaluationConfig, ReaderConfig
from tests.examples import PASSAGES, ListStore, WordRetriever

QUESTIONS = [
    Question("q1", "Where does a cat sleep in the house?", answers=("in the house", "house"), positive_ids=("p1",)),
    Question("q2", "Which dog runs?", answers=("the brown dog",), positive_ids=("p3",)),
    Question("q3", "Where to?", history=(Turn("user", "A dog runs."),)),
]


class Parrot:
    """Answers with the last words of the first passage it is given, and remembers what it was given."""

    def __init__(self):
        self.asked = []

    def answer(self, questions, passages, num_beams, progress):
        self.asked.append([[passage.id for passage in given] for given in passages])
        counts = TruncationCounts(prompts=len(questions), prompts_truncated=1, passages_dropped=2)
        return [" ".join(given[0].text.rstrip(".").split()[-3:]) if given else "" for given in passages], counts


def run_config(k: int = 2, **evaluation):
    return SimpleNamespace(
        retriever=SimpleNamespace(k=k),
        evaluation=EvaluationConfig(bootstrap=200, **evaluation),
        data=SimpleNamespace(query_history="user"),
    )


def evaluator(k: int = 2, **evaluation) -> GenerationEvaluator:
    return GenerationEvaluator(Parrot(), WordRetriever(ListStore(PASSAGES)), run_config(k, **evaluation))


def test_the_reader_gets_what_the_retriever_finds():
    made = evaluator()
    rows = made.evaluate(QUESTIONS).rows
    assert made.reader.asked == [[["p1", "p2"], ["p2", "p1"], ["p2", "p1"]]]
    assert [row["given_ids"] for row in rows] == made.reader.asked[0]
    assert [row["answer"] for row in rows] == ["in the house", "to the river", "to the river"]
    assert rows[1]["gold_ids"] == ["p3"], "not given, though it is gold"
    assert rows[2]["query"].split() == ["A", "dog", "runs.", "Where", "to?"]


def test_the_reader_gets_all_k_passages_however_deep_retrieval_is_measured():
    corpus = [Passage(id=f"p{row}", text=f"cat {row}") for row in range(40)]
    config = run_config(k=30, depth=5, cutoffs=[1])
    made = GenerationEvaluator(Parrot(), WordRetriever(ListStore(corpus)), config)
    (row,) = made.evaluate([Question("q", "cat?", answers=("cat",), positive_ids=("p25",))]).rows
    assert len(row["given_ids"]) == 30
    assert "p25" in row["given_ids"]


def test_figures_are_means_of_the_rows():
    result = evaluator().evaluate(QUESTIONS)
    first, second, third = (row["metrics"] for row in result.rows)
    assert (first["exact_match"], first["f1"], first["rouge_l"], first["answer_in_passages"]) == (1, 1, 1, 1)
    assert second["exact_match"] == 0
    assert second["answer_in_passages"] == 0
    assert "exact_match" not in third, "no references, so nothing to compare with"
    assert first["precision_to_passages"] == second["precision_to_passages"] == 1
    metrics = result.metrics
    assert metrics["exact_match"] == pytest.approx(0.5)
    for name in ("f1", "rouge_l", "f1_to_passages", "recall@1", "mrr@10"):
        values = [row["metrics"][name] for row in result.rows if name in row["metrics"]]
        assert metrics[name] == pytest.approx(np.mean(values)), name
    assert metrics["exact_match_ci_low"] <= metrics["exact_match"] <= metrics["exact_match_ci_high"]
    assert (metrics["truncation/prompts_truncated"], metrics["truncation/passages_dropped"]) == (1, 2)
    assert metrics["seconds/generation"] >= 0
    assert not any(name.startswith("oracle") or name == "bleu" for name in metrics)


def test_gold_passages_only_where_asked():
    made = evaluator(oracle=True, bleu=True)
    result = made.evaluate(QUESTIONS)
    assert made.reader.asked[1] == [["p1"], ["p3"]], "the third question has no gold passage"
    assert result.rows[1]["oracle_answer"] == "eats a star"
    assert result.metrics["oracle_exact_match"] == pytest.approx(0.5)
    assert "oracle_answer" not in result.rows[2]
    assert 0 <= result.metrics["bleu"] <= 1
    assert {"oracle_bleu", "oracle_f1_ci_low", "oracle_exact_match_ci_high"} <= set(result.metrics)


def test_latency_is_measured_when_it_is_final():
    made = evaluator(latency=2)
    made.evaluate(QUESTIONS)
    assert len(made.reader.asked) == 1
    made.timed = True
    metrics = made.evaluate(QUESTIONS).metrics
    assert [len(asked) for asked in made.reader.asked] == [3, 3, 1, 1]
    for what in ("retrieval", "generation"):
        assert 0 <= metrics[f"seconds/{what}_p50"] <= metrics[f"seconds/{what}_p95"]
    made = evaluator(latency=0)
    made.timed = True
    assert "seconds/generation_p50" not in made.evaluate(QUESTIONS).metrics


def test_more_passages_than_the_corpus_has():
    result = evaluator(k=10).evaluate(QUESTIONS)
    assert [len(row["given_ids"]) for row in result.rows] == [3, 3, 3]


def test_an_answer_against_its_references():
    measured = answer_metrics("The house!", ["house", "in the house"], ["A cat sleeps in the house."])
    assert measured["exact_match"] == 1
    assert measured["answer_in_passages"] == 1
    assert measured["f1_to_passages"] == pytest.approx(2 * 1 / (1 + 4))  # `a` and `the` do not count
    assert answer_metrics("x", [], None) == {}


def test_with_a_real_reader(tiny_llama):
    config = ReaderConfig(path=str(tiny_llama), precision="fp32", max_new_tokens=4, max_input_length=250)
    reader = Reader.load(config, device="cpu")
    made = GenerationEvaluator(reader, WordRetriever(ListStore(PASSAGES)), run_config(k=3))
    result = made.evaluate(QUESTIONS)
    assert result.metrics["truncation/prompts"] == 3
    assert result.metrics["truncation/passages_dropped"] > 0, "250 bytes do not hold three passages"
    assert result.rows == made.evaluate(QUESTIONS).rows, "greedy: the same again"
