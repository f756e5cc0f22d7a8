"""The generation evaluator: end to end with the retriever's passages, every figure from the rows it writes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rag_experiments.config.schema import EvaluationConfig, ReaderConfig
from rag_experiments.core import distributed
from rag_experiments.data.records import Passage, Question, Turn
from rag_experiments.evaluation.bootstrap import gold_clusters, intervals
from rag_experiments.evaluation.generation_evaluator import GenerationEvaluator, answer_metrics
from rag_experiments.evaluation.metrics import bleu
from rag_experiments.evaluation.retrieval_evaluator import RetrievalEvaluator
from rag_experiments.models.reader.prompts import TruncationCounts
from rag_experiments.models.reader.reader import Reader
from tests.evaluation.clock import Clock
from tests.examples import PASSAGES, ListStore, WordRetriever

QUESTIONS = [
    Question("q1", "Where does a cat sleep in the house?", answers=("in the house", "house"), positive_ids=("p1",)),
    Question("q2", "Which dog runs?", answers=("the brown dog",), positive_ids=("p3",)),
    Question("q3", "Where to?", history=(Turn("user", "A dog runs."),)),
]


class Parrot:
    """Answers with the last words of the first passage it is given, and remembers what it was given."""

    def __init__(self, words: int = 3):
        self.words = words
        self.asked = []

    def answer(self, questions, passages, num_beams, progress):
        self.how = (num_beams, progress)
        self.questions = [question.id for question in questions]
        self.asked.append([[passage.id for passage in given] for given in passages])
        counts = TruncationCounts(prompts=len(questions), prompts_truncated=1, passages_dropped=2)
        return [
            " ".join(given[0].text.rstrip(".").split()[-self.words :]) if given else "" for given in passages
        ], counts


def run_config(k: int = 2, **evaluation):
    return SimpleNamespace(
        retriever=SimpleNamespace(k=k, reranker=None),
        model=SimpleNamespace(kind="decoder"),
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


def test_oracle_answers_stand_at_their_own_questions():
    made = evaluator(oracle=True)
    for order in ([2, 0, 1], [0, 2, 1], [1, 0, 2]):
        rows = {row["id"]: row for row in made.evaluate([QUESTIONS[i] for i in order]).rows}
        assert made.reader.questions == [f"q{i + 1}" for i in order if i != 2]
        assert {key: row.get("oracle_answer") for key, row in rows.items()} == {
            "q1": "in the house", "q2": "eats a star", "q3": None,
        }  # fmt: skip
        assert rows["q1"]["metrics"]["oracle_exact_match"] == 1
        assert rows["q2"]["metrics"]["oracle_exact_match"] == 0
        assert not any(name.startswith("oracle") for name in rows["q3"]["metrics"])
        assert {name for name in rows["q1"]["metrics"] if name.startswith("oracle")} == {
            "oracle_exact_match", "oracle_f1", "oracle_rouge_l", "oracle_squad_exact_match", "oracle_squad_f1",
        }  # fmt: skip


def test_a_passages_title_is_part_of_it():
    asked = [Question("q", "cat sleeps house", answers=("Cats",), positive_ids=("p1",))]
    (row,) = evaluator(k=1).evaluate(asked).rows
    assert row["metrics"]["answer_in_passages"] == 1


def test_bleu_is_over_the_answers_that_have_references():
    made = evaluator(bleu=True, oracle=True)
    made.reader.words = 6
    answered = ("A cat sleeps in the house today.", "the star that a cat eats")
    wanted = [replace(q, answers=(text,)) for q, text in zip(QUESTIONS, answered, strict=False)]
    no_gold = Question("q4", "Where is a fish?", answers=("A fish eats a star",))
    result = made.evaluate([*wanted, QUESTIONS[2], no_gold])
    first, second, third, fourth = result.rows
    assert not third["references"]
    for key, figure in (("answer", "bleu"), ("oracle_answer", "oracle_bleu")):
        judged = [first, second, fourth] if key == "answer" else [first, second]
        answers = [row[key] for row in judged]
        assert 0 < result.metrics[figure] == bleu(answers, [row["references"] for row in judged])
    assert result.metrics["bleu"] != result.metrics["oracle_bleu"]
    assert "oracle_bleu" not in evaluator(bleu=True).evaluate(QUESTIONS).metrics
    assert "bleu" not in evaluator(oracle=True).evaluate(QUESTIONS).metrics


def test_the_reader_is_asked_with_the_runs_beams_and_bar():
    made = GenerationEvaluator(Parrot(), WordRetriever(ListStore(PASSAGES)), run_config(num_beams=3), progress=True)
    made.evaluate(QUESTIONS)
    assert made.reader.how == (3, True)
    made = evaluator()
    made.timed = True
    made.evaluate(QUESTIONS)
    assert made.reader.how == (1, False), "no bar over a single question"


def test_processes_answer_a_share_each_and_the_answers_come_back_in_order(monkeypatch):
    other = (["from the other"], TruncationCounts(prompts=1, passages_dropped=40))
    monkeypatch.setattr(distributed, "own_share", lambda items: items[0::2])
    monkeypatch.setattr(distributed, "gathered", lambda own: [own, other])
    result = evaluator().evaluate(QUESTIONS)
    assert [row["answer"] for row in result.rows] == ["in the house", "from the other", "to the river"]
    assert result.metrics["truncation/passages_dropped"] == 42
    assert result.metrics["truncation/prompts"] == 3


def test_intervals_of_answers_are_over_clusters_by_the_runs_resamples():
    result = evaluator(oracle=True).evaluate(QUESTIONS)
    clusters = gold_clusters([row["gold_ids"] for row in result.rows])
    for name in ("exact_match", "f1", "oracle_exact_match", "oracle_f1", "recall@1", "recall@4"):
        values = [row["metrics"].get(name, np.nan) for row in result.rows]
        expected = intervals({name: values}, clusters, 200, seed=0)[name]
        assert result.metrics[f"{name}_ci_low"] == expected.low, name
        assert result.metrics[f"{name}_ci_high"] == expected.high, name
    assert result.metrics["questions"] == 3


def test_figures_of_retrieval_and_their_intervals_are_those_of_the_retrieval_evaluator():
    corpus = [Passage(id=f"p{i}", text=f"word{i} right") for i in range(30)]
    retriever, config = WordRetriever(ListStore(corpus)), run_config(k=2)
    questions = [
        Question(f"q{i}", f"word{i + (i % 3 == 0)}", answers=(f"word{i} right",), positive_ids=(f"p{i}",))
        for i in range(29)
    ]
    result = GenerationEvaluator(Parrot(), retriever, config).evaluate(questions)
    alone = RetrievalEvaluator(retriever, config.evaluation, "user", seed=0, given=2).evaluate(questions).metrics
    assert {name: result.metrics[name] for name in alone if "seconds" not in name} == {
        name: value for name, value in alone.items() if "seconds" not in name
    }
    values = [row["metrics"]["f1"] for row in result.rows]
    for seed, same in ((0, True), (1, False)):
        found = intervals({"f1": values}, np.arange(29), 200, seed=seed)["f1"]
        assert ((result.metrics["f1_ci_low"], result.metrics["f1_ci_high"]) == (found.low, found.high)) == same


def timed_evaluator(monkeypatch, **settings):
    """Search takes one second more at every call (1, 2, …), an answer ten more (10, 20, …)."""
    made = evaluator(**settings)
    clock = Clock(monkeypatch)
    searches, answers = itertools.count(1), itertools.count(1)
    search, answer = made.retriever.search, made.reader.answer
    monkeypatch.setattr(made.retriever, "search", lambda *a: (clock.wait(next(searches)), search(*a))[1])
    monkeypatch.setattr(made.reader, "answer", lambda *a: (clock.wait(10 * next(answers)), answer(*a))[1])
    return made


def test_seconds_of_generation_are_those_of_the_answers_alone(monkeypatch):
    made = timed_evaluator(monkeypatch, oracle=True)
    metrics = made.evaluate(QUESTIONS).metrics
    assert metrics["seconds/generation"] == 10, "neither the search nor the answers with gold passages"
    assert metrics["seconds/retrieval"] == 1


def test_latency_is_parted_into_retrieval_and_generation_and_is_of_the_first_questions(monkeypatch):
    made = timed_evaluator(monkeypatch, latency=3)
    made.timed = True
    metrics = made.evaluate([*QUESTIONS, *QUESTIONS]).metrics
    assert [len(asked) for asked in made.reader.asked] == [6, 1, 1, 1]
    # alone, the three questions take 2, 3 and 4 seconds to search, 20, 30 and 40 to answer
    assert metrics["seconds/retrieval_p50"] == 3
    assert metrics["seconds/generation_p50"] == 30
    assert metrics["seconds/retrieval_p95"] == pytest.approx(3.9)
    assert metrics["seconds/generation_p95"] == pytest.approx(39)


def test_latency_asks_as_the_evaluation_does(monkeypatch):
    queries = []
    made = evaluator(k=2, latency=8)
    made.timed = True
    search = made.retriever.search

    def found(asked, k):
        queries.append((asked, k))
        result = search(asked, k)
        result.rows_QK[:, -1] = -1  # as an index pads what it did not find
        return result

    monkeypatch.setattr(made.retriever, "search", found)
    made.evaluate(QUESTIONS)
    assert queries[1:] == [([QUESTIONS[0].question], 2), ([QUESTIONS[1].question], 2), (["A dog runs.\nWhere to?"], 2)]
    assert [len(asked[0]) for asked in made.reader.asked[1:]] == [1, 1, 1]
    monkeypatch.setattr(made.retriever, "search", search)
    made = evaluator(k=9, latency=1)
    made.timed = True
    made.evaluate(QUESTIONS)
    assert len(made.reader.asked[-1][0]) == 3, "no more than the corpus has"


def test_no_questions():
    made = evaluator(oracle=True, bleu=True)
    made.timed = True
    result = made.evaluate([])
    assert result.rows == []
    assert result.metrics["bleu"] == 0
    assert "seconds/generation_p50" not in result.metrics


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


def test_a_question_that_cannot_be_read_with_its_gold_passages_has_no_oracle_figures():
    evaluator = SimpleNamespace(
        _passages=lambda ids: [[] for _ in ids], _answer=lambda questions, passages: ([None, "red"], None)
    )
    questions = [Question(id=name, question="?", positive_ids=("p",), answers=("red",)) for name in "ab"]
    rows = [{"references": ["red"], "metrics": {}} for _ in questions]
    GenerationEvaluator._add_oracle(evaluator, questions, rows)
    assert rows[0] == {"references": ["red"], "metrics": {}, "oracle_answer": None}
    assert rows[1]["metrics"]["oracle_exact_match"] == 1
