"""The interface of this package's launchers: run jobs one by one, and report when each has ended."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from rag_experiments.sweeps.jobs import Job, Result


class JobLauncher(Launcher):
    """Base class of this package's launchers."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def check(self) -> None:
        """Raise `RequestError` if this launcher cannot work here; called before any folder is made."""

    @abstractmethod
    def run_jobs(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Run jobs, starting the next when a place is free, and yield each when it has ended.

        Raises:
            KeyboardInterrupt: after the running jobs were interrupted and have ended.
        """

    @property
    def places(self) -> int:
        """The number of jobs that run at once."""
        return 1
