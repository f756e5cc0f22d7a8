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
from transformers import set_seed

from rag_experiments.algorithms.base import SAME_FIGURES, FirstRun, RunComponents
from rag_experiments.config.schema import ModelConfig
from rag_experiments.core import cache as disk_cache
from rag_experiments.core.digest import digest, files_digest, without
from rag_experiments.core.files import atomic_directory
from rag_experiments.model_files import metadata, sources
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
        folder = _model_of(first, components)
        first_model = dataclasses.replace(
            first.config.model, path=str(folder), init="pretrained", architecture=None, revision=None, lora=None
        )
        setattr(request.config.algorithm, role, first_model)
        log.info("%s: %s, from %s", role, folder, model.path)


NOT_LEARNT_FROM = {
    **dict.fromkeys(("name", "resume", "plan"), "what it is called, and how it was asked for"),
    **dict.fromkeys(("tracking", "sweep", "paths"), "where results go"),
    **dict.fromkeys(("evaluation", "early_stopping", "refit", "keep"), "a first run is not evaluated"),
    "trainer": "in the key without what only says how to compute",
    "data": "in the key without what its content shows",
    "retriever": "in the key without its encoder",
}
"""Parts of a first run's configuration that stand in its key otherwise or not at all, and why."""
_IN_THE_CONTENT = {
    "path": "where it lies",
    **dict.fromkeys(("format", "titles", "dev_fraction", "test_fraction", "split_seed"), "the content's hash shows it"),
    **dict.fromkeys(("max_train", "max_dev", "max_test"), "the content's hash shows it"),
}
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


def key_of(first: FirstRun, data: Any, retriever: Any, weights: str = "", processes: int = 1) -> str:
    """What the run is kept under: all that decides what it learns.

    Args:
        weights: `weights_behind` its model.
        processes: how many train together. Where the loss is a mean over the whole step (`scales_own_loss`), the step's
            size counts and not who computes which part: two processes with half the batch take the same examples in
            the same order. What differs is rounding, the draws of dropout, and an epoch's last step where it is not
            full, which several processes fill up from the epoch's start. So they share one run with a single process.
    """
    config = first.config
    trainer = {name: value for name, value in config.trainer.items() if name not in SAME_FIGURES}
    size, accumulated = (trainer.pop(name, default) for name, default in zip(_BATCH, (8, 1), strict=True))
    whole = first.trainer_class.scales_own_loss
    return digest(
        f"{first.trainer_class.__module__}:{first.trainer_class.__qualname__}",
        first.role,
        without(config, NOT_LEARNT_FROM),
        trainer,
        size * accumulated * processes if whole else [size, accumulated, processes],
        without(config.data, _IN_THE_CONTENT),
        without(config.retriever, {"encoder": "in the retriever's fingerprint"}),
        data.content_hash,
        [question.id for question in first.questions],
        retriever.fingerprint(),
        weights,
    )


def weights_behind(model: ModelConfig) -> str:
    """A hash of the files at `model.path`: tomorrow the same path may hold others. Empty for a hub id.

    Raises:
        RequestError: the model is not there.
    """
    place = sources.resolve(model.path, model.revision, weights=model.init != "random").local
    if place is None:
        return ""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    own = files_digest(files)
    if not place.is_dir() or not metadata.is_adapter(place):
        return own
    return digest(own, weights_behind(dataclasses.replace(model, path=metadata.base_of_adapters(place), revision=None)))


def _model_of(first: FirstRun, components: RunComponents) -> Path:
    """The `model/` of the run, found in the cache or made now."""
    state = PartialState()
    data = dataclasses.replace(components.data, splits={**components.data.splits, "train": first.questions})
    key = key_of(first, data, components.retriever, weights_behind(first.config.model), state.num_processes)
    place = disk_cache.Entry(components.cache, f"first_runs/{first.config.algorithm.name}", key)
    run = RunDirectory(place.path)
    # All processes of this run train together, so only the first may hold back other runs: the second would wait for
    # the lock, and the first for the second's gradients.
    with place.lock() if state.process_index == 0 else contextlib.nullcontext():
        (is_whole,) = broadcast_object_list([disk_cache.is_whole(run.model_dir)])
        if is_whole:
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
            disk_cache.write_listing(folder)
        shutil.rmtree(run.checkpoints_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
