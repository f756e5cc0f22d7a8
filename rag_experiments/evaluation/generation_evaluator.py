"""The only evaluator of answers: it measures a reader behind a retriever, end to end.

A reader gets the passages that its retriever finds, never the gold ones. `evaluation.oracle=true` additionally measures
it with the gold passages (`oracle_…`), which is an upper bound for any retriever. The retrieval evaluator computes the
retrieval metrics from the same searches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from rag_experiments.config.schema import RunConfig
from rag_experiments.core import distributed
from rag_experiments.data.queries import retrieval_query
from rag_experiments.data.records import Passage, Question
from rag_experiments.evaluation import metrics as text_metrics
from rag_experiments.evaluation.results import EvaluationResult, Evaluator
from rag_experiments.evaluation.retrieval_evaluator import RetrievalEvaluator, measured_rankings, summarise
from rag_experiments.models.reader.prompts import TruncationCounts
from rag_experiments.retrieval.retriever import Retriever

log = logging.getLogger(__name__)

MAIN = ("exact_match", "f1", "oracle_exact_match", "oracle_f1")
"""Metrics of answers that have an interval."""


class Answerer(Protocol):
    """What the evaluator needs from any kind of reader."""

    def answer(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]], num_beams: int, progress: bool
    ) -> tuple[list[str | None], TruncationCounts]:
        """One answer per question from its passages (None if the question is too long), and counts of what was cut."""
        ...


class GenerationEvaluator(Evaluator):
    """Retrieves passages, lets the reader answer, and compares the answers with the references.

    Args:
        reader: writes the answers, with its current weights.
        retriever: searches the whole corpus, with its current index.
        config: the run's configuration. The reader gets `retriever.k` passages; `evaluation` selects further metrics.
        progress: show a bar over the answers.
    """

    def __init__(self, reader: Answerer, retriever: Retriever, config: RunConfig, progress: bool = False):
        self.reader = reader
        self.retriever = retriever
        self.config = config
        self.progress = progress
        self.retrieval = RetrievalEvaluator(
            retriever, config.evaluation, config.data.query_history, seed=0, given=config.retriever.k
        )

    @classmethod
    def for_run(cls, config: Any, data: Any, models: dict[str, Any], retriever: Retriever) -> GenerationEvaluator:
        """The evaluator of the run's reader behind its retriever."""
        return cls(models["reader"], retriever, config)

    @classmethod
    def metric_names(cls, config: Any) -> dict[str, list[str]]:
        """Ranking metrics need questions with gold passages, answer metrics need questions with references."""
        settings = config.evaluation
        compared = ["exact_match", "f1", "squad_exact_match", "squad_f1", "rouge_l"]
        answers = [*compared, "answer_in_passages", *(["bleu"] if settings.bleu else [])]
        oracle = [f"oracle_{name}" for name in compared] + (["oracle_bleu"] if settings.bleu else [])
        return {
            "positive_ids": measured_rankings(config) + (oracle if settings.oracle else []),
            "answers": answers,
            "": ["questions", "f1_to_passages", "precision_to_passages"],
        }

    def evaluate(self, questions: Sequence[Question]) -> EvaluationResult:
        """Metrics of retrieval, answers and time, and one row per question with its answer."""
        self.retrieval.timed = self.timed
        retrieved = self.retrieval.evaluate(questions)
        rows = retrieved.rows
        contexts = self._passages([row["retrieved_ids"][: self.config.retriever.k] for row in rows])
        started = time.perf_counter()
        answers, cut = self._answer(questions, contexts)
        seconds = time.perf_counter() - started
        for row, answer, passages in zip(rows, answers, contexts, strict=True):
            row["answer"] = answer
            row["given_ids"] = [passage.id for passage in passages]
            if answer is not None:  # left out: no figure of its answer counts
                row["metrics"] |= answer_metrics(answer, row["references"], [passage.full_text for passage in passages])
        if self.config.evaluation.oracle:
            self._add_oracle(questions, rows)
        settings = self.config.evaluation
        summary = retrieved.metrics | summarise(rows, MAIN, settings.bootstrap, self.retrieval.seed)
        summary |= {"seconds/generation": seconds, **cut.as_metrics()}
        if cut.loud:
            log.warning("%s", cut.sentence())
        if settings.bleu:
            summary["bleu"] = _corpus_bleu(rows, "answer")
            if settings.oracle:
                summary["oracle_bleu"] = _corpus_bleu(rows, "oracle_answer")
        if self.timed:
            summary |= self._latency(questions[: settings.latency])
        return EvaluationResult(summary, rows)

    def _answer(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> tuple[list[str | None], TruncationCounts]:
        """Answer the questions; with several processes, each answers a share of them."""
        own_questions, own_passages = distributed.own_share(questions), distributed.own_share(passages)
        own = self.reader.answer(own_questions, own_passages, self.config.evaluation.num_beams, self.progress)
        shares = distributed.gathered(own)
        return distributed.in_order([answers for answers, _ in shares]), sum(
            (cut for _, cut in shares), TruncationCounts()
        )

    def _passages(self, ids_QK: Sequence[Sequence[str]]) -> list[list[Passage]]:
        store = self.retriever.passages
        return [[store[int(row)] for row in store.rows(ids)] if ids else [] for ids in ids_QK]

    def _add_oracle(self, questions: Sequence[Question], rows: Sequence[dict[str, Any]]) -> None:
        """Add `oracle_answer` and `oracle_…` metrics to the rows of questions with known gold passages."""
        labelled = [index for index, question in enumerate(questions) if question.positive_ids]
        gold = self._passages([questions[index].distinct_golds for index in labelled])
        answers, _ = self._answer([questions[index] for index in labelled], gold)
        for index, answer in zip(labelled, answers, strict=True):
            rows[index]["oracle_answer"] = answer
            if answer is None:
                continue
            measured = answer_metrics(answer, rows[index]["references"], None)
            rows[index]["metrics"] |= {f"oracle_{name}": value for name, value in measured.items()}

    def _latency(self, questions: Sequence[Question]) -> dict[str, float]:
        """Seconds per question when asked one by one: median and 95th percentile, for retrieval and for generation."""
        k = min(self.config.retriever.k, len(self.retriever.passages))
        retrieving, generating = [], []
        for question in questions:
            started = time.perf_counter()
            query = retrieval_query(question, self.config.data.query_history)
            rows = self.retriever.search([query], k).rows_QK[0]
            passages = [self.retriever.passages[int(row)] for row in rows if row >= 0]
            between = time.perf_counter()
            self.reader.answer([question], [passages], self.config.evaluation.num_beams, False)
            retrieving.append(between - started)
            generating.append(time.perf_counter() - between)
        measured = {"retrieval": retrieving, "generation": generating}
        return {
            f"seconds/{what}_p{percent}": float(np.percentile(values, percent))
            for what, values in measured.items()
            if values
            for percent in (50, 95)
        }


def answer_metrics(answer: str, references: Sequence[str], passages: Sequence[str] | None) -> dict[str, float]:
    """Metrics of one answer, compared with the references (if there are any) and with the given passages."""
    measured: dict[str, float] = {}
    if references:
        measured["exact_match"] = text_metrics.exact_match(answer, references)
        measured["f1"] = text_metrics.f1(answer, references)
        measured["squad_exact_match"] = text_metrics.squad_exact_match(answer, references)
        measured["squad_f1"] = text_metrics.squad_f1(answer, references)
        measured["rouge_l"] = text_metrics.rouge_l(answer, references)
    if passages is None:
        return measured
    if references:
        measured["answer_in_passages"] = text_metrics.answer_in_passages(references, passages)
    measured["f1_to_passages"] = text_metrics.f1_to_passages(answer, passages)
    measured["precision_to_passages"] = text_metrics.precision_to_passages(answer, passages)
    return measured


def _corpus_bleu(rows: Sequence[dict[str, Any]], key: str) -> float:
    judged = [row for row in rows if row["references"] and row.get(key) is not None]
    return text_metrics.bleu([row[key] for row in judged], [row["references"] for row in judged])
