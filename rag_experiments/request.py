"""A composed configuration → a request that is known to be sound, before any weight is read.

The order is the order of cost: what needs no torch first, then the data, then the algorithm's module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rag_experiments import runs
from rag_experiments.config import check_algorithm, check_common
from rag_experiments.data.load import RagData, check_needs, load_data
from rag_experiments.errors import RequestError
from rag_experiments.models import source
from rag_experiments.schema import RunConfig


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
    check_sources(config, resolved)
    data = load_data(config.data, cache_dir(config))
    check_sizes(config, data)
    trainer_class = check_algorithm(config)
    check_needs(data, trainer_class.needs, config.algorithm.name)
    check_training_arguments(config)
    return Request(
        config=config,
        resolved=resolved,
        config_hash=runs.config_hash(resolved),
        trainer_class=trainer_class,
        data=data,
    )


def check_sizes(config: RunConfig, data: RagData) -> None:
    """Raise `RequestError` where the data is too small for what is asked of it."""
    corpus = len(data.passages)
    if config.retriever.k > corpus:
        raise RequestError(f"retriever.k={config.retriever.k} is larger than the corpus, which has {corpus} passages")
    for split in ("train", *config.evaluation.splits):
        if not data.splits.get(split):
            raise RequestError(f"data.path={config.data.path}: the {split} split has no questions")


def check_training_arguments(config: RunConfig) -> None:
    """Let `TrainingArguments` refuse what contradicts itself, as a `RequestError`."""
    from rag_experiments.build import training_arguments

    try:
        training_arguments(config, Path("checkpoints"))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise RequestError(f"trainer: {str(error).splitlines()[0]}") from error


def check_sources(config: RunConfig, resolved: dict[str, Any]) -> None:
    """Raise `RequestError` where a model that the run reads is not there."""
    models: list[tuple[str, dict[str, Any] | None]] = [
        ("model", resolved["model"]),
        ("retriever.encoder", resolved["retriever"].get("encoder")),
        ("algorithm.teacher", resolved["algorithm"].get("teacher")),
    ]
    for key, model in models:
        if model is None or model.get("path") is None:
            continue
        try:
            source.resolve(model["path"], model.get("revision"), weights=model.get("init") != "random")
        except RequestError as error:
            raise RequestError(str(error).replace("model.path", f"{key}.path", 1)) from error
