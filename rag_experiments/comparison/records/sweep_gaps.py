"""Check whether the sweeps of the runs are complete; a table over a part of a sweep must report that.

A sweep's folder holds `multirun.yaml` from the start, and `sweep.json` (its jobs and how they ended) from the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.bounded_files import read_json

_LEVELS = 4
"""How many folders above a run are searched for its sweep; job names with a slash add folders."""


def gaps(runs: Iterable[RunRecord], folders: Iterable[Path | str]) -> list[str]:
    """One sentence for each incomplete sweep at or below the `folders`: it still runs, or some jobs never began.

    Sweeps of runs that were named one by one are not checked, because the user knows that they are a selection.
    """
    runs, roots = list(runs), [Path(folder).resolve() for folder in folders]
    run_folders = {run.path.resolve() for run in runs}
    sentences = []
    for folder in sweep_folders(runs):
        if not any(folder.is_relative_to(root) for root in roots):
            continue
        summary = folder / "sweep.json"
        if not summary.exists():
            sentences.append(f"INCOMPLETE: the sweep {folder.name} is still running, or was stopped before its end.")
            continue
        try:
            jobs = read_json(summary)["jobs"]
            missing = [job["job"] for job in jobs if (folder / job["directory"]).resolve() not in run_folders]
        except (OSError, ValueError, LookupError, TypeError) as error:
            sentences.append(f"{summary} cannot be read ({error}): it is not known whether the sweep is complete.")
            continue
        if missing:
            shown = ", ".join(map(str, missing[:3])) + (", …" if len(missing) > 3 else "")
            sentences.append(
                f"INCOMPLETE: {len(missing)} of {len(jobs)} jobs of the sweep {folder.name} are not here: {shown}."
            )
    return sentences


def sweep_folders(runs: Iterable[RunRecord]) -> Iterator[Path]:
    """The folders of the sweeps to which the runs belong, each once."""
    seen: set[Path] = set()
    for run in runs:
        for folder in run.path.resolve().parents[:_LEVELS]:
            if folder in seen:
                continue
            seen.add(folder)
            if (folder / "multirun.yaml").is_file() or (folder / "sweep.json").exists():
                yield folder
