"""The command line that makes a run again, from what Hydra recorded of it."""

from __future__ import annotations

import shlex

from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.bounded_files import read_yaml

_OF_THE_FIRST_TIME = ("hydra.run.dir=", "hydra.sweep.", "resume=", "sweep.name=", "sweep.job=")
"""Where the first run was written, and which sweep it was a job of: with these the second would be refused."""


def overrides(run: RunRecord) -> list[str]:
    """What Hydra recorded as typed (for a sweep's job: as the sweep gave it); empty where it did not."""
    try:
        found = read_yaml(run.path / ".hydra" / "overrides.yaml")
    except (OSError, ValueError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []


def config_dir(run: RunRecord) -> list[str]:
    """`--config-dir DIR` as the run was started with, where it was; empty where it was not, or nobody knows."""
    try:
        sources = read_yaml(run.path / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["config_sources"]
        found = [str(entry["path"]) for entry in sources if entry["provider"] == "command-line"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return ["--config-dir", found[0]] if found else []


def command(run: RunRecord) -> str | None:
    """For a shell; None where the directory does not tell."""
    kept = [item for item in overrides(run) if not item.startswith(_OF_THE_FIRST_TIME)]
    typed = run.status.get("command")
    if not kept and not typed:
        return None
    line = shlex.join(["python", "-m", "rag_experiments.train", *config_dir(run), *kept]) if kept else str(typed)
    where = run.status.get("working_directory")
    return f"cd {shlex.quote(str(where))} && {line}" if where else line
