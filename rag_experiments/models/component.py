"""What a run asks of a model, of whatever kind, and how one is opened from its configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from rag_experiments.config.kinds import MODEL_KINDS, imported
from rag_experiments.config.schema import CrossEncoderConfig, EncoderConfig, ModelConfig, ReaderConfig


class Component(Protocol):
    """A model in memory, with everything that decides what it computes.

    Whoever adds a kind of model implements this. An encoder has `embed_passages`, `embed_queries` and `similarity`
    besides (`Encoder`), a reranker `score` (`CrossEncoder`), a reader `answer` (`Reader`).
    """

    config: Any

    @property
    def module(self) -> nn.Module:
        """What the optimiser trains."""

    def save(self, folder: Path) -> None:
        """Write the model into `folder` so that its kind opens it again."""

    def load_weights(self, folder: Path) -> None:
        """Take the weights of a folder that `save` wrote, in place."""

    def fingerprint(self) -> str:
        """A hash of the weights and of all else that decides what the model computes."""


def load_model(config: ModelConfig, cache: Path | None, frozen: bool = False) -> Any:
    """The `Component` that `config` describes.

    Args:
        cache: the folder of all runs' caches, for weights that are converted once.
        frozen: nothing will be trained: weights may be kept in the precision they compute in.

    Raises:
        RequestError: a source that is missing, unreadable, or of another kind.
    """
    return imported(MODEL_KINDS[config.kind].load)(config, cache, frozen)


def load_encoder(config: EncoderConfig, cache: Path | None, frozen: bool = False) -> Any:
    """An `Encoder`, on accelerate's device."""
    from rag_experiments.models.encoder.encoder import Encoder

    return Encoder.load(config, frozen=frozen)


def load_cross_encoder(config: CrossEncoderConfig, cache: Path | None, frozen: bool = False) -> Any:
    """A `CrossEncoder`, on accelerate's device."""
    from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder

    return CrossEncoder.load(config, frozen)


def check_frozen_cross_encoder(config: CrossEncoderConfig) -> None:
    """Raise `RequestError` for a folder whose reranker has not learnt to score; one on the hub is seen when opened."""
    from rag_experiments.model_files.metadata import is_adapter
    from rag_experiments.model_files.sources import resolve
    from rag_experiments.models.cross_encoder import cross_encoder_files as files
    from rag_experiments.models.shared.adapter_folder import goes_on
    from rag_experiments.models.sizes import architecture_of

    folder = resolve(config.path, config.revision, weights=config.init == "pretrained").local
    found = architecture_of(config) if folder is not None else None
    if folder is None or found is None:
        return
    form = files.form_of(config, files.folder_facts(folder) if config.architecture is None else {}, found)
    adapters = is_adapter(folder) and goes_on(folder, config.kind)
    files.check_learnt(dataclasses.replace(config, form=form), found, adapters)


def load_reader(config: ReaderConfig, cache: Path | None, frozen: bool = False) -> Any:
    """A `Reader`, or a `FidReader` where `config.fid` is set."""
    if config.fid is not None:
        from rag_experiments.models.fid.fid_reader import FidReader

        return FidReader.load(config, cache, frozen=frozen)
    from rag_experiments.models.reader.reader import Reader

    return Reader.load(config, cache, frozen=frozen)
