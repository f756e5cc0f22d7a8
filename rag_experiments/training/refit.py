"""`refit=true`: dev chooses how long to train, then the model is trained anew on train and dev together.

Choosing a checkpoint costs the questions of dev. With `refit=true` they are given back: a first training on train
alone, in `<run>/choice/`, finds the number of steps; a second begins from the same weights, makes as many steps of the
same learning rate schedule on train and dev, and is what the run keeps. Test is measured once, with that model. The
figures of dev are the first training's: the second has seen those questions.

The number is that of the whole training, unless dev is worse after it than at its best by the paired test; then it is
that of the best `trainer.metric_for_best_model`. The best of several figures of a few dev questions is often chance,
and a training that ends early ends at a high learning rate. (The rule of one standard error, Breiman et al.,
Classification and Regression Trees, 1984, section 3.4.3, with the paired test in place of the standard error.)

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

import numpy as np
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rag_experiments.algorithms.base import AlgorithmTrainer, RunComponents
from rag_experiments.config.schema import RunConfig
from rag_experiments.core.files import atomic_write_json
from rag_experiments.runs.directory import CHOICE, RunDirectory
from rag_experiments.runs.tracking import NullTracker
from rag_experiments.training import build, stages
from rag_experiments.training.callbacks import RunLog
from rag_experiments.training.cost_clock import CostClock
from rag_experiments.training.harm import HarmWatch, against_base, deciding, is_worse, main_metric
from rag_experiments.training.request import Request, with_dev

log = logging.getLogger(__name__)

FILE = "choice.json"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the first training found out."""

    steps: int
    """Those of the second training."""
    of: int
    """Those that the first training would have made; the learning rate falls over these."""
    metric: str
    """By which it was chosen, and its value after `steps`."""
    value: float | None
    dev: dict[str, float]
    """The figures of dev after `steps`."""
    best: int = 0
    """The steps with which dev was best."""


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
        trainer.add_callback(DevRows(trainer, place))
        stages.fit(trainer, clock, place.last_checkpoint())
        best = trainer.state.best_global_step or trainer.state.global_step
        steps, value = _whole_or_best(trainer, place, best)
        dev = stages.evaluate(components, run, "dev", components.data.splits["dev"])
        choice = Choice(
            steps=steps,
            of=trainer.state.max_steps,
            metric=str(request.config.trainer.get("metric_for_best_model")),
            value=value,
            dev=dev,
            best=best,
        )
        if place.writes:
            atomic_write_json(place.path / FILE, dataclasses.asdict(choice))
            shutil.rmtree(place.checkpoints_dir, ignore_errors=True)
    log.info(
        "refit: dev had its best %s after %d of %d steps%s; now %d on train and dev together",
        *(choice.metric, choice.best or choice.steps, choice.of),
        "" if choice.steps == (choice.best or choice.steps) else ", and is not worse at the end by the paired test",
        choice.steps,
    )
    run.update_status(refit={"steps": choice.steps, "of": choice.of, "metric": choice.metric, "value": choice.value})
    return choice


class DevRows(TrainerCallback):
    """Keeps the rows of each evaluation on dev, in `choice/predictions/<step>.jsonl`."""

    def __init__(self, trainer: AlgorithmTrainer, place: RunDirectory):
        self.trainer, self.place = trainer, place

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.dev_rows and state.is_world_process_zero:
            self.place.write_predictions(str(state.global_step), self.trainer.dev_rows)


def _whole_or_best(trainer: AlgorithmTrainer, place: RunDirectory, best: int) -> tuple[int, float | None]:
    """The steps to make and the metric after them; the trainer holds the weights of these steps then."""
    state, last = trainer.state, trainer.state.global_step
    checkpoint = place.last_checkpoint()
    at_the_end = None
    if last != best and checkpoint is not None and checkpoint.name == f"checkpoint-{last}" and place.writes:
        metric = main_metric(trainer.components.config)
        at_best, whole = (place.read_predictions(str(step)) for step in (best, last))
        test = against_base(at_best, whole, metric)
        if test is not None and not is_worse(test):
            name = deciding(metric, whole)
            at_the_end = float(np.mean([row["metrics"][name] for row in whole if name in row["metrics"]]))
    (at_the_end,) = broadcast_object_list([at_the_end])
    if at_the_end is None or checkpoint is None:
        return best, state.best_metric
    trainer.load_weights(checkpoint)
    return last, at_the_end


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
