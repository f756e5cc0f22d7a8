"""The models of a run by their roles: where each stands in the configuration, and which of them learn. No torch.

A run's models are `model`, the fields of a model type in the algorithm's Config (a field's name is the role), and the
retriever's own encoder and reranker. An algorithm's `trains` names the roles that learn. One of them is not a field of
its Config: that is the role of `model`.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from rag_experiments.config.kinds import RETRIEVER_KINDS
from rag_experiments.config.schema import ModelConfig, RunConfig
from rag_experiments.core.errors import RequestError

MODEL_KEY = "model"
RETRIEVER_KEY = "retriever.encoder"
RERANKER_KEY = "retriever.reranker"


@dataclass(frozen=True)
class RoleModel:
    """A model of a run: its role, the key that it stands under, its settings, and whether it learns."""

    role: str
    key: str
    config: ModelConfig
    trained: bool


def model_types(hint: Any) -> list[type[ModelConfig]]:
    """The model configurations among the members of a field's type."""
    members = get_args(hint) if get_origin(hint) in (typing.Union, UnionType) else (hint,)
    return [member for member in members if isinstance(member, type) and issubclass(member, ModelConfig)]


def config_roles(config_class: type) -> dict[str, list[type[ModelConfig]]]:
    """Role → its model types, of the fields of an algorithm's Config."""
    if not dataclasses.is_dataclass(config_class):
        return {}
    types_by_role = {name: model_types(hint) for name, hint in get_type_hints(config_class).items()}
    return {name: types for name, types in types_by_role.items() if types}


def trained_roles(trainer_class: Any) -> frozenset[str]:
    """The roles that an algorithm trains."""
    trains = trainer_class.trains
    return frozenset({trains} if isinstance(trains, str) else trains)


def primary_role(trainer_class: Any) -> str:
    """The role of `model`: the one trained role that is no field of the algorithm's Config.

    Raises:
        TypeError: there is none, or more than one: the algorithm's class is written wrong.
    """
    own = trained_roles(trainer_class) - set(config_roles(trainer_class.Config))
    if len(own) != 1:
        raise TypeError(
            f"{trainer_class.__name__}.trains={sorted(trained_roles(trainer_class))}: exactly one of these roles must "
            f"be no field of {trainer_class.Config.__name__}, and that one is the role of `model`"
        )
    return next(iter(own))


def models_of(config: RunConfig, trainer_class: Any) -> list[RoleModel]:
    """Every model that a checked run opens, `model` first."""
    trained = trained_roles(trainer_class)
    models = [RoleModel(primary_role(trainer_class), MODEL_KEY, config.model, True)]
    for role in config_roles(type(config.algorithm)):
        model = getattr(config.algorithm, role)
        if model is not None:
            models.append(RoleModel(role, f"algorithm.{role}", model, role in trained))
    if config.retriever.encoder is not None and RETRIEVER_KINDS[config.retriever.type].needs_encoder:
        models.append(RoleModel("retriever", RETRIEVER_KEY, config.retriever.encoder, False))
    if config.retriever.reranker is not None:
        models.append(RoleModel("reranker", RERANKER_KEY, config.retriever.reranker, False))
    return models


def model_nodes(resolved: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(key, its values)` of every model in a configuration of plain values, before any class is imported.

    A model is known by its `kind` or `_target_` beside a `path`.
    """
    yield MODEL_KEY, resolved[MODEL_KEY]
    for group in ("algorithm", "retriever"):
        for name, value in resolved.get(group, {}).items():
            if isinstance(value, dict) and "path" in value and ("kind" in value or "_target_" in value):
                yield f"{group}.{name}", value


@contextmanager
def under_key(key: str) -> Iterator[None]:
    """Within, an error about `model.path` or `model.revision` names the key of this role's model instead."""
    try:
        yield
    except RequestError as error:
        if key == MODEL_KEY:
            raise
        raise RequestError(re.sub(r"\bmodel\.(?=[a-z])", f"{key}.", str(error))) from error
