"""`recording` for tests: it swallows what its block raises, a failed assertion too, which here fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rag_experiments.runs.recorder import Outcome, recording

MISTAKES = (AssertionError, pytest.fail.Exception, LookupError, AttributeError, TypeError, NameError)
"""Of the test itself; what a block raises on purpose is something else."""


@contextmanager
def recorded(*arguments: Any, **options: Any) -> Iterator[Outcome]:
    """As `recording`."""
    with recording(*arguments, **options) as outcome:
        yield outcome
    if isinstance(outcome.exception, MISTAKES):
        raise outcome.exception
