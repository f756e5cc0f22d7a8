"""Which formats there are, and how one plugs in.

A format is a module with the three things below. To add one to the package, write the module, a line in `FORMATS` and
a YAML in `conf/data/`. A format from outside the package needs the module and a YAML that names its class:
`_target_: my_package.my_format.XConfig`.

    class XConfig(DataConfig)                       its keys
    fingerprint(config) -> str                      changes whenever what it reads changes
    read(config, intake: Intake) -> None            hands every passage and question to the intake

`read` reports a bad row by `intake.problem(where, reason)`, or by raising `BadRow` inside `with intake.row(where):`,
and goes on. The intake decides whether the problem stops the command.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from rag_experiments.config.kinds import import_target
from rag_experiments.config.schema import DataConfig
from rag_experiments.core.errors import RequestError, did_you_mean

FORMATS = {
    "auto": "rag_experiments.data.formats.detection:AutoConfig",
    "beir": "rag_experiments.data.formats.beir:BeirConfig",
    "documents": "rag_experiments.data.formats.documents:DocumentsConfig",
    "dpr": "rag_experiments.data.formats.dpr:DprConfig",
    "hub": "rag_experiments.data.formats.hub:HubConfig",
    "jsonl": "rag_experiments.data.formats.jsonl:JsonlConfig",
    "keyvalue": "rag_experiments.data.formats.keyvalue:KeyvalueConfig",
    "localrqa": "rag_experiments.data.formats.localrqa:LocalrqaConfig",
    "pydocs": "rag_experiments.data.formats.pydocs:PydocsConfig",
    "tevatron": "rag_experiments.data.formats.tevatron:TevatronConfig",
}


def registered_format(node: dict[str, Any]) -> str:
    """The name of the format whose keys are `node`. A format given by `_target_` is added to `FORMATS` first.

    Raises:
        RequestError: there is no such format, or `_target_` names something else.
    """
    if "_target_" in node:
        target = str(node.pop("_target_"))
        format_class = import_target(
            target, "data._target_", "the configuration class of a format, such as my_format.XConfig"
        )
        if not (isinstance(format_class, type) and issubclass(format_class, DataConfig)):
            raise RequestError(f"data._target_={target} is not a subclass of rag_experiments.config.schema.DataConfig")
        name = str(getattr(format_class, "format", ""))
        place = f"{format_class.__module__}:{format_class.__name__}"
        if FORMATS.setdefault(name, place) != place:
            raise RequestError(f"data._target_={target}: another format has the name {name!r}")
        node.setdefault("format", name)
    name = str(node.get("format"))
    if name not in FORMATS:
        raise RequestError(f"data.format={name!r} is unknown{did_you_mean(name, FORMATS)}")
    return name


def config_class(name: str) -> type[DataConfig]:
    """The dataclass of a format's configuration keys. Raises `RequestError` for an unknown format."""
    module, _, cls = _entry(name).partition(":")
    return getattr(importlib.import_module(module), cls)


def reader(name: str) -> ModuleType:
    """A format's module, with `fingerprint` and `read`. Raises `RequestError` for an unknown format."""
    return importlib.import_module(_entry(name).partition(":")[0])


def format_keys(keys: dict[str, Any]) -> dict[str, Any]:
    """The keys of `data=auto` as those of the format that its path holds.

    Raises:
        RequestError: it is not known what stands there, or it could be two things.
    """
    settled: dict[str, Any] = reader("auto").format_keys(keys)
    return settled


def _entry(name: str) -> str:
    if name not in FORMATS:
        raise RequestError(f"data.format={name!r} is unknown{did_you_mean(name, FORMATS)}")
    return FORMATS[name]
