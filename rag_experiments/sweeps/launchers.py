"""Launchers decide where and when a sweep's jobs run. `cluster` has those that need other packages.

The launchers here take the next job when a place becomes free (`run_jobs`), so that a search learns from each result
before it chooses the next job. Hydra's other sweepers can use them as ordinary launchers (`launch`).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.sweeps import execute
from rag_experiments.sweeps.jobs import Job, Result, not_begun, result_of
from rag_experiments.sweeps.session import HydraLauncher

log = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class SerialLauncher(HydraLauncher):
    """Runs one job after another in this process: no start-up time per job, but no protection either.

    If the kernel kills a job because memory ran out, the sweep ends too (the same command continues it).
    """

    def run_jobs(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        for job in jobs:
            try:
                execute.run_here_inside_hydra(job)
            except OSError as error:
                yield job, not_begun(job, error)
            else:
                yield job, result_of(job)


@dataclass
class Place:
    """A place for one job: its GPUs and its process."""

    environment: dict[str, str]
    job: Job | None = None
    process: subprocess.Popen | None = None
    shown: int = 0


class LocalLauncher(HydraLauncher):
    """Runs each job in a process of its own on this machine, `n_jobs` at once.

    With GPUs, each place gets its own through `CUDA_VISIBLE_DEVICES`; without GPUs, the cores are divided.
    """

    def __init__(
        self,
        n_jobs: int | str = 1,
        gpus: str | int | Sequence[int | str] = "auto",
        gpus_per_job: int = 1,
        threads: int | str = "auto",
        echo: bool | None = None,
        grace_seconds: float = 60.0,
    ):
        self.devices = visible_gpus(gpus)
        self.count = self._count(n_jobs, gpus_per_job)
        self.echo = self.count == 1 if echo is None else echo
        self.grace_seconds = grace_seconds
        self.free = [Place(self._environment(number, gpus_per_job, threads)) for number in range(self.count)]

    @property
    def places(self) -> int:
        return self.count

    def _count(self, n_jobs: int | str, gpus_per_job: int) -> int:
        if n_jobs == "auto":
            return max(1, len(self.devices) // max(1, gpus_per_job))
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise RequestError(f"hydra.launcher.n_jobs={n_jobs!r} must be a number of jobs, 1 or more, or auto")
        if self.devices and n_jobs * gpus_per_job > len(self.devices):
            log.warning("%d jobs at once share %d GPUs: each holds its own model there", n_jobs, len(self.devices))
        return n_jobs

    def _environment(self, number: int, gpus_per_job: int, threads: int | str) -> dict[str, str]:
        environment: dict[str, str] = {}
        if self.devices:
            first = number * gpus_per_job
            mine = [self.devices[(first + i) % len(self.devices)] for i in range(gpus_per_job)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if threads != "auto":
            environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        elif self.count > 1 and "OMP_NUM_THREADS" not in os.environ:
            environment |= dict.fromkeys(THREAD_VARIABLES, str(max(1, cores // self.count)))
        return environment

    def run_jobs(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        waiting = iter(jobs)
        busy: list[Place] = []
        exhausted = False
        kills = execute.kernel_kills()
        try:
            for _ in execute.watch():
                while self.free and not exhausted:
                    job = next(waiting, None)
                    if job is None:
                        exhausted = True
                        break
                    try:
                        busy.append(self._start(job))
                    except OSError as error:
                        yield job, not_begun(job, error)
                if not busy:
                    return
                for place in list(busy):
                    self._show(place)
                    assert place.process is not None
                    assert place.job is not None
                    status = place.process.poll()
                    if status is None:
                        continue
                    job = place.job
                    kills, before = execute.kernel_kills(), kills
                    execute.settle(job, status, kills > before)
                    busy.remove(place)
                    self._release(place)
                    yield job, result_of(job)
        finally:
            self._stop(busy)

    def _start(self, job: Job) -> Place:
        place = self.free[0]
        shown = 0
        with suppress(OSError):
            shown = (job.path / execute.CONSOLE).stat().st_size
        place.process = execute.start_process(job, place.environment)
        place.job, place.shown = job, shown
        self.free.remove(place)
        return place

    def _release(self, place: Place) -> None:
        self._show(place)
        place.job = place.process = None
        self.free.append(place)

    def _show(self, place: Place) -> None:
        if self.echo and place.job is not None:
            new, place.shown = execute.follow(place.job.path / execute.CONSOLE, place.shown)
            if new:
                sys.stderr.write(new.decode("utf-8", errors="replace"))
                sys.stderr.flush()

    def _stop(self, busy: list[Place]) -> None:
        """Interrupt all jobs first, then wait, so that they end at the same time."""
        processes = [place.process for place in busy if place.process is not None]
        for process in processes:
            execute.interrupt(process)
        for process in processes:
            execute.await_end(process, self.grace_seconds)
        for place in busy:
            self._release(place)


def visible_gpus(setting: Any) -> list[str]:
    """The GPUs that jobs may use, as in `CUDA_VISIBLE_DEVICES`; found without torch, which would occupy one."""
    if isinstance(setting, int):
        return [str(number) for number in range(setting)]
    if setting != "auto":
        return [str(device) for device in (setting.split(",") if isinstance(setting, str) else setting)]
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [device.strip() for device in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if device.strip()]
    with suppress(OSError):
        return [str(number) for number, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").iterdir()))]
    return []
