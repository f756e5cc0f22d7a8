"""What a sweep asks of the launchers of this package: run jobs one by one, and say when each has ended."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from rag_experiments.sweeps.jobs import Job, Result


class JobLauncher(Launcher):
    """What our launchers share."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def check(self) -> None:
        """Raise `RequestError` where this launcher cannot work here; called before anything is made."""

    @abstractmethod
    def run_jobs(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Run jobs, taking the next when a place is free, and yield each as it ends.

        Raises:
            KeyboardInterrupt: after the running jobs were interrupted and have ended.
        """

    @property
    def places(self) -> int:
        """How many jobs run at once."""
        return 1
