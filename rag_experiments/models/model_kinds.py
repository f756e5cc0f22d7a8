"""A model configuration → the component it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import PartialState

from rag_experiments.config.schema import EncoderConfig, ReaderConfig


def load_model(config: EncoderConfig | ReaderConfig, cache: Path) -> Any:
    """An `Encoder`, a `Reader`, or a `FidReader` where `config.fid` is set."""
    if isinstance(config, EncoderConfig):
        from rag_experiments.models.encoder.encoder import Encoder

        return Encoder.load(config, PartialState().device)
    if config.fid is not None:
        from rag_experiments.models.fid.fid_reader import FidReader

        return FidReader.load(config, cache)
    from rag_experiments.models.reader.reader import Reader

    return Reader.load(config, cache)
