"""What makes two runs the same, and how to find runs.

A run is identified by its `config_hash`, never by its name. Imports no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rag_experiments.core.digest import settled_digest
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory

NOT_IN_HASH = ("name", "tracking", "paths", "plan", "resume", "sweep", "hydra")
"""Top-level keys that do not change a run's figures."""

ADDED_KEYS: dict[str, dict[str, Any]] = {
    "rag_experiments.algorithms.ctl.CTLTrainer": {
        "negatives": "listed",
        "refresh_every": 0,
        "first_rank": 1,
        "last_rank": 50,
        "margin": 0.05,
        "margin_absolute": None,
        "guide_margin": 0.0,
        "teacher_loss": "kl",
        "teacher_weight": 1.0,
        "contrastive_weight": 1.0,
        "teacher_temperature": 1.0,
    },
    "encoder": {"lora": None},
    "cross_encoder": {"lora": None},
    "data": {"encoding": "utf-8"},
}
"""Keys that came after runs had been hashed, with their defaults, which change no figure: a run with those has the hash
that it had before. They are listed by the `_target_` of what has them, or by a model's `kind`, wherever it
stands; those of every data format by their group."""


def config_hash(resolved: dict[str, Any]) -> str:
    """A hash of 16 hexadecimal digits, equal for two configurations that give the same figures.

    `resolved` is the whole configuration as plain values. `1` and `1.0` give the same hash; the order of keys does not
    matter.
    """
    settings = _without_added({key: value for key, value in resolved.items() if key not in NOT_IN_HASH})
    if isinstance(settings.get("data"), dict):
        settings["data"] = _without(settings["data"], ADDED_KEYS["data"])
    text = json.dumps(_same_numbers(settings), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return settled_digest(text)[:16]


def _without_added(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    added = ADDED_KEYS.get(str(value.get("_target_") or value.get("kind")), {})
    return _without({key: _without_added(inner) for key, inner in value.items()}, added)


def _without(settings: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in added or value != added[key]}


def _same_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _same_numbers(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_same_numbers(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def find_runs(root: Path | str) -> Iterator[RunDirectory]:
    """Every run at or below `root`, in the order of their paths. Folders inside a run are not searched."""
    for folder, names, files in os.walk(root):
        if "status.json" in files or "status.json" in names:  # a folder with this name is a damaged run
            names.clear()
            yield RunDirectory(folder)
        else:
            names[:] = sorted(name for name in names if not name.startswith("."))


def newest_unfinished(outputs: Path | str, hash_: str) -> RunDirectory | None:
    """The interrupted or failed run below `outputs` that has this config hash and started last, or None."""
    unfinished_runs = []
    for run in find_runs(outputs):
        with suppress(RequestError):  # a broken status of another run must not stop this run
            status = run.read_status()
            if status.get("config_hash") == hash_ and run.state in ("interrupted", "failed"):
                unfinished_runs.append((str(status.get("started") or ""), str(run.path), run))
    return max(unfinished_runs, key=lambda item: item[:2])[2] if unfinished_runs else None
