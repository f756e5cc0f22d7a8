"""The result of an evaluation, and the interface of evaluators. Imports nothing heavy, so any file may use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rag_experiments.data.records import Question


@dataclass
class EvaluationResult:
    """Figures over all questions, and one row per question, in the form of `predictions/<stage>.jsonl`.

    A row holds `id`, `question`, `retrieved_ids` and `retrieved_scores` (best first), `gold_ids`, `answer` (None if
    no answer was generated), `references`, and `metrics` (name to number). If a metric is not defined for a question
    (recall without a gold passage), it is missing from the row and does not enter the mean.

    An evaluator writes passages' own ids; rows of predictions have those that people see (`data/shown_ids.py`).
    """

    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


class Evaluator(ABC):
    """Measures the current weights on questions. Metric names are bare (`recall@1`): the caller adds the stage."""

    timed: bool = False
    """True in the final evaluation, which also measures the time per question."""

    @classmethod
    def for_run(cls, config: Any, data: Any, models: dict[str, Any], retriever: Any) -> Evaluator:
        """The evaluator of a run; `models` are its trained components by role."""
        raise TypeError(f"{cls.__name__} must implement for_run()")

    @classmethod
    def metric_names(cls, config: Any) -> dict[str, list[str]]:
        """The metrics measured on dev, grouped by the question field that they need; the key "" needs no field.

        An empty dict means that the metrics are not known before the first evaluation.
        """
        return {}

    @abstractmethod
    def evaluate(self, questions: Sequence[Question]) -> EvaluationResult:
        """Figures and rows for these questions, in their order."""
