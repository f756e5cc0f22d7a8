"""What a run has cost so far, interruptions and repeated steps included: seconds of preparing and of training.

Kept in the run directory as `cost.json` and written at every logging step, so that a run that was killed and resumed
counts all of its segments. A killed segment counts up to its last logging step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rag_experiments.core.files import atomic_write_json
from rag_experiments.runs.directory import RunDirectory

FILE = "cost.json"


class CostClock(TrainerCallback):
    """`prepare` and `train` seconds of a run; it follows a trainer, whose own preparing counts as such."""

    def __init__(self, run: RunDirectory):
        self.run = run
        self.earlier = read_cost(run.path)
        self.trainer: Any = None
        self.prepared = 0.0
        """Seconds of this segment outside the trainer."""
        self.trained = 0.0
        """Seconds of trainings of this segment that have ended."""
        self.started: float | None = None
        self.prepared_before = 0.0

    def follow(self, trainer: Any) -> None:
        """Count the preparing of this trainer from now on; what an earlier one has counted stays."""
        if self.trainer is not None:
            self.prepared += self.trainer.seconds_preparing
        self.trainer = trainer

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count the time within as preparing."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.prepared += time.perf_counter() - started
            self.write()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the time within as training, less what the trainer itself counts as preparing."""
        self.prepared_before = self.trainer.seconds_preparing
        self.started = time.perf_counter()
        try:
            yield
        finally:
            self.trained += self._training()
            self.started = None
            self.write()

    def _training(self) -> float:
        """Seconds of the training that goes on, without what it has prepared since it began."""
        if self.started is None:
            return 0.0
        return time.perf_counter() - self.started - (self.trainer.seconds_preparing - self.prepared_before)

    @property
    def segment(self) -> dict[str, float]:
        """Seconds of this segment alone."""
        own = self.trainer.seconds_preparing if self.trainer is not None else 0.0
        return {"prepare": self.prepared + own, "train": self.trained + self._training()}

    @property
    def totals(self) -> dict[str, float]:
        """Seconds of all segments."""
        return {name: seconds + self.earlier.get(name, 0.0) for name, seconds in self.segment.items()}

    def write(self) -> None:
        """Put the totals on disk."""
        if self.run.writes:
            atomic_write_json(self.run.path / FILE, {name: round(seconds, 3) for name, seconds in self.totals.items()})

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Every logging step."""
        self.write()


def read_cost(run: Path) -> dict[str, float]:
    """What `CostClock` wrote; empty where there is nothing that can be read."""
    try:
        record = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    items = record.items() if isinstance(record, dict) else ()
    return {name: float(seconds) for name, seconds in items if isinstance(seconds, int | float)}
