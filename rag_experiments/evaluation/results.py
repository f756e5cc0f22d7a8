"""What an evaluation gives back. Imports nothing heavy, so that everyone may name these types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rag_experiments.data.records import Question


@dataclass
class EvaluationResult:
    """Figures over all questions, and one row per question as it is written to `predictions/<stage>.jsonl`.

    A row holds `id`, `question`, `retrieved_ids` and `retrieved_scores` (best first), `gold_ids`, `answer`
    (None where nothing was generated), `references`, and `metrics` (name to number). A metric that a question
    cannot have (recall without a gold passage) is missing from its row and left out of the mean.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


class Evaluator(ABC):
    """Measures the current weights on questions. Metric names are bare (`recall@1`): the caller adds the stage."""

    timed: bool = False
    """Set for the final evaluation: measure how long one question takes, too."""

    @classmethod
    def for_run(cls, config: Any, data: Any, models: dict[str, Any], retriever: Any) -> Evaluator:
        """The evaluator of a run; `models` are its trained components by role."""
        raise TypeError(f"{cls.__name__} must implement for_run()")

    @classmethod
    def metric_names(cls, config: Any) -> dict[str, list[str]]:
        """What is measured on dev, by the field that a question needs for it; nothing under the empty name.

        An empty dict: not known before the first evaluation.
        """
        return {}

    @abstractmethod
    def evaluate(self, questions: Sequence[Question]) -> EvaluationResult:
        """Figures and rows for these questions, in their order."""
