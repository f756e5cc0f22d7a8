"""The front door: a composed configuration → a request that is known to be sound, before any weight is read.

Every command that runs or opens something comes through here, and each step is in one place. The order is that of cost:
what needs no torch first, then the data, then the algorithm's module.

1. compose: `config.command_line` reads the words (`config.overrides`) and has Hydra compose them;
   `config.filling` puts in the defaults of the dataclasses. `config.hydra_errors` says what does not compose.
2. kinds: `checks.check_common` finds out which model, retriever and data format are meant (`config.kinds`,
   `config.data_formats`).
3. types and ranges: `check_common` again, with `config.validation` for our dataclasses, their `__post_init__` for the
   values of one group that contradict each other, and `config.trainer_keys` for `trainer`.
4. rules across groups that need no data: `check_launch` (processes, packages), `check_sources` (the models are there
   and of their kind).
5. what the algorithm needs: `checks.check_algorithm` (its own keys, the kind of the trained model, the retriever, its
   `check_config`), and with the data `check_with_data` (sizes, required fields, its `check_data`, the metric that
   checkpoints are chosen by, batches).
6. `check_training_arguments`: what `TrainingArguments` itself refuses.

A run, a job of a sweep and a finished run that is opened again go through `check_request` or its middle, `check_parts`.
What only names a configuration, or reads its data, stops after step 3: `resume`, `chain`, `rag_experiments.data.*`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rag_experiments.config import roles
from rag_experiments.config.extra_packages import check_packages
from rag_experiments.config.kinds import MODEL_KINDS, imported
from rag_experiments.config.overrides import typed
from rag_experiments.config.schema import DataConfig, RunConfig
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


def check_request(composed: DictConfig, *, training: bool = True) -> Request:
    """All checks of a run, or (`training` false) of a finished run's model that is used again.

    Raises:
        RequestError: with the one sentence that the user reads.
    """
    config, resolved = check_common(composed)
    trainer_class, data = check_parts(config, resolved, training=training)
    identity = config_hash(resolved)
    if training:
        check_training_arguments(config)
        _keep_lengths(config, resolved, trainer_class)
    return Request(
        config=config,
        resolved=resolved,
        config_hash=identity,
        trainer_class=trainer_class,
        data=data,
    )


def _keep_lengths(config: RunConfig, resolved: dict[str, Any], trainer_class: Any) -> None:
    """How long answers may be, which the data settles, as a part of the run and not of its identity."""
    for model in roles.models_of(config, trainer_class):
        if model.trained and hasattr(model.config, "max_new_tokens"):
            dict(roles.model_nodes(resolved))[model.key]["max_new_tokens"] = model.config.max_new_tokens


def check_parts(
    config: RunConfig,
    resolved: dict[str, Any],
    *,
    training: bool = True,
    load: Callable[[DataConfig, Path], RagData] = load_data,
) -> tuple[Any, RagData]:
    """What `check_common` leaves: surroundings, models, data and algorithm; returns the trainer class and the data.

    Args:
        training: false for a run's model that is used again, which may be on data without training questions.
        load: reads the data; a sweep reads that of all jobs once.

    Raises:
        RequestError: what is missing, or does not go together.
    """
    check_launch(config, resolved, training)
    # A run that is used again has its own weights in the place of those that it began with.
    check_sources(resolved if training else {"model": {}, "retriever": resolved["retriever"]})
    data = load(config.data, cache_dir(config))
    return check_with_data(config, data, training), data


def check_with_data(config: RunConfig, data: RagData, training: bool = True) -> Any:
    """The checks of algorithm, trainer and data against each other; returns the trainer class.

    Raises:
        RequestError: what one asks for and another lacks.
    """
    check_sizes(config, data, ("train", *config.evaluation.splits) if training else ())
    trainer_class = check_algorithm(config, training)
    check_frozen_models(config, trainer_class)
    if not training:
        return trainer_class
    check_required_fields(data, trainer_class.required_fields, config.algorithm.name)
    trainer_class.check_data(config, data)
    if config.refit:
        trainer_class.check_data(config, with_dev(data))
    check_best_metric(config, data, trainer_class)
    check_batch(config, trainer_class.count_examples(config, data))
    check_trainer_fits(config, trainer_class)
    return trainer_class


def with_dev(data: RagData) -> RagData:
    """`data` with the questions of dev in train as well: what `refit=true` trains on in the end."""
    return replace(data, splits={**data.splits, "train": [*data.splits["train"], *data.splits["dev"]]})


def check_sizes(config: RunConfig, data: RagData, splits: Iterable[str]) -> None:
    """Raise `RequestError` where the corpus is too small for what is asked of it, or one of `splits` is empty."""
    corpus = len(data.passages)
    if config.retriever.k > corpus:
        raise RequestError(f"retriever.k={config.retriever.k} is larger than the corpus, which has {corpus} passages")
    for split in splits:
        if not data.splits.get(split):
            raise RequestError(f"data.path={config.data.path}: the {split} split has no questions{_advice(config)}")


def _advice(config: RunConfig) -> str:
    """How a folder of documents comes to questions."""
    if config.data.format != "documents" or getattr(config.data, "questions", None):
        return ""
    path = typed("data.path", str(config.data.path))
    return (
        "; data.questions=FILE names a file with questions and answers about the documents, and "
        f"python -m rag_experiments.data.generate data=documents {path} OUT writes some"
    )


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
    metric_names = [one for names in by_need.values() for one in names]
    if name not in metric_names and not name.startswith(("seconds/", "truncation/")):
        raise RequestError(
            f"trainer.metric_for_best_model={metric} is not measured{did_you_mean(name, metric_names)}; "
            "evaluation.cutoffs says at which ranks"
        )
    for need, names in by_need.items():
        if name in names and need and not any(getattr(question, need) for question in dev):
            raise RequestError(f"trainer.metric_for_best_model={metric}: no dev question has {need}; {last}")


def check_trainer_fits(config: RunConfig, trainer_class: Any) -> None:
    """Raise `RequestError` for arguments of Trainer's that this algorithm, or early stopping, cannot follow."""
    name = config.algorithm.name
    chooses = config.trainer.get("load_best_model_at_end") and config.trainer.get("eval_strategy", "no") != "no"
    if config.early_stopping is not None and not chooses:
        raise RequestError(
            f"early_stopping={config.early_stopping} needs trainer.load_best_model_at_end=true and "
            "trainer.eval_strategy=epoch or steps"
        )
    if config.keep == "base" and not config.evaluation.zero_shot:
        raise RequestError("keep=base compares dev with the model before training: it needs evaluation.zero_shot=true")
    if config.refit and not chooses:
        raise RequestError(
            "refit=true chooses the number of steps with dev: it needs trainer.load_best_model_at_end=true and "
            "trainer.eval_strategy=epoch or steps"
        )
    if config.trainer.get("train_sampling_strategy") == "group_by_length" and not trainer_class.groups_by_length:
        raise RequestError(
            f"trainer.train_sampling_strategy=group_by_length: algorithm={name} sorts the texts of a batch by length "
            "itself; leave it out"
        )
    if config.trainer.get("neftune_noise_alpha") and len(roles.trained_roles(trainer_class)) > 1:
        raise RequestError(
            f"trainer.neftune_noise_alpha: algorithm={name} trains several models, and Trainer adds its noise to one; "
            "leave it out"
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


def check_launch(config: RunConfig, resolved: dict[str, Any], training: bool = True) -> None:
    """Raise `RequestError` for what the launcher or a package must do and cannot."""
    liger = training and config.trainer.get("use_liger_kernel")
    if liger and MODEL_KINDS[config.model.kind].role != "reader":  # before the advice to install its package
        raise RequestError("trainer.use_liger_kernel=true: Liger has kernels for language models, not for an encoder")
    check_packages(config.trainer if training else {}, dict(roles.model_nodes(resolved)))
    if not training:
        return
    for variable, name in (("ACCELERATE_USE_FSDP", "fsdp"), ("ACCELERATE_USE_DEEPSPEED", "deepspeed")):
        if os.environ.get(variable, "false").lower() in ("true", "1", "yes"):
            raise RequestError(f"accelerate launch was told to use {name}, which is not supported: {REFUSED[name]}")
    if config.trainer.get("ddp_backend") and not distributed.several():
        raise RequestError(
            "trainer.ddp_backend is for several processes and this run has one: leave it out, or torchrun"
        )


def check_frozen_models(config: RunConfig, trainer_class: Any) -> None:
    """Raise `RequestError` for a model that the run only reads or judges with, and that has not learnt to."""
    for model in roles.models_of(config, trainer_class):
        check = MODEL_KINDS[model.config.kind].check_frozen
        if check is not None and not model.trained:
            with roles.under_key(model.key):
                imported(check)(model.config)


def check_sources(resolved: dict[str, Any]) -> None:
    """Raise `RequestError` where a model that the run reads is not there, or is of another kind."""
    for key, model in roles.model_nodes(resolved):
        if model.get("path") is None:
            continue
        with roles.under_key(key):
            pretrained = model.get("init") != "random"
            source = sources.resolve(model["path"], model.get("revision"), weights=pretrained)
            if pretrained and not MODEL_KINDS[model["kind"]].any_architecture:
                sources.check_reads(source, model["kind"])
