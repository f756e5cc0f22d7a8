"""What a model's folder says of itself: its JSON files, ours among them. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_json

FACTS_FILE = "rag_experiments.json"
"""Written into every saved model: its kind and the settings that its weights were trained with."""

ADAPTER_CONFIG = "adapter_config.json"
"""Written by peft beside adapters."""


def write_facts(folder: Path, kind: str, config: Mapping[str, Any]) -> None:
    """Record beside the weights what the model is, so that it can be opened with nothing but its folder."""
    atomic_write_json(folder / FACTS_FILE, {"kind": kind, "config": dict(config)})


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What `write_facts` wrote, or `None` where the folder is not from a run of ours."""
    file = folder / FACTS_FILE
    if not file.is_file():
        return None
    facts = read_json(file)
    if "kind" not in facts:
        raise RequestError(f"{file}: has no 'kind'; it was not written by this program.")
    return facts


def read_json(file: Path) -> dict[str, Any]:
    """One JSON object from `file`. Raises `RequestError` when it is missing or is not one."""
    value = parse_json(file)
    if not isinstance(value, dict):
        raise RequestError(f"{file}: holds a {type(value).__name__} where a JSON object belongs.")
    return value


def parse_json(file: Path) -> Any:
    """What is in `file`. Raises `RequestError` when it is missing or is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{file}: no such file, so this is not a model's folder.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: not valid JSON ({error}).") from None


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds adapters and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_of_adapters(folder: Path) -> str:
    """Which model the adapters in `folder` go onto: what our facts say, else peft's own file."""
    facts = (read_facts(folder) or {}).get("config", {})
    base = facts.get("path") or read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base:
        raise RequestError(f"{folder}: its adapters do not say which model they go onto.")
    return str(base)
