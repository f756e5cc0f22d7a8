"""What a run's trainer tells the outside: `metrics.jsonl`, the tracker, the console."""

from __future__ import annotations

import time
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.tracking import Tracker

SHOWN = ("train/loss", "dev/recall@1", "dev/recall@4", "dev/ndcg@10", "dev/exact_match", "dev/f1")
"""The figures that the console shows; all of them are in `metrics.jsonl`."""


class RunLog(TrainerCallback):
    """Every logging step goes to `metrics.jsonl` first, then to the tracker. Rank 0 only."""

    def __init__(self, run: RunDirectory, tracker: Tracker):
        self.run = run
        self.tracker = tracker
        earlier = run.read_metrics()
        self.seconds_before = earlier[-1]["seconds"] if earlier else 0.0
        self.started = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        metrics = {name: value for name, value in logs.items() if name != "epoch" and isinstance(value, int | float)}
        self.write(state.global_step, state.epoch or 0.0, metrics)

    def write(self, step: int, epoch: float, metrics: dict[str, float]) -> None:
        """One line; `seconds` counts from the run's first start, interruptions left out."""
        seconds = self.seconds_before + time.perf_counter() - self.started
        self.run.append_metrics(step, epoch, seconds, metrics)
        self.tracker.log(metrics, step)


class Progress(ProgressCallback):
    """Trainer's progress bar, with the few figures that one looks at."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs:
            shown = [f"{name} {logs[name]:.4g}" for name in SHOWN if name in logs]
            if shown:
                self.training_bar.write(f"step {state.global_step:>5}  " + "  ".join(shown))
