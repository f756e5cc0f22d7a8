"""Runs that must come before a run because it reads their model: DCA's teacher, a FiD reader of the same data.

Such a run is made once for all runs that need the same one, and kept in the cache as a run directory of its own
(`status.json`, `metrics.jsonl`, `checkpoints/`, `model/`), so it can be looked at, and goes on where it was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock
from transformers import set_seed

from rag_experiments.algorithms.base import SAME_FIGURES, FirstRun, RunComponents
from rag_experiments.core.digest import digest
from rag_experiments.core.files import atomic_directory
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.recorder import recording
from rag_experiments.runs.tracking import NullTracker
from rag_experiments.training.callbacks import RunLog
from rag_experiments.training.request import Request
from rag_experiments.training.training_arguments import training_arguments

log = logging.getLogger(__name__)


def make_first_runs(request: Request, components: RunComponents) -> None:
    """Make what `before_run` asks for, and let the configuration's roles point to it."""
    for role, first in request.trainer_class.before_run(request.config, request.data).items():
        model = getattr(request.config.algorithm, role)
        folder = _made(first, components)
        made = dataclasses.replace(
            first.config.model, path=str(folder), init="pretrained", architecture=None, revision=None, lora=None
        )
        setattr(request.config.algorithm, role, made)
        log.info("%s: %s, from %s", role, folder, model.path)


def key_of(first: FirstRun, data: Any, retriever: Any) -> str:
    """What the run is kept under: all that decides what it learns."""
    config = first.config
    return digest(
        dataclasses.asdict(config.model),
        dataclasses.asdict(config.algorithm),
        {name: value for name, value in config.trainer.items() if name not in SAME_FIGURES},
        config.seed,
        config.data.query_history,
        data.content_hash,
        [question.id for question in first.questions],
        retriever.fingerprint(),
    )


def _made(first: FirstRun, components: RunComponents) -> Path:
    """The `model/` of the run, found in the cache or made now."""
    state = PartialState()
    data = dataclasses.replace(components.data, splits={**components.data.splits, "train": first.questions})
    key = key_of(first, data, components.retriever)
    run = RunDirectory(components.cache / "first_runs" / first.config.algorithm.name / key)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    # All processes of this run train together, so only the first may hold back other runs: the second would wait for
    # the lock, and the first for the second's gradients.
    with FileLock(f"{run.path}.lock") if state.process_index == 0 else contextlib.nullcontext():
        (known,) = broadcast_object_list([run.model_dir.is_dir()])
        if known:
            return run.model_dir
        log.info("training a model that this run needs first, once: %s", first.config.name)
        with recording(run, key, {"algorithm": first.config.algorithm.name, "name": first.config.name}) as outcome:
            _train(first, dataclasses.replace(components, config=first.config, data=data), run)
        if outcome.exception is not None:
            raise outcome.exception
    return run.model_dir


def _train(first: FirstRun, components: RunComponents, run: RunDirectory) -> None:
    """Without evaluation: what counts is what the run that follows makes of it."""
    set_seed(first.config.seed)
    model: Any = first.trainer_class.load_model(first.config.model, components.cache)
    components = dataclasses.replace(components, models={first.role: model})
    args = training_arguments(first.config, run.checkpoints_dir)
    trainer = first.trainer_class(components, args, [RunLog(run, NullTracker())])
    trainer.prepare()
    set_seed(first.config.seed)
    checkpoint = run.last_checkpoint()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if run.writes:
        with atomic_directory(run.model_dir) as folder:
            components.save(folder)
        shutil.rmtree(run.checkpoints_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
