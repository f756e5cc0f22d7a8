"""Extract a curve from the lines of `metrics.jsonl`. Imports no drawing library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from rag_experiments.core.bounded_files import LARGEST_NUMBER

Points = list[tuple[float, float]]

END_OF_TRAINING = "train/runtime"
"""A key of Trainer's last line: later lines were measured after training."""


def points(lines: Sequence[Mapping[str, Any]], metric: str, by: str = "step") -> Points:
    """(place, value) of a metric, in order. If a place was logged twice, its last value counts. Seconds become minutes.

    Evaluations before and during training measure the model of that step on `evaluation.max_questions`. The evaluation
    after training measures the best model on all questions, so it is not a point of the same curve. It is used only if
    there is no other point.
    """
    end = max((number for number, line in enumerate(lines) if END_OF_TRAINING in line), default=len(lines))
    during = _points(lines[: end + 1], metric, by)
    if not during:
        return sorted(_points(lines[end + 1 :], metric, by).items())
    return sorted((_points(lines, f"zero_shot/{metric}", by) | during).items())


def _points(lines: Iterable[Mapping[str, Any]], metric: str, by: str) -> dict[float, float]:
    value_at: dict[float, float] = {}
    for line in lines:
        value, place = line.get(metric), line.get(by)
        if is_number(value) and is_number(place):
            value_at[place / 60 if by == "seconds" else place] = value
    return value_at


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number; a loss that diverged leaves a gap in its curve."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
