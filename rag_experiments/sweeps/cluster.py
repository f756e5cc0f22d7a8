"""Launchers that need other packages: Slurm through `submitit`, and `ray`. Both are imported when used.

The sweep itself waits where it was started. Each job is a process of its own on a node that the cluster chooses. The
sweep's folder must be on storage that all nodes see. A job that Slurm preempts or that runs out of time ends as
interrupted, is queued again, and continues from its checkpoint.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.sweeps import execute
from rag_experiments.sweeps.jobs import Job, Result, not_begun, record_exception, result_of
from rag_experiments.sweeps.naming import sweep_folder
from rag_experiments.sweeps.session import HydraLauncher

log = logging.getLogger(__name__)


class RemoteLauncher(HydraLauncher):
    """Submits up to `n_jobs` jobs at once, waits for them, and cancels them when the sweep is interrupted."""

    poll_seconds = 2.0
    grace_seconds = 90.0
    """How long cancelled jobs may take to record their end; Slurm kills them after about 30 s."""

    def __init__(self, n_jobs: int = 16):
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise RequestError(f"hydra.launcher.n_jobs={n_jobs!r} must be a number of jobs, 1 or more")
        self.n_jobs = n_jobs

    @property
    def places(self) -> int:
        return self.n_jobs

    @abstractmethod
    def open(self) -> None:
        """Connect to the cluster.

        Raises:
            RequestError: the package is missing, or the cluster does not answer.
        """

    @abstractmethod
    def submit(self, job: Job) -> Any:
        """Submit a job; returns the cluster's handle."""

    @abstractmethod
    def done(self, handle: Any) -> bool:
        """Whether the job has ended on the cluster, successfully or not."""

    @abstractmethod
    def exception(self, handle: Any) -> BaseException | None:
        """The error outside the run, or None: a lost node, or a job that was cancelled or never started."""

    @abstractmethod
    def cancel(self, handle: Any) -> None:
        """Ask the cluster to end the job."""

    def close(self) -> None:
        """Disconnect from the cluster."""

    def run_jobs(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        waiting = iter(jobs)
        busy: list[tuple[Job, Any]] = []
        exhausted = False
        self.open()
        try:
            for _ in execute.watch(self.poll_seconds):
                while len(busy) < self.n_jobs and not exhausted:
                    job = next(waiting, None)
                    exhausted = job is None
                    if job is None:
                        break
                    try:
                        busy.append((job, self.submit(job)))
                    except OSError as error:
                        yield job, not_begun(job, error)
                if not busy:
                    return
                for job, handle in list(busy):
                    if self.done(handle):
                        busy.remove((job, handle))
                        yield job, self._result(job, handle)
        finally:
            self._stop(busy)
            self.close()

    def _result(self, job: Job, handle: Any) -> Result:
        error = self.exception(handle)
        if error is not None and job.run.state not in ("completed", "failed"):
            record_exception(job, error)
        return result_of(job)

    def _stop(self, busy: list[tuple[Job, Any]]) -> None:
        """Cancel all jobs, then wait until they have ended or until a second Ctrl-C."""
        for _, handle in busy:
            with suppress(Exception):
                self.cancel(handle)
        end = time.monotonic() + self.grace_seconds
        with suppress(KeyboardInterrupt):
            while time.monotonic() < end and not all(self._ended(handle) for _, handle in busy):
                time.sleep(self.poll_seconds / 4)

    def _ended(self, handle: Any) -> bool:
        try:
            return self.done(handle)
        except Exception:  # the cluster does not answer any more
            return True


class SubmititTask:
    """The task that submitit pickles and runs on the node. It calls `checkpoint` when the job is preempted."""

    def __init__(self, job: Job):
        self.job = job

    def __call__(self) -> int:
        self._continue_where_it_began()
        return execute.run_process(self.job)

    def checkpoint(self) -> Any:
        """Queue the same job again; the job then continues from its last checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _continue_where_it_began(self) -> None:
        begun = self.job.run.read_status().get("state") is not None
        if begun and (self.job.path / ".hydra" / "overrides.yaml").is_file():
            self.job.action = "resume"


class SubmititLauncher(RemoteLauncher):
    """Slurm through submitit (`executor: slurm`), or submitit's local executors (`local`, `debug`).

    `parameters` are submitit's: `timeout_min`, `gpus_per_node`, `cpus_per_task`, `mem_gb`,
    `slurm_partition`, `slurm_array_parallelism`, …
    """

    def __init__(self, executor: str = "slurm", n_jobs: int = 16, parameters: Mapping[str, Any] | None = None):
        super().__init__(n_jobs)
        self.cluster = executor
        self.parameters = dict(parameters or {})
        if executor != "slurm":
            self.poll_seconds = 0.5

    def check(self) -> None:
        self.executor = self._make_executor()

    def open(self) -> None:
        self.executor = self._make_executor()

    def _make_executor(self) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise RequestError("this launcher needs submitit: pip install 'rag_experiments[slurm]'") from error
        folder = sweep_folder(self.config).resolve() / ".submitit"
        try:
            executor = submitit.AutoExecutor(folder=folder / "%j", cluster=self.cluster)
            executor.update_parameters(**self.parameters)
            return executor
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            raise RequestError(f"hydra.launcher: {str(error).splitlines()[0]}") from error

    def submit(self, job: Job) -> Any:
        handle = self.executor.submit(SubmititTask(job))
        log.info("%s is job %s", job.label, handle.job_id)
        return handle

    def done(self, handle: Any) -> bool:
        return handle.done()

    def exception(self, handle: Any) -> BaseException | None:
        return handle.exception()

    def cancel(self, handle: Any) -> None:
        handle.cancel(check=False)


class RayLauncher(RemoteLauncher):
    """Ray: each job uses `num_cpus` and `num_gpus` of the cluster; Ray sets `CUDA_VISIBLE_DEVICES`.

    `init` is passed to `ray.init`: `address: auto` for a cluster, empty to start Ray on this machine.
    """

    poll_seconds = 0.5

    def __init__(
        self,
        n_jobs: int = 64,
        num_cpus: float = 1,
        num_gpus: float = 0,
        init: Mapping[str, Any] | None = None,
    ):
        super().__init__(n_jobs)
        self.resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self.init = dict(init or {})

    def check(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise RequestError("this launcher needs ray: pip install 'rag_experiments[ray]'")

    def open(self) -> None:
        self.check()
        import ray

        self.ray = ray
        if not ray.is_initialized():
            options = {
                "include_dashboard": False,
                "log_to_driver": False,
                "logging_level": logging.WARNING,
                **self.init,
            }
            try:
                ray.init(**options)
            except Exception as error:  # Ray raises a plain Exception if its processes did not start in time
                first = next(iter(str(error).splitlines()), type(error).__name__)
                raise RequestError(f"hydra.launcher.init: Ray did not start: {first}") from error
        # This package retries failed jobs, not Ray. A worker is used once, because it may keep GPU memory.
        remote_options: Any = {"max_retries": 0, "max_calls": 1, **self.resources}
        self.remote = ray.remote(**remote_options)(run_on_ray)

    def submit(self, job: Job) -> Any:
        return self.remote.remote(job)

    def done(self, handle: Any) -> bool:
        return bool(self.ray.wait([handle], timeout=0)[0])

    def exception(self, handle: Any) -> BaseException | None:
        try:
            self.ray.get(handle)
        except Exception as error:
            return error
        return None

    def cancel(self, handle: Any) -> None:
        self.ray.cancel(handle, force=False)

    def close(self) -> None:
        with suppress(Exception):
            self.ray.shutdown()


def run_on_ray(job: Job) -> int:
    """Run a job on a Ray worker, in a process of its own with the GPUs and threads that Ray gave the worker."""
    return execute.run_process(job)
