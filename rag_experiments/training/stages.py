"""The stages of a run, each finished before the next begins, so that an interruption loses one at most."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import TrainerState

from rag_experiments.algorithms.base import AlgorithmTrainer, Parts, sample_questions
from rag_experiments.config.schema import TrackingConfig
from rag_experiments.core.files import atomic_directory
from rag_experiments.data.records import Question
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.tracking import Tracker
from rag_experiments.training.callbacks import RunLog

log = logging.getLogger(__name__)


def zero_shot(parts: Parts, run: RunDirectory, run_log: RunLog) -> dict[str, float]:
    """Evaluate before training; a resumed run reads what it measured the first time."""
    if not parts.config.evaluation.zero_shot:
        return {}
    metrics: dict[str, float] = {}
    for split in parts.config.evaluation.splits:
        stage = f"zero_shot/{split}"
        found = _measured(run, stage)
        if not found:
            found = evaluate(parts, run, stage, sample_questions(parts.data.splits[split], parts.config.evaluation))
            run_log.write(0, 0.0, found)
        metrics |= found
    return metrics


def final(parts: Parts, run: RunDirectory, run_log: RunLog, state: TrainerState) -> dict[str, float]:
    """Evaluate the model that is kept, on every question."""
    parts.evaluator.timed = True
    metrics: dict[str, float] = {}
    for split in parts.config.evaluation.splits:
        found = evaluate(parts, run, split, parts.data.splits[split])
        run_log.write(state.global_step, state.epoch or 0.0, found)
        metrics |= found
    return metrics


def evaluate(parts: Parts, run: RunDirectory, stage: str, questions: Sequence[Question]) -> dict[str, float]:
    """One stage: predictions written, figures returned under the stage's name."""
    log.info("evaluating %s on %d questions", stage, len(questions))
    started = time.perf_counter()
    result = parts.evaluate(questions, persist=True)
    run.write_predictions(stage, result.rows)
    metrics = {f"{stage}/{name}": value for name, value in result.metrics.items()}
    return metrics | {f"{stage}/seconds/evaluation": time.perf_counter() - started}


def _measured(run: RunDirectory, stage: str) -> dict[str, float] | None:
    if not run.predictions_path(stage).is_file():
        return None
    for line in run.read_metrics():
        found = {name: value for name, value in line.items() if name.startswith(f"{stage}/")}
        if found:
            return found
    return None


def fit(trainer: AlgorithmTrainer, checkpoint: Path | None) -> dict[str, float]:
    """Train, from a checkpoint where there is one. Returns what it cost, every segment of a resumed run counted."""
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds, tokens = trainer.total_seconds(), trainer.total_tokens()
    cost = {"seconds/train": seconds, "peak_memory_mb": peak_memory_mb()}
    if tokens:
        cost["tokens_per_second"] = tokens / seconds
    return cost


def peak_memory_mb() -> float:
    """The most memory this process has held: the GPU's where there is one, else the machine's (MiB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def save_model(parts: Parts, run: RunDirectory) -> None:
    """`model/`: the best weights, whole or not at all."""
    if not run.writes:  # every process holds the same weights
        return
    with atomic_directory(run.model_dir) as folder:
        parts.model.save(folder)


def report(run: RunDirectory, tracker: Tracker, metrics: dict[str, float], config: TrackingConfig) -> None:
    """Tell the tracker the final figures, and print the table of before and after."""
    if not run.writes:
        return
    from rag_experiments.comparison import print_before_after
    from rag_experiments.comparison.output.run_plots import write_plots

    tracker.summary(metrics)
    for split in ("dev", "test"):
        rows = run.read_predictions(split)[: config.table_rows]
        if rows:
            tracker.table(f"predictions/{split}", rows)
    if config.log_model:
        tracker.artifact(run.model_dir, "model")
    print_before_after(run)
    try:
        write_plots(run)
    except OSError as error:  # a full disk must not make a failure of a run that has all its figures
        log.warning("plots/ could not be written: %s", error)
