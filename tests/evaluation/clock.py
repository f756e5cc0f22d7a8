"""A clock that a test moves: durations without waiting for them."""

from __future__ import annotations

import time

import pytest


class Clock:
    """Stands in for `time.perf_counter`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
