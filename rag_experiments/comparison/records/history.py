"""A curve out of the lines of `metrics.jsonl`. Imports no drawing library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from rag_experiments.core.bounded_files import LARGEST_NUMBER

Points = list[tuple[float, float]]

END_OF_TRAINING = "train/runtime"
"""Trainer's closing line has it: what is logged after it was measured after training."""


def points(lines: Sequence[Mapping[str, Any]], metric: str, by: str = "step") -> Points:
    """(place, value) of a metric, in order; a place logged twice counts with its last value. Seconds in minutes.

    Evaluations during training, and zero shot, are of the model at their step over `evaluation.max_questions`. The
    one after training is of the best model over every question: it is no point of their curve, and is shown only
    where there is none.
    """
    end = max((number for number, line in enumerate(lines) if END_OF_TRAINING in line), default=len(lines))
    during = _points(lines[: end + 1], metric, by)
    if not during:
        return sorted(_points(lines[end + 1 :], metric, by).items())
    return sorted((_points(lines, f"zero_shot/{metric}", by) | during).items())


def _points(lines: Iterable[Mapping[str, Any]], metric: str, by: str) -> dict[float, float]:
    found: dict[float, float] = {}
    for line in lines:
        value, place = line.get(metric), line.get(by)
        if is_number(value) and is_number(place):
            found[place / 60 if by == "seconds" else place] = value
    return found


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number: a loss that left the numbers is a gap in its curve."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
