"""`refit=true`: dev chooses how long to train, then the model is trained anew on train and dev together.

Choosing a checkpoint costs the questions of dev. With `refit=true` they are given back: a first training on train
alone, in `<run>/choice/`, finds the number of steps with the best `trainer.metric_for_best_model`; a second begins from
the same weights, makes as many steps of the same learning rate schedule on train and dev, and is what the run keeps.
Test is measured once, with that model. The figures of dev are the first training's: the second has seen those
questions.

(Goodfellow, Bengio and Courville, Deep Learning, 2016, section 7.8, the first of their two ways to use all data after
early stopping.)
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rag_experiments.algorithms.base import RunComponents
from rag_experiments.config.schema import RunConfig
from rag_experiments.core.files import atomic_write_json
from rag_experiments.runs.directory import CHOICE, RunDirectory
from rag_experiments.runs.tracking import NullTracker
from rag_experiments.training import build, stages
from rag_experiments.training.callbacks import RunLog
from rag_experiments.training.cost_clock import CostClock
from rag_experiments.training.harm import HarmWatch
from rag_experiments.training.request import Request, with_dev

log = logging.getLogger(__name__)

FILE = "choice.json"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the first training found out."""

    steps: int
    """Those with which dev was best."""
    of: int
    """Those that the first training would have made; the learning rate falls over these."""
    metric: str
    """By which it was chosen, and its value."""
    value: float | None
    dev: dict[str, float]
    """The figures of dev, with the weights that were best."""


def choose(
    request: Request,
    components: RunComponents,
    run: RunDirectory,
    callbacks: Sequence[TrainerCallback],
    clock: CostClock,
) -> Choice:
    """The first training; one that was interrupted goes on, and one that has ended is read."""
    place = RunDirectory(run.path / CHOICE)
    choice = read_choice(run.path)
    if choice is None:
        if place.writes:
            place.path.mkdir(exist_ok=True)
        place.go_back_to_checkpoint()
        run_log = RunLog(place, NullTracker())
        trainer = build.build_trainer(request, components, place.checkpoints_dir, [run_log, clock, *callbacks])
        trainer.add_callback(HarmWatch(trainer, request, run))
        stages.fit(trainer, clock, place.last_checkpoint())
        state = trainer.state
        dev = stages.evaluate(components, run, "dev", components.data.splits["dev"])
        choice = Choice(
            steps=state.best_global_step or state.global_step,
            of=state.max_steps,
            metric=str(request.config.trainer.get("metric_for_best_model")),
            value=state.best_metric,
            dev=dev,
        )
        if place.writes:
            atomic_write_json(place.path / FILE, dataclasses.asdict(choice))
            shutil.rmtree(place.checkpoints_dir, ignore_errors=True)
    log.info(
        "refit: %d of %d steps had the best %s; now as many on train and dev together",
        choice.steps,
        choice.of,
        choice.metric,
    )
    run.update_status(refit={"steps": choice.steps, "of": choice.of, "metric": choice.metric, "value": choice.value})
    return choice


def read_choice(run: Path) -> Choice | None:
    """What the first training of the run left; None before its end."""
    try:
        return Choice(**json.loads((run / CHOICE / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def second(request: Request, choice: Choice) -> Request:
    """The request of the second training: on train and dev, of a known length, without looking at dev."""
    config = without_choosing(request.config, choice.steps)
    return dataclasses.replace(request, config=config, data=with_dev(request.data))


def without_choosing(config: RunConfig, steps: int) -> RunConfig:
    """`config` for `steps` steps at whose end the weights are taken as they are."""
    trainer: dict[str, Any] = dict(config.trainer)
    for name in ("metric_for_best_model", "greater_is_better", "eval_steps", "eval_delay"):
        trainer.pop(name, None)
    trainer |= {"max_steps": steps, "eval_strategy": "no", "load_best_model_at_end": False}
    if trainer.get("save_strategy") == "best":
        trainer["save_strategy"] = "no"
    splits: list[Any] = [split for split in config.evaluation.splits if split != "dev"]
    return dataclasses.replace(
        config,
        trainer=trainer,
        early_stopping=None,
        evaluation=dataclasses.replace(config.evaluation, splits=splits),
    )
