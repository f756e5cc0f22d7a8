"""The config groups: where they lie, and what can be chosen of each. Imports neither torch nor Hydra."""

from __future__ import annotations

import re
from pathlib import Path

from rag_experiments.core.errors import RequestError, did_you_mean

GROUPS = ("model", "algorithm", "data", "retriever", "trainer", "evaluation", "tracking", "sweep", "paths")
"""Top-level nodes of a configuration."""
TOP = ("seed", "name", "resume", "plan", "refit", "keep", "early_stopping")
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


def option_files(group: str, config_dir: str | None = None) -> list[Path]:
    """The files of a group's options, sorted by name: the package's, where one's own folder has another of its name.

    Raises:
        RequestError: `config_dir` is no directory.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise RequestError(f"--config-dir {config_dir}: there is no such directory")
    folders = [conf_dir(), *([Path(config_dir)] if config_dir is not None else [])]
    file_by_name = {file.stem: file for folder in reversed(folders) for file in (folder / group).glob("*.yaml")}
    return [file_by_name[name] for name in sorted(file_by_name)]


def option_file(group: str, option: str, config_dir: str | None = None) -> Path:
    """The file of `group=option`.

    Raises:
        RequestError: there is no such option.
    """
    file_by_name = {file.stem: file for file in option_files(group, config_dir)}
    if option not in file_by_name:
        raise RequestError(f"{group}={option} is not one of the {group} options{did_you_mean(option, file_by_name)}")
    return file_by_name[option]


def comments(file: Path) -> list[str]:
    """The comment lines of a YAML that stand alone, without the package directive."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.lstrip("# ").strip() for line in lines if line.startswith("#") and "@package" not in line]


def first_comment(file: Path) -> str:
    """What an option is, by its file."""
    return next(iter(comments(file)), "")


def role_places() -> list[str]:
    """Places besides `model` where the presets choose a model: `retriever.encoder`, `algorithm.teacher`, …"""
    files = [conf_dir() / "config.yaml", *sorted((conf_dir() / "algorithm").glob("*.yaml"))]
    matches = [_PLACE.findall(file.read_text(encoding="utf-8")) for file in files]
    return list(dict.fromkeys(place for places in matches for place in places if place != "model"))


def preset_kinds() -> dict[str, str]:
    """Preset name to the kind of model it is, read from `conf/model/` without composing.

    Those whose weights a package ships come first: they work at once.
    """
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted((conf_dir() / "model").glob("*.yaml"))}
    kinds = {}
    for name in sorted(texts, key=lambda name: "\npath: package://" not in texts[name]):
        if (line := re.search(r"^kind:([^#\n]*)", texts[name], re.MULTILINE)) is not None:
            kinds[name] = line[1].strip()
    return kinds


def without_head() -> set[str]:
    """The presets of rerankers that are an encoder's weights below a new head: they are of no use before training.

    They name a model that is an encoder by another preset.
    """
    kinds, paths = preset_kinds(), {}
    for name in kinds:
        text = option_file("model", name).read_text(encoding="utf-8")
        paths[name] = match[1] if (match := re.search(r"^path:\s*([^#\s]+)", text, re.MULTILINE)) else None
    encoders = {paths[name] for name, kind in kinds.items() if kind == "encoder"}
    return {name for name, kind in kinds.items() if kind == "cross_encoder" and paths[name] in encoders}
