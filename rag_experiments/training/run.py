"""A checked request → a finished run directory: the stages of a run, in their order."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from rag_experiments.core.credentials import mask_secrets
from rag_experiments.data.shown_examples import example_lines
from rag_experiments.runs.directory import RunDirectory

if TYPE_CHECKING:
    from rag_experiments.training.request import Request

log = logging.getLogger(__name__)


def train(request: Request, run: RunDirectory, resuming: bool = False) -> dict[str, float]:
    """A checked request → a finished run directory. Returns the final figures."""
    from rag_experiments.runs.tracking import make_tracker
    from rag_experiments.training import build, harm, refit, stages
    from rag_experiments.training.callbacks import RunLog
    from rag_experiments.training.cost_clock import CostClock
    from rag_experiments.training.first_runs import make_first_runs
    from rag_experiments.training.pruning import pruning_callbacks

    config = request.config
    run.write_config(OmegaConf.to_yaml(OmegaConf.create(mask_secrets(request.resolved))))
    with make_tracker(config.tracking, run, request.resolved) as tracker:
        run_log = RunLog(run, tracker)
        for note in request.data.notes:
            log.info("data: %s", note)
        for line in example_lines(request.data):
            log.info("data: %s", line)
        clock = CostClock(run)
        components = build.build_components(request)
        before = stages.zero_shot(components, run, run_log) | stages.baselines(components, run, run_log)
        with clock.preparing():
            make_first_runs(request, components)
        whole, choice, choosing = request, None, dict[str, float]()
        callbacks = pruning_callbacks(config)
        if config.refit:
            choice = refit.choose(request, components, run, callbacks, clock)
            request, choosing, callbacks = refit.second(request, choice), choice.dev, []
            components = build.build_components(request)  # anew: the others hold the first training's weights
        trainer = build.build_trainer(request, components, run.checkpoints_dir, [run_log, clock, *callbacks])
        trainer.add_callback(harm.HarmWatch(trainer, request, run))
        trainer.schedule_steps = choice.of if choice is not None else None
        cost = stages.fit(trainer, clock, run.last_checkpoint() if resuming else None)
        measured = dict[str, dict[str, float]]()
        if config.keep == "base":
            harmed, measured = harm.has_harmed(whole, components, run)
            if harmed:
                request, choosing, measured = whole, {}, {}
                components = build.build_components(request)
        stages.save_model(components, run)
        after = choosing | stages.final(components, run, run_log, trainer.state, measured)
        stages.describe_models(components, run)
        metrics = {**before, **after, **cost}
        run.write_metrics(metrics)
        stages.report(run, tracker, metrics, config.tracking)
    return metrics


def facts(request: Request) -> dict[str, Any]:
    """What `status.json` says of a run besides its state."""
    return {
        "algorithm": request.config.algorithm.name,
        "name": request.config.name,
        "sweep": _sweep_facts(request),
        "data_hash": request.data.content_hash,
        "corpus_hash": request.data.corpus_hash,
        "data": {
            "format": request.config.data.format,
            "path": request.config.data.path,
            "passages": len(request.data.passages),
            **{split: len(questions) for split, questions in request.data.splits.items()},
        },
        "command": " ".join([Path(sys.executable).name, "-m", "rag_experiments.train", *sys.argv[1:]]),
        "working_directory": os.getcwd(),
    }


def _sweep_facts(request: Request) -> dict[str, str | None] | None:
    sweep = request.config.sweep
    return {"name": sweep.name, "job": sweep.job} if sweep.name else None


def objective(request: Request, metrics: dict[str, float]) -> float | None:
    """The figure that sweeps search by: `sweep.metric`, or else `trainer.metric_for_best_model`."""
    config = request.config
    return metrics.get(config.sweep.metric or config.trainer.get("metric_for_best_model") or "")
