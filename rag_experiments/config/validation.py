"""Values against the dataclass that they are meant for: the first that is wrong is named, with what would be right.

Pydantic checks types and ranges; unknown keys are looked for before, at any depth, so that the nearest right name can
be said.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rag_experiments.config import schema
from rag_experiments.config.groups import preset_kinds
from rag_experiments.config.kinds import MODEL_KINDS
from rag_experiments.core.errors import RequestError, did_you_mean, first_of, with_article


def check_values(cls: type, values: Any, key: str, already: dict[str, Any] | None = None) -> Any:
    """`values` as an instance of dataclass `cls`; `already` holds fields that are checked.

    Raises:
        RequestError: an unknown key, a wrong type, a value out of range, named under `key`.
    """
    already = already or {}
    refuse_unknown(cls, {name: value for name, value in values.items() if name not in already}, key)
    values = {**values, **already, **_models_by_kind(cls, values, key)}
    try:
        return TypeAdapter(cls, config=None).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in _location(first["loc"], values))
        full = ".".join(part for part in (key, where) if part)
        if first["type"] == "missing":
            raise RequestError(f"{full} has no value: set {full}=…") from error
        reason = first["msg"].removeprefix("Value error, ")
        shown = "" if first["type"] == "value_error" and not where else f"={first['input']!r}"
        raise RequestError(f"{full}{shown}: {reason[0].lower()}{reason[1:]}") from error


def refuse_unknown(cls: type, values: Any, key: str) -> None:
    """Raise `RequestError` for the first key, at any depth, that dataclass `cls` has no field for."""
    if not (dataclasses.is_dataclass(cls) and isinstance(values, dict)):
        return
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for name, value in values.items():
        full = f"{key}.{name}" if key else str(name)
        if name not in names:
            raise RequestError(f"{full} is an unknown key{did_you_mean(str(name), names)}")
        inner: list[Any] = [member for member in _members(hints[name]) if dataclasses.is_dataclass(member)]
        _refuse_other_kind(inner, value, full)
        if len(inner) > 1:
            inner = [member for member in inner if member is _of_kind(inner, value)]
        if inner:
            refuse_unknown(inner[0], value, full)


def _models_by_kind(cls: type, values: dict[str, Any], key: str) -> dict[str, Any]:
    """The models whose field takes several kinds, each checked as what it is: an error is about its own keys."""
    models = {}
    for name, hint in get_type_hints(cls).items():
        classes = [member for member in _members(hint) if dataclasses.is_dataclass(member)]
        own = _of_kind(classes, values.get(name)) if len(classes) > 1 else None
        if own is not None:
            models[name] = check_values(own, values[name], f"{key}.{name}" if key else name)
    return models


def _of_kind(classes: Sequence[Any], value: Any) -> Any:
    """The one of `classes` that the model's kind says, or None."""
    kind = MODEL_KINDS.get(str(value.get("kind"))) if isinstance(value, dict) else None
    return next((cls for cls in classes if kind is not None and issubclass(kind.config, cls)), None)


def refuse_keys_of_other_kinds(node: dict[str, Any]) -> None:
    """Raise `RequestError` where the model has a key that only models of another kind have."""
    own = MODEL_KINDS[node["kind"]].config
    for name in node:
        owners = [kind.name for kind in MODEL_KINDS.values() if name in _field_names(kind.config)]
        if owners and name not in _field_names(own):
            fitting = [preset for preset, kind in preset_kinds().items() if kind in owners]
            raise RequestError(
                f"model.{name} is a key of {with_article(' or '.join(owners))}, but model.path={node.get('path')} is "
                f"{with_article(node['kind'])}: choose model={first_of(fitting, '|', '--help model')}"
            )


def _refuse_other_kind(classes: Sequence[Any], value: Any, key: str) -> None:
    """Raise `RequestError` for a second model of a kind that cannot stand at `key`, before its keys look unknown."""
    if not classes or not all(issubclass(cls, schema.ModelConfig) for cls in classes):
        return
    if isinstance(value, str):
        raise RequestError(f"{key}={value!r}: a model is chosen with model@{key}={value}, its keys are {key}.<key>=…")
    if not (isinstance(value, dict) and value.get("kind") in MODEL_KINDS):
        return
    if _of_kind(classes, value) is None:
        kinds = [kind.name for kind in MODEL_KINDS.values() if issubclass(kind.config, tuple(classes))]
        fitting = [name for name, kind in preset_kinds().items() if kind in kinds]
        raise RequestError(
            f"{key} must be {with_article(' or '.join(kinds))}, but {value.get('path')} is "
            f"{with_article(value['kind'])}: choose model@{key}={first_of(fitting, '|', '--help model')}"
        )


def _location(loc: tuple[Any, ...], values: Any) -> list[Any]:
    """The keys of a pydantic location without the names of union members."""
    keys: list[Any] = []
    for part in loc:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            values = values[part]
        elif keys:
            continue
        keys.append(part)
    return keys


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _field_names(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}
