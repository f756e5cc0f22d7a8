"""The grid: all combinations in Hydra's syntax, checked before the first job, continued by the same command."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import termination_as_interrupt
from rag_experiments.core.visible import say
from rag_experiments.sweeps.job_launcher import JobLauncher
from rag_experiments.sweeps.jobs import Job
from rag_experiments.sweeps.session import Session

log = logging.getLogger(__name__)


class BaseSweeper(Sweeper):
    """Base class of grid and search: `params`, the session, interruption."""

    def __init__(self, params: Mapping[str, Any] | None = None):
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context: HydraContext = hydra_context
        self.task_function: Any = task_function
        self.config: DictConfig = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def session(self) -> Session:
        """The `Session` of this call."""
        return Session(self.config, self.hydra_context.config_loader, self.launcher)

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """Parse `params` and the command line (which wins) into overrides, one per key.

        Raises:
            RequestError: an override cannot be parsed.
        """
        from rag_experiments.config.command_line import translated_errors

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        texts = [f"{key}={value}" for key, value in self.params.items()]
        with translated_errors():
            overrides = parser.parse_overrides([*texts, *arguments])
        return list({override.get_key_element(): override for override in overrides}.values())

    def begin(self, session: Session) -> None:
        """Make the sweep's folder; called when it is known that there is something to run."""
        if isinstance(self.launcher, JobLauncher):
            self.launcher.check()
        session.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, session.folder / "multirun.yaml")


class GridSweeper(BaseSweeper):
    """Runs every combination of the given values: `key=a,b`, `range(…)`, `choice(…)` and `glob(…)`."""

    def sweep(self, arguments: list[str]) -> Any:
        session = self.session()
        jobs = self.jobs(session, arguments)
        refuse_where_nothing_can_run(jobs, session.policy.on_error)
        for job in jobs:
            session.plan(job)
        if session.config.plan:
            say(planned(jobs))
            return None
        self.begin(session)
        session.total = len(jobs)
        interrupted = False
        with termination_as_interrupt():
            try:
                for _ in session.run(jobs):
                    pass
            except KeyboardInterrupt:
                interrupted = True
        self.task_function.status = session.close(jobs, interrupted)
        return [result.value for _, result in session.rows]

    def jobs(self, session: Session, arguments: Sequence[str]) -> list[Job]:
        """The checked jobs of the grid; of jobs with equal configurations, the first is kept."""
        overrides = self.parse(arguments)
        swept = {override.get_key_element().lstrip("+~") for override in overrides if override.is_sweep_override()}
        jobs: dict[tuple[str, str] | str, Job] = {}
        for combination in combinations(overrides):
            job = session.job(combination, swept)
            key = job.label if job.refusal else (job.config_hash, job.data_hash)
            if key in jobs:
                log.info("%s is the same run as %s: left out", job.label, jobs[key].label)
                continue
            jobs[key] = job
        return list(jobs.values())


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The product of all values in the order typed; the last key varies fastest.

    Raises:
        RequestError: a value is an interval (only a search accepts it), or a pattern matches nothing.
    """
    choices = []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices.append([override.input_line or f"{key}={override.get_value_element_as_str()}"])
        elif override.is_discrete_sweep():
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not values:
                raise RequestError(
                    f"{override.input_line}: no option of the config group matches, so there is nothing to run"
                )
            choices.append(values)
        else:
            raise RequestError(f"{key} is an interval: a grid needs values; a search (hydra/sweeper=optuna) accepts it")
    return [list(combination) for combination in itertools.product(*choices)]


def refuse_where_nothing_can_run(jobs: Sequence[Job], on_error: str) -> None:
    """Raise `RequestError` if the request of every job is wrong, or of any job if the sweep stops at errors."""
    refused = [job for job in jobs if job.refusal]
    if refused and (len(refused) == len(jobs) or on_error == "stop"):
        where = "" if len(jobs) == 1 else f"{refused[0].label}: "
        raise RequestError(f"{where}{refused[0].refusal}")


def planned(jobs: Sequence[Job]) -> str:
    """The output of `plan=true`: what would happen."""
    words = {
        "run": "runs",
        "resume": "continues",
        "reuse": "is completed",
        "leave": "failed, is left",
        "wait": "is running",
    }
    width = max(len(job.label) for job in jobs)
    lines = [f"{job.label:<{width}}  {words.get(job.action) or f'refused: {job.refusal}'}" for job in jobs]
    return "\n".join([*lines, "", f"{len(jobs)} jobs, nothing was started"])
