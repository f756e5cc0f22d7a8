"""The common part of grids and searches: check, plan and run jobs, print results, return the exit status."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from rag_experiments.config.overrides import quote
from rag_experiments.config.schema import DataConfig, RunConfig, SweepConfig
from rag_experiments.config.validation import check_values
from rag_experiments.core import text_table
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import check_writable
from rag_experiments.core.outcome import DONE, FAILED, INTERRUPTED
from rag_experiments.core.visible import say
from rag_experiments.data.load import RagData, load_data
from rag_experiments.runs.identity import config_hash
from rag_experiments.sweeps import summary
from rag_experiments.sweeps.claims import Claims
from rag_experiments.sweeps.job_launcher import JobLauncher
from rag_experiments.sweeps.jobs import Job, Planner, Result, record_exception, result_of
from rag_experiments.sweeps.naming import hydra_config, job_label, split_override, sweep_folder
from rag_experiments.training.checks import check_common

log = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
"""Seconds between two checks of jobs that another process runs."""


class Session:
    """One call of a sweep: the common configuration, the launcher, and the results so far."""

    def __init__(self, config: DictConfig, config_loader: Any, launcher: Launcher):
        self.config = config
        self.config_loader = config_loader
        self.launcher = launcher
        self.folder = sweep_folder(config)
        check_writable(self.folder, "hydra.sweep.dir")
        if config.resume is not None:
            raise RequestError("resume=… is for one run: a sweep is continued by the same command again")
        policy: Any = OmegaConf.to_container(config.sweep, resolve=True)
        self.policy: SweepConfig = check_values(SweepConfig, policy, "sweep")
        self.planner = Planner(self.folder, self.policy)
        self.claims = Claims(self.folder)
        self.rows: list[tuple[Job, Result]] = []
        self.handed: set[int] = set()
        """Jobs, by `id`, that a launcher was given."""
        self.total: int | None = None
        self._data: dict[str, RagData] = {}
        self._config_dir = command_line_config_dir(config)

    # -- jobs ------------------------------------------------------------------------------------

    def compose(self, overrides: Sequence[str]) -> tuple[RunConfig, dict[str, Any]]:
        """Compose one job's configuration and check everything that needs no torch.

        Raises:
            RequestError: the configuration is wrong.
        """
        from rag_experiments.config.command_line import translated_errors

        with translated_errors():
            composed = self.config_loader.load_sweep_config(self.config, list(overrides))
        with translated_errors(), hydra_config(composed):
            return check_common(composed)

    def job(self, overrides: Sequence[str], swept: Iterable[str], label: str | None = None) -> Job:
        """A job with its hashes; if its request is wrong, the job has a `refusal`."""
        own = [override for override in overrides if not override.startswith("hydra.")]
        label = label or job_label(own, set(swept))
        job = Job(label=label, overrides=own, config_dir=self._config_dir)
        try:
            config, resolved = self.compose(overrides)
            job.config_hash = config_hash(resolved)
            job.metric = config.sweep.metric or config.trainer.get("metric_for_best_model")
            job.data_hash = self._check_the_rest(config, resolved)
        except RequestError as error:
            job.refusal = str(error)
        return job

    def _check_the_rest(self, config: RunConfig, resolved: dict[str, Any]) -> str:
        """Run the checks of a run's start, except `TrainingArguments`, which would occupy a GPU in this process.

        Returns the hash of the data.
        """
        from rag_experiments.training.request import check_parts

        def load(data: DataConfig, cache: Path) -> RagData:
            key = json.dumps(resolved["data"], sort_keys=True, default=str)
            if key not in self._data:
                self._data[key] = load_data(data, cache)
            return self._data[key]

        return check_parts(config, resolved, load=load)[1].content_hash

    def plan(self, job: Job) -> Job:
        """Choose the job's directory and decide what to do with it."""
        self.planner.plan(job)
        job.extra = [f"sweep.name={quote(self.folder.name)}", f"sweep.job={quote(job.label)}", *job.extra]
        if job.refusal is not None and job.action != "reuse":
            job.action = "refused"
        return job

    # -- running ---------------------------------------------------------------------------------

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Run planned jobs; print and yield each when it ends. Jobs that need not run are yielded at once.

        After a failure with `sweep.on_error=stop`, no further job is started, and running jobs are interrupted.

        Raises:
            KeyboardInterrupt: after the running jobs have ended.
        """
        waiting: list[Job] = []
        try:
            if (yield from self._run(jobs, waiting)):
                return
            while waiting:
                log.info("waiting for %d jobs that another process runs", len(waiting))
                freed = self._freed(waiting)
                if (yield from self._run([self.plan(self.planner.forget(job)) for job in freed], waiting)):
                    return
        finally:
            self.claims.give_back_all()

    def _run(self, jobs: Iterable[Job], waiting: list[Job]) -> Generator[tuple[Job, Result], None, bool]:
        """Run the jobs that this process can claim; put the others into `waiting`. Returns whether the sweep stops."""
        answered: list[tuple[Job, Result]] = []
        results = self._launch(self._runnable(jobs, waiting, answered))
        try:
            for job, result in results:
                yield from _drained(answered)
                yield self._ended(job, result)
                if result.failed and self.policy.on_error == "stop":
                    return True
        finally:
            results.close()
        yield from _drained(answered)
        return False

    def _runnable(self, jobs: Iterable[Job], waiting: list[Job], answered: list[tuple[Job, Result]]) -> Iterator[Job]:
        for job in jobs:
            self._claim(job)
            if job.action == "wait":
                waiting.append(job)
            elif job.action in ("reuse", "leave"):
                answered.append(self._ended(job, result_of(job)))
            elif job.action == "refused":
                with suppress(OSError):
                    record_exception(job, RequestError(job.refusal))
                answered.append(self._ended(job, Result("failed", note=job.refusal or "", error_kind="request")))
                if self.policy.on_error == "stop":
                    return
            else:
                verb = "continues" if job.action == "resume" else "starts"
                log.info("%s %s", job.label, verb)
                self.handed.add(id(job))
                yield job

    def _claim(self, job: Job) -> None:
        """Claim the job for this sweep and plan it again, because another sweep may have begun or ended it."""
        while job.action in ("run", "resume"):
            directory = job.directory
            if not self.claims.take(directory):
                job.action = "wait"
                return
            self.plan(self.planner.forget(job))
            if job.action in ("run", "resume") and job.directory == directory:
                return
            self.claims.give_back(directory)

    def _ended(self, job: Job, result: Result) -> tuple[Job, Result]:
        self.claims.give_back(job.directory)
        self.rows.append((job, result))
        summary.ended(len(self.rows), self.total, job, result)
        self._write_summary(self.rows)
        return job, result

    def _write_summary(self, rows: Sequence[tuple[Job, Result]]) -> None:
        try:
            summary.write_summary(self.folder, rows, self.arguments)
        except OSError as error:  # a full disk must not end the sweep, because its jobs may write to another disk
            log.warning("%s could not be written: %s", self.folder / summary.SUMMARY, error)

    def _launch(self, jobs: Iterator[Job]) -> Generator[tuple[Job, Result], None, None]:
        if isinstance(self.launcher, JobLauncher):
            yield from self.launcher.run_jobs(jobs)
            return
        # One of Hydra's own launchers: it gets a whole batch and calls the task function in each job.
        batch = list(jobs)
        if not batch:
            return
        overrides = [[*job.overrides, *job.extra, *_place(job)] for job in batch]
        self.launcher.launch(overrides, initial_job_idx=len(self.rows))
        for job in batch:
            yield job, result_of(job)

    def _freed(self, waiting: list[Job]) -> list[Job]:
        """Wait until other processes have finished some of the jobs; these are removed from `waiting`."""
        while True:
            time.sleep(WAIT_SECONDS)
            freed = [job for job in waiting if not (job.run.state == "running" or self.claims.elsewhere(job.directory))]
            if freed:
                waiting[:] = [job for job in waiting if job not in freed]
                return freed

    # -- the end ---------------------------------------------------------------------------------

    @property
    def arguments(self) -> list[str]:
        """The overrides that were typed."""
        return [str(value) for value in self.config.hydra.overrides.task]

    def close(self, jobs: Sequence[Job], interrupted: bool) -> int:
        """Print the closing table of all `jobs` in their order; returns the sweep's exit status."""
        ended = {id(job): result for job, result in self.rows}
        rows = [(job, ended.get(id(job)) or self._unfinished(job)) for job in jobs]
        self._write_summary(rows)
        say()
        text_table.show([summary.table(rows)])
        say(f"\n{self.folder}: {summary.totals(rows)}", flush=True)
        if interrupted:
            say("interrupted: run the same command again to continue", flush=True)
            return INTERRUPTED
        unfinished = any(result.state not in ("completed", "pruned") for _, result in rows)
        return FAILED if unfinished else DONE

    def _unfinished(self, job: Job) -> Result:
        status = job.run.read_status() if job.directory and job.action in ("run", "resume") else {}
        if status:
            return result_of(job)
        # Its folder is made when it starts, and its status seconds later, when its weights and data are read.
        begun = id(job) in self.handed and job.path.is_dir()
        return Result("interrupted", note="before its first figures") if begun else Result("not started")


def _drained(items: list[Any]) -> Iterator[Any]:
    while items:
        yield items.pop(0)


def _place(job: Job) -> list[str]:
    subdir = quote(job.path.name)
    keep = ["hydra.output_subdir=null"] if job.action == "resume" else []  # never overwrite the first .hydra/
    return [f"hydra.sweep.subdir={subdir}", *keep]


def command_line_config_dir(config: DictConfig) -> str | None:
    """The value of `--config-dir` on the command line."""
    sources = config.hydra.runtime.config_sources
    paths = [entry.path for entry in sources if entry.provider == "command-line"]
    return os.path.abspath(paths[0]) if paths else None


class HydraLauncher(JobLauncher):
    """A `JobLauncher` that Hydra's own sweepers can also use."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs that one of Hydra's own sweepers chose."""
        session = Session(self.config, self.hydra_context.config_loader, self)
        typed = set(session.arguments)
        swept = {split_override(o)[0] for overrides in job_overrides for o in overrides if o not in typed}
        jobs = [session.plan(session.job(overrides, swept)) for overrides in job_overrides]
        session.total = len(jobs)
        results = {id(job): result for job, result in session.run(jobs)}
        returns = []
        for job in jobs:
            result = results.get(id(job)) or Result("not started")
            returned = JobReturn(overrides=job.overrides, working_dir=job.directory, status=JobStatus.COMPLETED)
            returned.return_value = result.value
            if result.state != "completed":
                returned.status = JobStatus.FAILED
                returned.return_value = RuntimeError(f"{job.label}: {result.state} {result.note}")
            returns.append(returned)
        return returns
