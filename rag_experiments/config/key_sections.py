"""Every key of a configuration with its type, default and meaning: for `--help <group>` and docs/manual/keys.md.

All of it is read from the docstrings under the fields of the dataclasses, and for `trainer` from the comments in
`conf/trainer/`. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rag_experiments.config import schema
from rag_experiments.config.data_formats import FORMATS, config_class, registered_format
from rag_experiments.config.field_sources import (
    REQUIRED,
    UNREAD,
    ConfigField,
    class_doc,
    config_of,
    fields_of,
    place_of,
)
from rag_experiments.config.filling import FIXED
from rag_experiments.config.groups import TOP, option_file, option_files
from rag_experiments.config.kinds import MODEL_KINDS, model_kind, retriever_kind
from rag_experiments.config.source_modules import SourceError
from rag_experiments.core.errors import RequestError


@dataclass(frozen=True)
class Key:
    """One key as it is typed, with what is said of it."""

    name: str
    type: str
    default: str
    """As YAML writes it; empty where a value must be given or the source does not say it."""
    doc: str


@dataclass(frozen=True)
class Section:
    """Keys that stand together: those of a dataclass."""

    title: str
    intro: str
    keys: list[Key] = field(default_factory=list)


def sections(group: str, config_dir: str | None = None) -> list[Section]:
    """The keys of a group: those of all its options first, then those of each.

    Raises:
        RequestError: an option of one's own names a class that is not there.
    """
    match group:
        case "model":
            return _model_sections()
        case "data":
            own = [_own_keys(name, place) for name, place in FORMATS.items()]
            outside = [_data_option(file) for file in option_files(group, config_dir) if _is_outside(file)]
            return [_section("Every format", "data", place_of(schema.DataConfig)), *own, *outside]
        case "algorithm":
            return [option_section(group, file.stem, config_dir) for file in option_files(group, config_dir)]
        case "retriever":
            outside = [
                option_section(group, file.stem, config_dir)
                for file in option_files(group, config_dir)
                if _is_outside(file)
            ]
            return [_section("", group, place_of(schema.RetrieverConfig)), *outside]
    return [_section("", group, place_of(FIXED[group]))] if group in FIXED else []


def option_section(group: str, option: str, config_dir: str | None = None) -> Section:
    """The keys that a run with `group=option` has in this group.

    Raises:
        RequestError: the option names a class that is not there.
    """
    title = f"{group}={option}"
    node = stated(option_file(group, option, config_dir), group)
    match group:
        case "algorithm":
            target = str(node.get("_target_"))
            try:
                return _section(title, group, config_of(target))
            except SourceError as error:
                raise RequestError(f"algorithm={option}: its keys cannot be read: {error}") from error
        case "model":
            if node.get("kind") == "auto":
                return Section(title, "", _model_sections()[0].keys)
            return _section(title, group, place_of(model_kind(dict(node), group).config))
        case "data":
            return _section(title, group, place_of(config_class(registered_format(dict(node)))))
        case "retriever":
            return _section(title, group, place_of(retriever_kind(dict(node)).config))
    # An option of `sweep` is a search space: it has no keys of the group.
    return _section(title, group, place_of(FIXED[group])) if group in FIXED and group != "sweep" else Section(title, "")


def top_section() -> Section:
    """The keys that are in no group."""
    everything = _section("Keys of a run", "", place_of(schema.RunConfig))
    return Section(everything.title, "", [key for key in everything.keys if key.name in TOP])


def stated_trainer_keys() -> list[Key]:
    """The fields of TrainingArguments that an option of `trainer` sets, with the comment beside the first of them."""
    key_by_name: dict[str, Key] = {}
    for file in sorted(option_files("trainer"), key=lambda file: file.stem != "default"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if match := re.match(r"(\w+): (.*?) *# (.+)$", line):
                name, value, comment = match.groups()
                first = Key(f"trainer.{name}", "", f"{value} with trainer={file.stem}", comment)
                key_by_name.setdefault(name, first)
    return list(key_by_name.values())


def all_sections() -> Iterator[tuple[str, list[Section]]]:
    """Group → its sections, the keys outside any group under the empty name."""
    yield "", [top_section()]
    for group in ("algorithm", "model", "data", "retriever", "evaluation", "tracking", "sweep", "paths"):
        yield group, sections(group)


def stated(file: Path, group: str) -> dict[str, Any]:
    """What an option's file states of its own group.

    Raises:
        RequestError: the file cannot be read.
    """
    node: Any = stated_by_place(file, group)
    for part in group.split("/"):
        node = node.get(part, {}) if isinstance(node, dict) else {}
    return node if isinstance(node, dict) else {}


def stated_by_place(file: Path, group: str) -> dict[str, Any]:
    """Everything that an option's file states, by its place in the configuration.

    Raises:
        RequestError: the file cannot be read.
    """
    text = file.read_text(encoding="utf-8")
    try:
        content: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise RequestError(f"{file}: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{file} holds no keys and values")
    content.pop("defaults", None)
    if "@package _global_" not in text:
        for part in reversed(group.split("/")):
            content = {part: content}
    return content


def _is_outside(file: Path) -> bool:
    """Whether an option names its class itself: one of a package from outside."""
    return "_target_" in stated(file, file.parent.name)


def _model_sections() -> list[Section]:
    shared = _section("Every model", "model", place_of(schema.ModelConfig))
    by_config: dict[type, list[str]] = {}
    for kind in MODEL_KINDS.values():
        by_config.setdefault(kind.config, []).append(kind.name)
    return [shared, *(_less(cls, " and ".join(names)) for cls, names in by_config.items())]


def _less(cls: type, names: str) -> Section:
    """The keys that a kind of model adds."""
    whole = _section(f"model.kind={names}", "model", place_of(cls))
    shared_keys = {f"model.{field.name}" for field in fields_of(place_of(schema.ModelConfig))}
    return Section(whole.title, whole.intro, [key for key in whole.keys if key.name not in shared_keys])


def _own_keys(name: str, place: str) -> Section:
    """The keys that a data format adds."""
    whole = _section(f"data={name}", "data", place)
    shared_keys = {f"data.{field.name}" for field in fields_of(place_of(schema.DataConfig))}
    return Section(whole.title, whole.intro, [key for key in whole.keys if key.name not in shared_keys])


def _data_option(file: Path) -> Section:
    name = registered_format(dict(stated(file, "data")))
    return _own_keys(file.stem, FORMATS[name])


def _section(title: str, prefix: str, place: str) -> Section:
    return Section(title, class_doc(place), list(_keys(prefix, place)))


def _keys(prefix: str, place: str) -> Iterator[Key]:
    for one in fields_of(place):
        name = f"{prefix}.{one.name}" if prefix else one.name
        yield Key(name, one.type, _shown(one), one.doc)
        if one.inner and not one.is_model and prefix:
            yield from _keys(name, one.inner)


def _shown(one: ConfigField) -> str:
    """A default as YAML writes it."""
    if one.default is REQUIRED or one.default is UNREAD:
        return ""
    if one.inner and isinstance(one.default, dict):
        return "those below"
    return as_yaml(one.default)


def as_yaml(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value == "":
        return '""'
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("\n...\n").strip()
