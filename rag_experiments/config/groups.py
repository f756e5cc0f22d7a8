"""The config groups: where they lie, and what can be chosen of each. Imports neither torch nor Hydra."""

from __future__ import annotations

import re
from pathlib import Path

GROUPS = ("model", "algorithm", "data", "retriever", "trainer", "evaluation", "tracking", "sweep", "paths")
"""Top-level nodes of a configuration."""
TOP = ("seed", "name", "resume", "plan", "early_stopping")
"""Keys of a run that are in no group."""
OPTION_GROUPS = (
    "algorithm",
    "model",
    "data",
    "retriever",
    "trainer",
    "evaluation",
    "tracking",
    "experiment",
    "sweep",
)
"""Folders of `conf/`, of which an option is chosen with `group=option`; `--help` shows them in this order."""


_PLACE = re.compile(r"^ *- (?:override )?/?model@(?:_global_\.)?([\w.]+):", re.MULTILINE)


def conf_dir() -> Path:
    """The configuration tree: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def choices(group: str, folders: bool = False) -> list[str]:
    """The options of a config group that ship with the package, or the groups below it."""
    if folders:
        return sorted(entry.name for entry in (conf_dir() / group).glob("*/"))
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


def role_places() -> list[str]:
    """Places besides `model` where the presets choose a model: `retriever.encoder`, `algorithm.teacher`, …"""
    files = [conf_dir() / "config.yaml", *sorted((conf_dir() / "algorithm").glob("*.yaml"))]
    found = [_PLACE.findall(file.read_text(encoding="utf-8")) for file in files]
    return list(dict.fromkeys(place for places in found for place in places if place != "model"))


def preset_kinds() -> dict[str, str]:
    """Preset name to the kind of model it is, read from `conf/model/` without composing."""
    kinds = {}
    for file in sorted((conf_dir() / "model").glob("*.yaml")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("kind:"):
                kinds[file.stem] = line.split(":", 1)[1].split("#")[0].strip()
    return kinds
