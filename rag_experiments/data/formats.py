"""Which format is read by which file. A new one is a module with a config class and a `read`, and a line here."""

from __future__ import annotations

import importlib
from types import ModuleType

from rag_experiments.schema import DataConfig

FORMATS = {
    "jsonl": "rag_experiments.data.jsonl:JsonlConfig",
    "pydocs": "rag_experiments.data.pydocs:PydocsConfig",
}


def config_class(name: str) -> type[DataConfig]:
    """The dataclass of a format's configuration keys."""
    module, _, cls = FORMATS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def reader(name: str) -> ModuleType:
    """A format's module: `signature(config) -> str` (a hash of everything that decides the content) and
    `read(config) -> RawData`."""
    return importlib.import_module(FORMATS[name].partition(":")[0])
