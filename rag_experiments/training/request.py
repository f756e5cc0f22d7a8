"""A composed configuration → a request that is known to be sound, before any weight is read.

The order is the order of cost: what needs no torch first, then the data, then the algorithm's module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rag_experiments.config import roles
from rag_experiments.config.extra_packages import check_packages
from rag_experiments.config.kinds import MODEL_KINDS
from rag_experiments.config.schema import RunConfig
from rag_experiments.config.trainer_keys import REFUSED
from rag_experiments.core import distributed
from rag_experiments.core.errors import RequestError, did_you_mean
from rag_experiments.data.load import RagData, check_required_fields, load_data
from rag_experiments.model_files import sources
from rag_experiments.runs.identity import config_hash
from rag_experiments.training.checks import check_algorithm, check_common


@dataclass(kw_only=True)
class Request:
    """One run, checked: nothing in it can still be the user's mistake."""

    config: RunConfig
    resolved: dict[str, Any]
    """The whole configuration as plain values, as it is written to `config.yaml`."""
    config_hash: str
    trainer_class: Any
    """The algorithm's subclass of `AlgorithmTrainer`."""
    data: RagData

    @property
    def cache(self) -> Path:
        """Where embeddings, scores and imported data are kept between runs."""
        return cache_dir(self.config)


def cache_dir(config: RunConfig) -> Path:
    """`paths.cache`, with `~` expanded."""
    return Path(config.paths.cache).expanduser()


def check_request(composed: DictConfig) -> Request:
    """All checks of a run.

    Raises:
        RequestError: with the one sentence that the user reads.
    """
    config, resolved = check_common(composed)
    check_launch(config, resolved)
    check_sources(config, resolved)
    data = load_data(config.data, cache_dir(config))
    trainer_class = check_with_data(config, data)
    check_training_arguments(config)
    identity = config_hash(resolved)
    if "max_new_tokens" in resolved["model"]:  # settled by the data, as a part of the run and not of its identity
        resolved["model"]["max_new_tokens"] = config.model.max_new_tokens
    return Request(
        config=config,
        resolved=resolved,
        config_hash=identity,
        trainer_class=trainer_class,
        data=data,
    )


def check_with_data(config: RunConfig, data: RagData) -> Any:
    """The checks of algorithm, trainer and data against each other; returns the trainer class.

    Raises:
        RequestError: what one asks for and another lacks.
    """
    check_sizes(config, data)
    trainer_class = check_algorithm(config)
    check_required_fields(data, trainer_class.required_fields, config.algorithm.name)
    trainer_class.check_data(config, data)
    check_best_metric(config, data, trainer_class)
    check_batch(config, trainer_class.count_examples(config, data))
    check_trainer_fits(config, trainer_class)
    return trainer_class


def check_sizes(config: RunConfig, data: RagData) -> None:
    """Raise `RequestError` where the data is too small for what is asked of it."""
    corpus = len(data.passages)
    if config.retriever.k > corpus:
        raise RequestError(f"retriever.k={config.retriever.k} is larger than the corpus, which has {corpus} passages")
    for split in ("train", *config.evaluation.splits):
        if not data.splits.get(split):
            raise RequestError(f"data.path={config.data.path}: the {split} split has no questions")


def check_batch(config: RunConfig, questions: int) -> None:
    """Raise `RequestError` where dropping the last, incomplete batch leaves none."""
    if not config.trainer.get("dataloader_drop_last"):
        return
    batch, count = config.trainer.get("per_device_train_batch_size", 8), int(os.environ.get("WORLD_SIZE", "1"))
    if questions < batch * count:
        each = f" on each of {count} processes" if count > 1 else ""
        raise RequestError(
            f"trainer.dataloader_drop_last=true leaves no batch: {questions} training questions, "
            f"trainer.per_device_train_batch_size={batch}{each}"
        )


def check_best_metric(config: RunConfig, data: RagData, trainer_class: Any) -> None:
    """Raise `RequestError` where evaluation will not measure what checkpoints are chosen by.

    Trainer would find that out after the first evaluation, which may be an epoch away. An algorithm with an evaluator
    of its own names its metrics as it likes.
    """
    from rag_experiments.algorithms.base import AlgorithmTrainer, sample_questions

    trainer = config.trainer
    if trainer.get("eval_strategy", "no") == "no":
        return
    metric = trainer.get("metric_for_best_model")
    last = "trainer.metric_for_best_model=null trainer.load_best_model_at_end=false keeps the last weights"
    if metric is None:
        if trainer.get("load_best_model_at_end"):
            raise RequestError(f"trainer.load_best_model_at_end needs trainer.metric_for_best_model; {last}")
        return
    shared: Any = AlgorithmTrainer
    if trainer_class.make_evaluator.__func__ is not shared.make_evaluator.__func__:
        return
    dev = sample_questions(data.splits.get("dev", []), config.evaluation)
    by_need = trainer_class.evaluator_class(config).metric_names(config)
    if not by_need:
        return
    name = metric.removeprefix("dev/").removesuffix("_ci_low").removesuffix("_ci_high")
    known = [one for names in by_need.values() for one in names]
    if name not in known and not name.startswith(("seconds/", "truncation/")):
        raise RequestError(
            f"trainer.metric_for_best_model={metric} is not measured{did_you_mean(name, known)}; "
            "evaluation.cutoffs says at which ranks"
        )
    for need, names in by_need.items():
        if name in names and need and not any(getattr(question, need) for question in dev):
            raise RequestError(f"trainer.metric_for_best_model={metric}: no dev question has {need}; {last}")


def check_trainer_fits(config: RunConfig, trainer_class: Any) -> None:
    """Raise `RequestError` for arguments of Trainer's that this algorithm, or early stopping, cannot follow."""
    name = config.algorithm.name
    if config.early_stopping is not None and not (
        config.trainer.get("load_best_model_at_end") and config.trainer.get("eval_strategy", "no") != "no"
    ):
        raise RequestError(
            f"early_stopping={config.early_stopping} needs trainer.load_best_model_at_end=true and "
            "trainer.eval_strategy=epoch or steps"
        )
    if config.trainer.get("train_sampling_strategy") == "group_by_length" and not trainer_class.groups_by_length:
        raise RequestError(
            f"trainer.train_sampling_strategy=group_by_length: algorithm={name} sorts the texts of a batch by length "
            "itself; leave it out"
        )
    if config.trainer.get("label_smoothing_factor"):
        raise RequestError(
            f"trainer.label_smoothing_factor: the loss of algorithm={name} has no smoothing; leave it out"
        )


def check_training_arguments(config: RunConfig) -> None:
    """Let `TrainingArguments` refuse what contradicts itself, as a `RequestError`."""
    from rag_experiments.training.training_arguments import training_arguments

    try:
        training_arguments(config, Path("checkpoints"))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise RequestError(f"trainer: {str(error).splitlines()[0]}") from error


def check_launch(config: RunConfig, resolved: dict[str, Any]) -> None:
    """Raise `RequestError` for what the launcher or a package must do and cannot."""
    for variable, name in (("ACCELERATE_USE_FSDP", "fsdp"), ("ACCELERATE_USE_DEEPSPEED", "deepspeed")):
        if os.environ.get(variable, "false").lower() in ("true", "1", "yes"):
            raise RequestError(f"accelerate launch was told to use {name}, which is not supported: {REFUSED[name]}")
    if config.trainer.get("ddp_backend") and not distributed.several():
        raise RequestError(
            "trainer.ddp_backend is for several processes and this run has one: leave it out, or torchrun"
        )
    if config.trainer.get("use_liger_kernel") and MODEL_KINDS[config.model.kind].role != "reader":
        raise RequestError("trainer.use_liger_kernel=true: Liger has kernels for language models, not for an encoder")
    check_packages(config.trainer, dict(roles.model_nodes(resolved)))


def check_sources(config: RunConfig, resolved: dict[str, Any]) -> None:
    """Raise `RequestError` where a model that the run reads is not there, or is of another kind."""
    for key, model in roles.model_nodes(resolved):
        if model.get("path") is None:
            continue
        with roles.under_key(key):
            pretrained = model.get("init") != "random"
            found = sources.resolve(model["path"], model.get("revision"), weights=pretrained)
            if pretrained and not MODEL_KINDS[model["kind"]].any_architecture:
                sources.check_reads(found, model["kind"])
