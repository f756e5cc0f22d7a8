"""A curve out of the lines of `metrics.jsonl`. Imports no drawing library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

Points = list[tuple[float, float]]

END_OF_TRAINING = "train/runtime"
"""Trainer's closing line has it: what is logged after it was measured after training."""


def points(lines: Sequence[Mapping[str, Any]], metric: str, by: str = "step") -> Points:
    """(place, value) of a metric, in order; a place logged twice counts with its last value. Seconds in minutes.

    The evaluation after training is of the best model over every question; those before it are of the model at its
    step over `evaluation.max_questions`. So it is no point of their curve, and is shown only where it is all there is.
    """
    end = max((number for number, line in enumerate(lines) if END_OF_TRAINING in line), default=len(lines))
    return _points(lines[: end + 1], metric, by) or _points(lines[end + 1 :], metric, by)


def _points(lines: Iterable[Mapping[str, Any]], metric: str, by: str) -> Points:
    found: dict[float, float] = {}
    for line in lines:
        value, place = line.get(metric), line.get(by)
        if is_number(value) and is_number(place):
            found[place / 60 if by == "seconds" else place] = value
    return sorted(found.items())


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number: a loss that left the numbers is a gap in its curve."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
