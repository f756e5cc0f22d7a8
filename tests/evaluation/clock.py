"""A clock that a test moves: durations without waiting for them."""

from __future__ import annotations

import pytest

from rag_experiments.evaluation import generation_evaluator, retrieval_evaluator
from tests.stand_in import stand_in


class Clock:
    """Stands in for `time.perf_counter` in the evaluators."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        for evaluator in (generation_evaluator, retrieval_evaluator):
            stand_in(monkeypatch, evaluator, "time", perf_counter=lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
