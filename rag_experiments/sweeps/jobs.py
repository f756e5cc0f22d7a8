"""A job of a sweep: its configuration and folder, whether it must run, and how it ended. Imports no torch.

The hash of its configuration and of its data decides whether a job is done, never its name. A result of another
version of the code is reused unless `sweep.same_code=true`; the closing table counts such results.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rag_experiments.config.overrides import quote
from rag_experiments.config.schema import SweepConfig
from rag_experiments.core import provenance
from rag_experiments.core.errors import RequestError, did_you_mean
from rag_experiments.core.files import atomic_write_text, safe_name
from rag_experiments.core.outcome import FAILED, Ending, ending_of, traceback_text
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import find_runs
from rag_experiments.runs.recorder import now

log = logging.getLogger(__name__)

Action = Literal["run", "resume", "reuse", "leave", "wait", "refused"]


@dataclass
class Job:
    """One run of a sweep, as plain values, because it is sent to other processes and machines."""

    label: str
    overrides: list[str]
    """The typed overrides with this job's values; without Hydra's own keys."""
    config_hash: str = ""
    data_hash: str = ""
    directory: str = ""
    action: Action = "run"
    config_dir: str | None = None
    metric: str | None = None
    """The figure that is shown and optimised, such as `dev/ndcg@10`."""
    sweep: str = ""
    extra: list[str] = field(default_factory=list)
    """Overrides that the sweep adds: its name and the trial."""
    refusal: str | None = None
    other_code: bool = False
    """True if the result is reused and was made by another version of the code."""

    @property
    def path(self) -> Path:
        return Path(self.directory)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.directory)

    def arguments(self) -> list[str]:
        """The command line of the run: `python -m rag_experiments.train …`."""
        if self.action == "resume":
            # The stored command line comes first, because the trial may now have another number.
            trial = [override for override in self.extra if override.startswith(("sweep.study=", "sweep.trial="))]
            return [f"resume={quote(self.directory)}", *trial]
        where = ["--config-dir", self.config_dir] if self.config_dir else []
        return [*where, *self.overrides, *self.extra, f"hydra.run.dir={quote(self.directory)}"]


@dataclass
class Result:
    """How a job ended."""

    state: str
    """The state of the run, or `pruned`, or `not started`."""
    value: float | None = None
    seconds: float | None = None
    note: str = ""
    error_kind: str | None = None

    @property
    def failed(self) -> bool:
        return self.state == "failed"


def result_of(job: Job) -> Result:
    """Read a job's result from its directory."""
    run = job.run
    try:
        status = run.read_status()
    except RequestError as unreadable:
        return Result("failed", note=str(unreadable))
    error = status.get("error") or {}
    state = run.state
    if error.get("kind") == "pruned":
        return Result("pruned", seconds=status.get("seconds"), note=error.get("message", ""), error_kind="pruned")
    note = Ending(state, FAILED, error).sentence if error and state == "failed" else ""  # type: ignore[arg-type]
    value = None
    if state == "completed" and job.metric:
        figures = run.read_final_metrics()
        value = figures.get(job.metric)
        if value is None:
            note = f"it has no figure {job.metric}{did_you_mean(job.metric, figures)}"
    return Result(state, value=value, seconds=status.get("seconds"), note=note, error_kind=error.get("kind"))


def not_begun(job: Job, error: OSError) -> Result:
    """The result of a job whose process or folder could not be created."""
    ending = ending_of(error)
    assert ending.error is not None
    with suppress(OSError):  # the disk may be full
        record_exception(job, error)
    return Result("failed", note=ending.sentence, error_kind=ending.error["kind"])


class Planner:
    """Chooses the directory of each job and decides whether it must run."""

    def __init__(self, folder: Path, config: SweepConfig):
        self.folder = folder
        self.config = config
        self.commit = provenance.git_state()[0]
        self.runs_by_hashes: dict[tuple[str, str], list[RunDirectory]] = {}
        self.directories_in_use: set[str] = set()
        for run in find_runs(folder):
            try:
                status = run.read_status()
            except RequestError as error:
                log.warning("%s; this run is ignored", error)
                continue
            self._add_run(run, status)

    def _add_run(self, run: RunDirectory, status: dict[str, Any]) -> None:
        key = (status.get("config_hash") or "", status.get("data_hash") or "")
        self.runs_by_hashes.setdefault(key, []).append(run)

    def plan(self, job: Job) -> Job:
        """Set the job's `directory` and `action`."""
        job.sweep = self.folder.name
        candidates = self.runs_by_hashes.get((job.config_hash, job.data_hash), [])
        for action in ("reuse", "wait", "resume", "leave"):
            for run in candidates:
                if str(run.path) not in self.directories_in_use and self._fits(run, action):
                    return self._settle(job, run.path, action)
        return self._settle(job, self._free_directory(job), "run")

    def forget(self, job: Job) -> Job:
        """Reset the job so that it is planned again: another process may have changed its directory."""
        self.directories_in_use.discard(job.directory)
        with suppress(RequestError):
            status = job.run.read_status()
            if status and all(run.path != job.path for group in self.runs_by_hashes.values() for run in group):
                self._add_run(job.run, status)
        job.extra = [extra for extra in job.extra if not extra.startswith(("sweep.name=", "sweep.job="))]
        return job

    def _fits(self, run: RunDirectory, action: str) -> bool:
        state = run.state
        if action == "reuse":
            return state == "completed" and self.config.reuse_completed and self._code_fits(run)
        if action == "wait":
            return state == "running"
        if action == "leave":
            return state == "failed" and not self.config.retry_failed
        return state == "interrupted" or (state == "failed" and self.config.retry_failed)

    def _code_fits(self, run: RunDirectory) -> bool:
        return not (self.config.same_code and self.is_other_code(run))

    def is_other_code(self, run: RunDirectory) -> bool:
        """Whether the run's result was made by another git commit."""
        return run.read_status().get("git_commit") != self.commit

    def _settle(self, job: Job, directory: Path, action: Any) -> Job:
        job.directory, job.action = str(directory), action
        self.directories_in_use.add(str(directory))
        if action == "resume" and not (directory / ".hydra" / "overrides.yaml").is_file():
            # The run was refused or killed before it began, so there is nothing to continue.
            job.action = "run"
        if action == "reuse":
            job.other_code = self.is_other_code(RunDirectory(directory))
        return job

    def _free_directory(self, job: Job) -> Path:
        """`<label>`; the configuration's hash is added if another job has that name."""
        stem = safe_name(job.label, 150)
        names = [stem, f"{stem}-{job.config_hash[:8]}"]
        names += [f"{stem}-{job.config_hash[:8]}-{number}" for number in range(2, 1000)]
        for name in names:
            directory = self.folder / name
            if str(directory) not in self.directories_in_use and not (directory / "status.json").exists():
                return directory
        raise RequestError(f"{self.folder} holds a thousand runs called {stem}: choose another name=…")


def prepare_directory(job: Job) -> None:
    """Prepare the folder for a new run: remove what a refused run, or one that never began, left there."""
    job.path.mkdir(parents=True, exist_ok=True)
    if job.action == "run":
        for name in ("status.json", "error.txt", "metrics.jsonl", "metrics.json"):
            (job.path / name).unlink(missing_ok=True)
        for name in (".hydra", "checkpoints", "predictions", "model"):
            shutil.rmtree(job.path / name, ignore_errors=True)


def record_ending(job: Job, error: dict[str, str], traceback: str | None = None) -> None:
    """Write the state `failed` for a run that could not do it itself because it was refused or killed.

    A completed run stays completed, even if its process failed afterwards. A run that another process is writing is not
    changed.
    """
    run = job.run
    run.path.mkdir(parents=True, exist_ok=True)
    status = run.read_status()
    if status.get("state") == "completed" or (run.state == "running" and status.get("pid") != os.getpid()):
        log.warning("%s: %s (the run is %s)", job.label, error["message"], run.state)
        return
    about = {"config_hash": job.config_hash, "data_hash": job.data_hash, "sweep": {"name": job.sweep, "job": job.label}}
    run.update_status(
        **{**about, **status, "state": "failed", "started": status.get("started") or now(), "ended": now()}
    )
    run.update_status(error=error)
    atomic_write_text(run.error_path, traceback or f"{error['type']}: {error['message']}\n")


def record_exception(job: Job, exception: BaseException) -> None:
    """Record the end of a job that raised an exception outside its run's own recording."""
    ending = ending_of(exception)
    assert ending.error is not None
    text = None if isinstance(exception, RequestError) else traceback_text(exception)
    record_ending(job, ending.error, text)
