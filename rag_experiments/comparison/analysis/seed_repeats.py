"""The command line that repeats a run, made from Hydra's records."""

from __future__ import annotations

import shlex

from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.bounded_files import read_yaml

_OF_THE_FIRST_TIME = ("hydra.run.dir=", "hydra.sweep.", "resume=", "sweep.name=", "sweep.job=")
"""Keys for the run's folder and its sweep; a repeated run with these would be refused."""


def overrides(run: RunRecord) -> list[str]:
    """The overrides that Hydra recorded, as typed or as given by a sweep; empty if there is no record."""
    try:
        recorded_lines = read_yaml(run.path / ".hydra" / "overrides.yaml")
    except (OSError, ValueError):
        return []
    return [str(item) for item in recorded_lines] if isinstance(recorded_lines, list) else []


def config_dir(run: RunRecord) -> list[str]:
    """`--config-dir DIR` as the run was started with, where it was; empty where it was not, or nobody knows."""
    try:
        sources = read_yaml(run.path / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["config_sources"]
        folders = [str(entry["path"]) for entry in sources if entry["provider"] == "command-line"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return ["--config-dir", folders[0]] if folders else []


def command(run: RunRecord) -> str | None:
    """The command for a shell; None if the run directory does not hold the overrides."""
    arguments = [item for item in overrides(run) if not item.startswith(_OF_THE_FIRST_TIME)]
    typed = run.status.get("command")
    if not arguments and not typed:
        return None
    line = (
        shlex.join(["python", "-m", "rag_experiments.train", *config_dir(run), *arguments]) if arguments else str(typed)
    )
    where = run.status.get("working_directory")
    return f"cd {shlex.quote(str(where))} && {line}" if where else line
