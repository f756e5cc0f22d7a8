"""The only evaluator of retrieval; used before, during and after training, and by `evaluate`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rag_experiments.config.kinds import MODEL_KINDS
from rag_experiments.config.schema import EvaluationConfig
from rag_experiments.data.queries import retrieval_query
from rag_experiments.data.records import Question
from rag_experiments.evaluation.bootstrap import gold_clusters, intervals
from rag_experiments.evaluation.ranking import gold_grades, one_of_each, ranking_metrics
from rag_experiments.evaluation.results import EvaluationResult, Evaluator
from rag_experiments.retrieval.reranking import Reranked, RerankingRetriever
from rag_experiments.retrieval.retriever import Retriever, SearchResult, empty_result

log = logging.getLogger(__name__)

CONTRACT_CUTOFFS = (1, 4)
"""Always measured, because other tools and `metric_for_best_model` rely on these names."""
MAIN_METRICS = ("recall@1", "recall@4")
"""The metrics with `…_ci_low` and `…_ci_high`."""
FIRST_STAGE = "first_stage"
"""Metrics of the list before it was reranked begin so."""
_MRR_DEPTH = 10
LOUD = 0.02
"""If more than this share of the queries is cut, a warning is printed."""


@runtime_checkable
class CutsQueries(Protocol):
    """An encoder that can count the queries that are too long for it."""

    def queries_cut(self, texts: Sequence[str]) -> int:
        """The number of `texts` that would be cut."""
        ...


class RetrievalEvaluator(Evaluator):
    """Searches the whole corpus for every question and measures the ranked lists.

    Args:
        retriever: used with its current index. After a change of its encoder's weights the caller must refresh it.
        config: `depth` passages are kept per question, or more if a cutoff or `mrr@10` needs them, but never more than
            the corpus has. If k is larger than the corpus, `recall@k` is the recall of the whole corpus.
        query_history: which earlier turns are put before a question (`data.query_history`).
        seed: seed of the bootstrap.
        given: number of passages that a reader gets from each list; the lists are at least this long.
    """

    def __init__(self, retriever: Retriever, config: EvaluationConfig, query_history: str, seed: int, given: int = 0):
        self.retriever = retriever
        self.config = config
        self.query_history = query_history
        self.seed = seed
        self.given = given
        self._warned = False
        self.cutoffs = {*CONTRACT_CUTOFFS, *config.cutoffs}

    @classmethod
    def for_run(cls, config: Any, data: Any, models: dict[str, Any], retriever: Retriever) -> RetrievalEvaluator:
        """The evaluator of the run's retriever, which uses the encoder that is trained."""
        return cls(retriever, config.evaluation, config.data.query_history, seed=0)

    @classmethod
    def metric_names(cls, config: Any) -> dict[str, list[str]]:
        """Ranking metrics at the cutoffs; they need questions with gold passages."""
        return {"positive_ids": measured_rankings(config), "": ["questions"]}

    @property
    def depth(self) -> int:
        """Number of passages retrieved per question."""
        return min(max(self.config.depth, _MRR_DEPTH, self.given, *self.cutoffs), len(self.retriever.passages))

    def evaluate(self, questions: Sequence[Question]) -> EvaluationResult:
        """Retrieval metrics, their intervals, and `seconds/retrieval`; one row per question.

        Behind a reranker the same for the list before it, as `first_stage/…`, from the same search.
        """
        queries = [retrieval_query(question, self.query_history) for question in questions]
        started = time.perf_counter()
        result, both = self._search(queries)
        seconds = time.perf_counter() - started
        retrieved, scores = self._lists(result)
        grades = [gold_grades(question) for question in questions]
        per_question = self._ranking(questions, grades, retrieved)
        rows = [
            retrieval_row(question, query, ids, values, gold, metrics)
            for question, query, ids, values, gold, metrics in zip(
                questions, queries, retrieved, scores, grades, per_question, strict=True
            )
        ]
        if both is not None:
            first, _ = self._lists(both.first)
            for row, ids, values in zip(rows, first, self._ranking(questions, grades, first), strict=True):
                row["first_stage_ids"] = ids
                row["metrics"] |= {f"{FIRST_STAGE}/{name}": value for name, value in values.items()}
        metrics = summarise(rows, MAIN_METRICS, self.config.bootstrap, self.seed)
        metrics |= {"questions": float(len(rows)), "seconds/retrieval": seconds}
        if both is not None:
            metrics |= {"seconds/rerank": both.seconds, "pairs_per_second": both.pairs / max(both.seconds, 1e-9)}
            metrics |= self._rerank_latency(queries[: self.config.latency]) if self.timed else {}
        return EvaluationResult({**metrics, "truncation/queries_cut": float(self._queries_cut(queries))}, rows)

    def _queries_cut(self, queries: Sequence[str]) -> int:
        """The number of queries that the retriever's encoder cuts: their oldest turns, or the end of the question."""
        encoder = getattr(self.retriever, "encoder_behind", None)
        if not isinstance(encoder, CutsQueries) or not queries:
            return 0
        cut = encoder.queries_cut(queries)
        if cut > LOUD * len(queries) and not self._warned:
            self._warned = True
            log.warning(
                "%d of %d queries are longer than model.max_query_length: the oldest turns are left out, then the "
                "end of the question",
                cut,
                len(queries),
            )
        return cut

    def _search(self, queries: list[str]) -> tuple[SearchResult, Reranked | None]:
        """What is found, and behind a reranker what was there before as well."""
        if not queries:
            return empty_result(0, self.depth), None
        if isinstance(self.retriever, RerankingRetriever):
            both = self.retriever.search_both(queries, self.depth)
            return both.final, both
        return self.retriever.search(queries, self.depth), None

    def _ranking(
        self, questions: Sequence[Question], grades: Sequence[Mapping[str, int]], retrieved: Sequence[Sequence[str]]
    ) -> list[dict[str, float]]:
        """The ranking metrics of each question's list."""
        judged = [
            one_of_each(gold, ids, question.copies)
            for gold, ids, question in zip(grades, retrieved, questions, strict=True)
        ]
        return ranking_metrics([gold for gold, _ in judged], [ids for _, ids in judged], self.cutoffs)

    def _rerank_latency(self, queries: Sequence[str]) -> dict[str, float]:
        """Seconds that reranking one question takes: median and 95th percentile of questions asked one by one."""
        assert isinstance(self.retriever, RerankingRetriever)
        seconds = [self.retriever.search_both([query], self.depth).seconds for query in queries]
        if not seconds:
            return {}
        return {f"seconds/rerank_p{percent}": float(np.percentile(seconds, percent)) for percent in (50, 95)}

    def _lists(self, result: SearchResult) -> tuple[list[list[str]], list[list[float]]]:
        """Ids and scores of what was found, a list per question."""
        retrieved, scores = [], []
        for rows_K, scores_K in zip(result.rows_QK, result.scores_QK, strict=True):
            filled_K = rows_K >= 0
            retrieved.append(self.retriever.passages.ids(rows_K[filled_K]))
            scores.append([float(score) for score in scores_K[filled_K]])
        return retrieved, scores


def measured_rankings(config: Any) -> list[str]:
    """The names of the ranking metrics of a run: behind a reranker also those of the list before it."""
    names = ranking_names(config.evaluation)
    reranked = config.retriever.reranker is not None or MODEL_KINDS[config.model.kind].role == "reranker"
    return [*names, *(f"{FIRST_STAGE}/{name}" for name in names)] if reranked else names


def ranking_names(evaluation: EvaluationConfig) -> list[str]:
    """The names of the measured ranking metrics."""
    cutoffs = sorted({*CONTRACT_CUTOFFS, *evaluation.cutoffs})
    return [f"{name}@{k}" for name in ("recall", "hit") for k in cutoffs] + ["mrr@10", "ndcg@10"]


def retrieval_row(
    question: Question,
    query: str,
    retrieved_ids: Sequence[str],
    retrieved_scores: Sequence[float],
    gold: Mapping[str, int],
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """A line of `predictions/<stage>.jsonl`; it has `query` only if the query differs from the question."""
    row: dict[str, Any] = {"id": question.id, "question": question.question}
    if query != question.question:
        row["query"] = query
    return row | {
        "retrieved_ids": list(retrieved_ids),
        "retrieved_scores": list(retrieved_scores),
        "gold_ids": list(gold),
        "answer": None,
        "references": list(question.answers),
        "metrics": dict(metrics),
    }


def summarise(rows: Sequence[Mapping[str, Any]], main: Iterable[str], resamples: int, seed: int) -> dict[str, float]:
    """The mean of each metric over the questions that have it, with `…_ci_low` and `…_ci_high` for those in `main`.

    The generation evaluator uses it too, so that the same rows give the same figures everywhere.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    values = {name: np.array([row["metrics"].get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
    metrics = {name: float(np.nanmean(values[name])) for name in names}
    main_values = {name: values[name] for name in main if name in values}
    if resamples:
        clusters = gold_clusters([row["gold_ids"] for row in rows])
        for name, interval in intervals(main_values, clusters, resamples, seed).items():
            metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"] = interval.low, interval.high
    return metrics
