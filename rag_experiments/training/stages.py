"""The stages of a run, each finished before the next begins, so that an interruption loses one at most."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import TrainerState, set_seed

from rag_experiments.algorithms.base import AlgorithmTrainer, RunComponents, sample_questions
from rag_experiments.config.schema import TrackingConfig
from rag_experiments.core.files import atomic_directory
from rag_experiments.data.records import Question
from rag_experiments.data.shown_ids import shown_rows
from rag_experiments.evaluation.results import EvaluationResult
from rag_experiments.evaluation.retrieval_evaluator import RetrievalEvaluator
from rag_experiments.retrieval.factory import build_baseline
from rag_experiments.runs.directory import RunDirectory, baseline_stage
from rag_experiments.runs.tracking import Tracker
from rag_experiments.training.callbacks import RunLog
from rag_experiments.training.cost_clock import CostClock

log = logging.getLogger(__name__)

BASELINE_PASSAGES = 1_000_000
"""Indexing the words of a larger corpus takes longer than many trainings: its baseline is a run of its own."""


def zero_shot(components: RunComponents, run: RunDirectory, run_log: RunLog) -> dict[str, float]:
    """Evaluate before training; a resumed run reads what it measured the first time."""
    if not components.config.evaluation.zero_shot:
        return {}
    metrics: dict[str, float] = {}
    for split in components.config.evaluation.splits:
        stage = f"zero_shot/{split}"
        figures = _measured(run, stage)
        if not figures:
            figures = evaluate(
                components, run, stage, sample_questions(components.data.splits[split], components.config.evaluation)
            )
            run_log.write(0, 0.0, figures)
        metrics |= figures
    return metrics


def baselines(components: RunComponents, run: RunDirectory, run_log: RunLog) -> dict[str, float]:
    """Measure `evaluation.baselines` before training; a resumed run reads what it measured the first time."""
    metrics: dict[str, float] = {}
    missing = []
    for baseline in baseline_stages(components):
        measured = _measured(run, baseline_stage(*baseline))
        metrics |= measured or {}
        if not measured:
            missing.append(baseline)
    for stage, result in baseline_results(components, missing):
        figures = _recorded(run, stage, result)
        run_log.write(0, 0.0, figures)
        metrics |= figures
    return metrics


def baseline_stages(components: RunComponents) -> list[tuple[str, str]]:
    """`(name, split)` of each baseline; none where no encoder is trained, or the corpus is too large."""
    evaluation = components.config.evaluation
    if "encoder" not in components.models or not evaluation.baselines:
        return []
    if len(components.data.passages) > BASELINE_PASSAGES:
        log.info("evaluation.baselines: left out, the corpus has more than %d passages", BASELINE_PASSAGES)
        return []
    others = [name for name in evaluation.baselines if name != components.config.retriever.type]
    return [(name, split) for name in others for split in evaluation.splits]


def baseline_results(
    components: RunComponents, baselines: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, EvaluationResult]]:
    """The stage of each `(name, split)`, and what that retriever finds for every question of the split."""
    config, data = components.config, components.data
    evaluators: dict[str, RetrievalEvaluator] = {}
    for name, split in baselines:
        if name not in evaluators:
            retriever = build_baseline(name, config.retriever, data.passages, components.cache)
            retriever.refresh(persist=True)
            evaluators[name] = RetrievalEvaluator(retriever, config.evaluation, config.data.query_history, seed=0)
        stage = baseline_stage(name, split)
        log.info("evaluating %s on %d questions", stage, len(data.splits[split]))
        result = evaluators[name].evaluate(data.splits[split])
        yield stage, replace(result, rows=list(shown_rows(result.rows, data.passages)))


def final(
    components: RunComponents,
    run: RunDirectory,
    run_log: RunLog,
    state: TrainerState,
    measured: Mapping[str, dict[str, float]] | None = None,
) -> dict[str, float]:
    """Evaluate the model that is kept, on every question.

    Args:
        measured: what `evaluate` found with this model, of splits that are not measured again.
    """
    components.evaluator.timed = True
    metrics: dict[str, float] = {}
    for split in components.config.evaluation.splits:
        figures = (measured or {}).get(split) or evaluate(components, run, split, components.data.splits[split])
        run_log.write(state.global_step, state.epoch or 0.0, figures)
        metrics |= figures
    return metrics


def evaluate(
    components: RunComponents, run: RunDirectory, stage: str, questions: Sequence[Question]
) -> dict[str, float]:
    """One stage: predictions written, figures returned under the stage's name."""
    log.info("evaluating %s on %d questions", stage, len(questions))
    started = time.perf_counter()
    result = components.evaluate(questions, persist=True)
    return _recorded(run, stage, result) | {f"{stage}/seconds/evaluation": time.perf_counter() - started}


def _recorded(run: RunDirectory, stage: str, result: EvaluationResult) -> dict[str, float]:
    """The figures under the stage's name, its predictions written."""
    run.write_predictions(stage, result.rows)
    return {f"{stage}/{name}": value for name, value in result.metrics.items()}


def _measured(run: RunDirectory, stage: str) -> dict[str, float] | None:
    if not run.predictions_path(stage).is_file():
        return None
    for line in run.read_metrics():
        figures = {name: value for name, value in line.items() if name.startswith(f"{stage}/")}
        if figures:
            return figures
    return None


def fit(trainer: AlgorithmTrainer, clock: CostClock, checkpoint: Path | None) -> dict[str, float]:
    """Prepare, then train, from a checkpoint where there is one. Returns what it cost, all segments together."""
    clock.follow(trainer)
    with trainer.preparing():
        trainer.prepare()
    set_seed(trainer.args.seed)  # what was drawn while preparing must not change the training
    with clock.training():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    cost = {f"seconds/{name}": seconds for name, seconds in clock.totals.items()}
    cost["peak_memory_mb"] = peak_memory_mb()
    tokens = trainer.total_tokens()
    if tokens:
        cost["tokens_per_second"] = tokens / max(trainer.total_seconds(), 1e-9)
    return cost


def peak_memory_mb() -> float:
    """The most memory this process has held: the GPU's where there is one, else the machine's (MiB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def save_model(components: RunComponents, run: RunDirectory) -> None:
    """`model/`: the best weights, whole or not at all."""
    if not run.writes:  # every process holds the same weights
        return
    with atomic_directory(run.model_dir) as folder:
        components.save(folder)


def describe_models(components: RunComponents, run: RunDirectory) -> None:
    """`README.md` beside each model."""
    from rag_experiments.training.model_usage import write_readmes

    try:
        write_readmes(run, components.config, components.data)
    except OSError as error:  # a full disk must not make a failure of a run that has all its figures
        log.warning("the model's README.md could not be written: %s", error)


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
