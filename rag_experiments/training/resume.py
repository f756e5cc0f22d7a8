"""`resume=<run directory>` and `resume=auto`: the command line of the run that is to go on.

`resume=DIR` alone replays the overrides that `.hydra/` stored when the run first started; further
overrides may only touch what cannot change the result. Hydra's own means would overwrite
`.hydra/overrides.yaml`, so here it is told to write none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rag_experiments.config import command_line
from rag_experiments.config.data_formats import FORMATS
from rag_experiments.config.field_sources import defaults_of
from rag_experiments.config.overrides import of_value, prepare, quote, split_override, typed
from rag_experiments.core.bounded_files import read_yaml
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import config_hash, newest_unfinished

log = logging.getLogger(__name__)


EARLIER_LENGTH = "model.max_new_tokens=32"
"""The default before training answers settled it: a run that began with it goes on with it."""


@dataclass
class CommandPlan:
    """The overrides to run with, and the directory that is continued (None: a fresh run)."""

    overrides: list[str]
    config_dir: str | None
    directory: Path | None

    @property
    def arguments(self) -> list[str]:
        """As Hydra's command line takes them."""
        return [*(["--config-dir", self.config_dir] if self.config_dir else []), *prepare(self.overrides)]


def asked_for(overrides: list[str]) -> str | None:
    """The value of `resume=…`, or None."""
    values = [value for key, value in map(split_override, overrides) if key == "resume"]
    return values[-1] if values else None


def resolve(overrides: list[str], config_dir: str | None) -> CommandPlan:
    """What to run for these overrides.

    Raises:
        RequestError: no such run, a finished one, or an override that would change its result.
    """
    target = asked_for(overrides) or "null"
    other_overrides = [value for value in overrides if value.partition("=")[0] != "resume"]
    if target in ("null", "", "None"):
        return CommandPlan(other_overrides, config_dir, None)
    if target == "auto":
        return _newest(other_overrides, config_dir)
    return _replayed(Path(target), other_overrides, config_dir)


def _newest(overrides: list[str], config_dir: str | None) -> CommandPlan:
    composed = command_line.compose(overrides, config_dir)
    with command_line.translated_errors():
        outputs = Path(composed.paths.outputs)
    run = newest_unfinished(outputs, composed_hash(composed))
    if run is None:
        log.info("resume=auto: no unfinished run of this configuration under %s; starting a new one", outputs)
        return CommandPlan(overrides, config_dir, None)
    directory = run.path
    log.info("resume=auto: continuing %s", directory)
    return CommandPlan(_into(directory, [*overrides, "resume=auto"]), config_dir, directory)


def _replayed(directory: Path, overrides: list[str], config_dir: str | None) -> CommandPlan:
    if not (directory / "status.json").is_file():
        raise RequestError(f"resume={directory}: there is no run there (no status.json)")
    status = RunDirectory.open(directory).read_status()
    if status.get("state") == "completed":
        raise RequestError(
            f"resume={directory}: that run is completed; evaluate it with python -m rag_experiments.evaluate "
            f"{typed('run', str(directory))}, or start a new one with model=run "
            f"{typed('model.path', f'run://{directory}')}"
        )
    stored = stored_overrides(directory)
    config_dir = config_dir or stored_config_dir(directory)
    first = composed_hash(command_line.compose(stored, config_dir))
    if status.get("config_hash") not in (None, first):
        with suppress(RequestError):  # a run without a reader has no such key
            earlier = composed_hash(command_line.compose([*stored, EARLIER_LENGTH], config_dir))
            if status["config_hash"] == earlier:
                stored, first = [*stored, EARLIER_LENGTH], earlier
    if status.get("config_hash") not in (None, first):
        raise RequestError(f"resume={directory}: its overrides no longer compose to the configuration it began with")
    for override in overrides:
        if composed_hash(command_line.compose([*stored, override], config_dir)) != first:
            key = override.lstrip("+~").partition("=")[0]
            raise RequestError(
                f"resume={directory}: {key} would change the result of a run that has begun: leave it out"
            )
    return CommandPlan(
        _into(directory, [*stored, *overrides, f"resume={quote(str(directory))}"]), config_dir, directory
    )


def _into(directory: Path, overrides: list[str]) -> list[str]:
    other_overrides = [
        value for value in overrides if not value.startswith(("hydra.run.dir=", "hydra.sweep.", "hydra/launcher"))
    ]
    return [*other_overrides, f"hydra.run.dir={quote(str(directory))}", "hydra.output_subdir=null"]


def composed_hash(composed: Any) -> str:
    """The hash that says two runs are the same, from a composed configuration."""
    from rag_experiments.training.checks import check_common

    return config_hash(check_common(composed)[1])


def stored_overrides(directory: Path, *, settled: bool = True) -> list[str]:
    """The overrides a run was started with; `settled` has what `data=auto` found then in its place.

    Raises:
        RequestError: its `.hydra/` is missing.
    """
    file = directory / ".hydra" / "overrides.yaml"
    if not file.is_file():
        raise RequestError(f"{directory} has no .hydra/overrides.yaml: it is no run directory, or not a whole one")
    stored = [str(value) for value in OmegaConf.load(file)]
    return _with_settled_data(stored, directory) if settled else stored


def _with_settled_data(stored: list[str], directory: Path) -> list[str]:
    """The overrides with the format and keys that the run's config.yaml holds, if they were found and not typed."""
    if ("data", "auto") not in map(split_override, stored):
        return stored
    try:
        settled = data_overrides(dict(read_yaml(RunDirectory(directory).config_path)["data"]))
    except (OSError, ValueError, LookupError, TypeError):  # a run that was stopped before it wrote that file
        return stored
    other_overrides = [value for value in stored if split_override(value)[0].lstrip("+").split(".")[0] != "data"]
    return [*other_overrides, *settled]


def data_overrides(data: Mapping[str, Any]) -> list[str]:
    """The overrides that give a configuration's `data` again: its format, and each key that is not that one's default.

    Raises:
        LookupError: a format from outside the package.
    """
    defaults = defaults_of(FORMATS[data["format"]])
    changed = {key: value for key, value in data.items() if key != "format" and value != defaults.get(key)}
    return [f"data={data['format']}", *(of_value(f"data.{key}", value) for key, value in changed.items())]


def stored_config_dir(directory: Path) -> str | None:
    """The `--config-dir` a run was started with."""
    file = directory / ".hydra" / "hydra.yaml"
    if not file.is_file():
        return None
    sources = OmegaConf.load(file).hydra.runtime.config_sources
    paths = [entry.path for entry in sources if entry.provider == "command-line"]
    return paths[0] if paths else None
