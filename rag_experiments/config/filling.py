"""The defaults of the dataclasses, put into every configuration that Hydra composes.

A YAML in `conf/` holds what its option chooses; a key that it leaves out has the default of its dataclass. Filled in
here, that key is there for `--cfg job`, for `${algorithm.temperature}` in another value, for the first trial of a
search, and in a run's hash, whichever way the configuration was composed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from rag_experiments.config.data_formats import FORMATS, format_keys
from rag_experiments.config.field_sources import (
    REQUIRED,
    UNREAD,
    config_of,
    fields_of,
    place_of,
)
from rag_experiments.config.groups import TOP
from rag_experiments.config.kinds import MODEL_KINDS, RETRIEVER_KINDS
from rag_experiments.config.precedence import settle
from rag_experiments.config.schema import EvaluationConfig, PathsConfig, RunConfig, SweepConfig, TrackingConfig
from rag_experiments.config.source_modules import SourceError

FIXED = {"evaluation": EvaluationConfig, "tracking": TrackingConfig, "sweep": SweepConfig, "paths": PathsConfig}
"""Groups whose keys are those of one dataclass, whichever option is chosen."""


def top_keys() -> dict[str, Any]:
    """The keys outside any group, with their defaults; `???` where `conf/config.yaml` has the value."""
    return {
        field.name: "???" if field.default is REQUIRED else field.default
        for field in fields_of(place_of(RunConfig))
        if field.name in TOP
    }


def fill(composed: DictConfig) -> DictConfig:
    """`composed` itself, with every key of its groups that has a default.

    What names no kind, format or class that there is stays as it is: the checks say so. A model under `algorithm` has
    what its preset states and no more, which is also what a run's hash holds of it.
    """
    with flag_override(composed, ["struct", "readonly"], [False, False]):
        for key, place in _places(composed).items():
            node = OmegaConf.select(composed, key, throw_on_missing=False)
            if isinstance(node, DictConfig):
                with suppress(SourceError):  # a class from outside whose source cannot be read
                    _fill(node, place)
    return composed


def _places(composed: DictConfig) -> dict[str, str]:
    """Key of a node → the dataclass of its keys, as `module:Class`."""
    places = {group: place_of(cls) for group, cls in FIXED.items()}
    for key in ("model", "retriever.encoder", "retriever.reranker"):
        if (kind := MODEL_KINDS.get(_text(composed, f"{key}.kind"))) is not None:
            places[key] = place_of(kind.config)
    if (retriever := RETRIEVER_KINDS.get(_text(composed, "retriever.type"))) is not None:
        places["retriever"] = place_of(retriever.config)
    if (data_format := FORMATS.get(_text(composed, "data.format"))) is not None:
        places["data"] = data_format
    with suppress(SourceError):
        places["algorithm"] = config_of(_text(composed, "algorithm._target_"))
    return places


def _text(composed: DictConfig, key: str) -> str:
    """The text at `key`; empty where there is none, or none yet."""
    holder_key, _, name = key.rpartition(".")
    holder = composed._get_node(holder_key) if "." not in holder_key else OmegaConf.select(composed, holder_key)
    if not isinstance(holder, DictConfig) or holder._is_none() or holder._is_missing() or holder._is_interpolation():
        return ""
    node = holder._get_node(name)
    value = None if node is None else node._value()
    return value if isinstance(value, str) else ""


def _fill(node: DictConfig, place: str) -> None:
    """Fill in what is missing below `node`; its fields stand in the order of the class, whichever were given."""
    for field in fields_of(place):
        if field.is_model:
            continue
        if field.name not in node.keys():  # noqa: SIM118 - `in node` is false for a value that is missing, `???`
            if field.default not in (REQUIRED, UNREAD):
                node[field.name] = copy.deepcopy(field.default)
            continue
        child = node._get_node(field.name)
        del node[field.name]
        node[field.name] = child
        child = node._get_node(field.name)
        if not isinstance(child, DictConfig) or child._is_none() or child._is_interpolation():
            continue
        if field.inner:
            _fill(child, field.inner)
        elif isinstance(field.default, Mapping):
            for key, value in field.default.items():
                if key not in child.keys():  # noqa: SIM118
                    child[key] = value


def detect(composed: DictConfig) -> DictConfig:
    """`composed` itself, with `data=auto` as the format that its path holds.

    Raises:
        RequestError: it is not known what stands there, or it could be two things.
    """
    path = None
    if _text(composed, "data.format") == "auto":
        with suppress(OmegaConfBaseException):  # an interpolation without a value: the checks say so
            path = OmegaConf.select(composed, "data.path", throw_on_missing=False)
    if not isinstance(path, str) or not path:
        return composed
    keys = OmegaConf.to_container(composed.data, resolve=False)
    assert isinstance(keys, dict)
    settled = format_keys({**{str(name): value for name, value in keys.items()}, "path": path})
    with flag_override(composed, ["struct", "readonly"], [False, False]):
        composed.data = {**settled, "path": keys["path"]}
        choices = OmegaConf.select(composed, "hydra.runtime.choices", throw_on_missing=False)
        if isinstance(choices, DictConfig):
            with flag_override(choices, ["struct", "readonly"], [False, False]):
                choices.data = settled["format"]  # the run is named after what it reads
    return composed


def _has_path_alone(composed: DictConfig, overrides: list[str]) -> bool:
    """Whether `data.path` has a value, and nobody chose among the formats: that of the default reads no path."""
    if any(override.lstrip("+~").partition("=")[0] == "data" for override in overrides):
        return False
    return _text(composed, "data.format") == "pydocs" and bool(_text(composed, "data.path"))


@dataclass(frozen=True)
class Composed:
    """A configuration that was composed already, and the overrides that compose to it."""

    overrides: list[str]
    config: DictConfig


_AT_HAND: ContextVar[Composed | None] = ContextVar("composed already", default=None)


def in_directory(composed: DictConfig, overrides: list[str], directory: str) -> Composed | None:
    """What `overrides` compose to: `composed` with the directory of the run; None where only Hydra can say.

    Args:
        composed: what `command_line.compose` returned, without a `config_dir`.
        overrides: as it was composed of, and last `hydra.run.dir=<directory>`.
    """
    from hydra.types import RunMode

    mode = composed.hydra.mode
    if mode not in (None, RunMode.RUN):
        return None
    config = copy.deepcopy(composed)
    OmegaConf.set_readonly(config.hydra, False)
    own = [words for words in config.hydra.overrides.hydra if not words.startswith("hydra.run.dir=")]
    # Hydra composes once to look for a mode, and adds one where there is none.
    config.hydra.overrides.hydra = [*own, overrides[-1], *(["hydra.mode=RUN"] if mode is None else [])]
    config.hydra.run.dir, config.hydra.mode = directory, RunMode.RUN
    return Composed(overrides, config)


@contextmanager
def at_hand(composed: Composed | None) -> Iterator[None]:
    """Inside, Hydra gets a copy of `composed` where it would compose the same overrides: twice for a run."""
    token = _AT_HAND.set(composed)
    try:
        yield
    finally:
        _AT_HAND.reset(token)


def install() -> None:
    """Let Hydra fill in the defaults wherever it composes: for a run, each job of a sweep, and `--cfg`.

    Hydra has no hook between composing a configuration and resolving `hydra.run.dir` and `hydra.sweep.dir` in it.
    """
    from hydra._internal import hydra as entry
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    class FillingLoader(ConfigLoaderImpl):
        """Hydra's loader, then `settle`, `detect` and `fill`; or what is `at_hand`."""

        def load_configuration(
            self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
        ) -> DictConfig:
            known = _AT_HAND.get()
            if known is not None and list(overrides) == known.overrides:
                return copy.deepcopy(known.config)
            composed = super().load_configuration(config_name, overrides, *args, **kwargs)
            if _has_path_alone(composed, overrides):
                composed = super().load_configuration(config_name, [*overrides, "data=auto"], *args, **kwargs)
            return fill(detect(settle(composed)))

    entry.ConfigLoaderImpl = FillingLoader  # type: ignore[misc]
