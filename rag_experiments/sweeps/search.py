"""Search with Optuna's ask-and-tell interface: persistent, resumable, with pruning, any sampler and any launcher.

This package has its own sweeper because `hydra-optuna-sweeper` 1.3 needs optuna 2, forgets running trials when it is
killed, and cannot prune. A trial is an ordinary job, found by its configuration's hash. The study holds its number and
parameters, and gets its result when the job's directory records how it ended. So a killed sweep can continue: trials
that were running continue from their checkpoints with their numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from rag_experiments.config.overrides import quote
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import DONE, FAILED, termination_as_interrupt
from rag_experiments.core.visible import say
from rag_experiments.sweeps import space, summary
from rag_experiments.sweeps.jobs import Job, Result, result_of
from rag_experiments.sweeps.naming import job_label
from rag_experiments.sweeps.override_grid import BaseSweeper
from rag_experiments.sweeps.session import Session
from rag_experiments.training import optuna_parts
from rag_experiments.training.study import open_study, remember_pruner, split_address, study_address

log = logging.getLogger(__name__)


class OptunaSweeper(BaseSweeper):
    """Runs `n_trials` trials in total, over any number of calls; `key=a,b` and `params` define the space."""

    def __init__(
        self,
        n_trials: int = 20,
        direction: str = "maximize",
        sampler: str = "tpe",
        sampler_options: Mapping[str, Any] | None = None,
        pruner: str = "median",
        pruner_options: Mapping[str, Any] | None = None,
        storage: str | None = None,
        seed: int | None = 0,
        try_default: bool = True,
        params: Mapping[str, Any] | None = None,
    ):
        super().__init__(params)
        if n_trials < 1 or direction not in ("maximize", "minimize"):
            raise RequestError("hydra.sweeper needs n_trials of 1 or more and a direction of maximize or minimize")
        self.n_trials = n_trials
        self.direction = direction
        self.sampler, self.sampler_options = sampler, dict(sampler_options or {})
        self.pruner, self.pruner_options = pruner, dict(pruner_options or {})
        self.storage, self.seed, self.try_default = storage, seed, try_default
        self.jobs: dict[int, Job] = {}

    def sweep(self, arguments: list[str]) -> Any:
        session = self.session()
        self.space, self.fixed = space.search_space(self.parse(arguments))
        if not self.space:
            raise RequestError("there is nothing to search: give a space with sweep=…, or keys as key=interval(a,b)")
        self._check_request(session)
        sampler, pruner = self._sampler(), optuna_parts.make_pruner(self.pruner, self.pruner_options)
        if session.config.plan:
            say("\n".join([f"{key}: {value}" for key, value in self.space.items()] + ["", "nothing was started"]))
            return None
        self.begin(session)
        self.address = study_address(self.storage, session.folder)
        self._open_study(sampler, pruner)
        session.total = self.n_trials
        interrupted = False
        with termination_as_interrupt():
            try:
                for job, result in session.run(self._trials(session)):
                    self._tell(job, result)
            except KeyboardInterrupt:
                interrupted = True
        status = session.close(list(self.jobs.values()), interrupted)
        has_best = self._say_best(session)
        self.task_function.status = FAILED if status == DONE and not has_best else status
        return self.study

    def _check_request(self, session: Session) -> None:
        """Compose and check one job of the space before any folder is made, so that a wrong request is refused."""
        job = session.job([*self.fixed, *self._overrides(self._lowest())], self.space)
        if job.refusal:
            raise RequestError(job.refusal)
        if job.metric is None:
            raise RequestError("a search needs its figure: set sweep.metric, such as sweep.metric=dev/ndcg@10")

    def _lowest(self) -> dict[str, Any]:
        return {key: (d.choices[0] if hasattr(d, "choices") else d.low) for key, d in self.space.items()}

    def _sampler(self, more_seed: int = 0) -> Any:
        parallel = getattr(self.launcher, "places", 1) > 1
        seed = None if self.seed is None else self.seed + more_seed
        return optuna_parts.make_sampler(self.sampler, self.sampler_options, seed, parallel)

    def _open_study(self, sampler: Any, pruner: Any) -> None:
        self.study = open_study(self.address, self.direction, sampler, pruner)
        remember_pruner(self.study, self.pruner, self.pruner_options)
        before = len(self.study.get_trials(deepcopy=False))
        if before:  # a sampler with the same seed would draw the trials of the first call again
            self.study.sampler = self._sampler(1000 * before)

    # -- trials ----------------------------------------------------------------------------------

    def _trials(self, session: Session) -> Iterator[Job]:
        """First the unfinished trials of earlier calls, then new ones, until `n_trials` have ended in any state."""
        optuna = optuna_parts.optuna_module()
        states = optuna.trial.TrialState
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state in (states.COMPLETE, states.PRUNED) and "overrides" in trial.user_attrs:
                self._answered(session, trial)
            elif trial.state == states.RUNNING or self._runs_again(session, trial):
                current = trial if trial.state == states.RUNNING else self._ask_again(trial)
                yield self._job(session, current.number, dict(current.params))
        if self.try_default and not self.study.get_trials(deepcopy=False):
            self._enqueue_default(session)
        while len(self.jobs) < self.n_trials:
            trial = self.study.ask(self.space)
            yield self._job(session, trial.number, dict(trial.params))

    def _runs_again(self, session: Session, trial: Any) -> bool:
        failed = trial.state.name == "FAIL" and "again" not in trial.user_attrs
        if failed and not session.policy.retry_failed:
            self._answered(session, trial)
        return failed and session.policy.retry_failed

    def _ask_again(self, trial: Any) -> Any:
        """Repeat a failed trial with a new number, because Optuna cannot reopen a finished trial."""
        self.study.enqueue_trial(dict(trial.params))
        again = self.study.ask(self.space)
        self._note(trial.number, "again", again.number)
        return again

    def _enqueue_default(self, session: Session) -> None:
        """Try the configuration's own values first, if the space contains them: a search should not end below them."""
        from omegaconf import OmegaConf

        config = session.config_loader.load_sweep_config(session.config, list(self.fixed))
        values = {key: OmegaConf.select(config, key.lstrip("+"), default=None) for key in self.space}
        fitting = {}
        for key, value in values.items():
            distribution = self.space[key]
            if hasattr(distribution, "choices"):
                value = next((choice for choice in distribution.choices if str(choice) == str(value)), None)
            elif isinstance(value, int | float):
                value = value if distribution.low <= value <= distribution.high else None
            if value is not None:
                fitting[key] = value
        if fitting:
            self.study.enqueue_trial(fitting)

    def _overrides(self, params: Mapping[str, Any]) -> list[str]:
        return [space.override_of(key, params[key]) for key in self.space if key in params]

    def _job(self, session: Session, number: int, params: dict[str, Any]) -> Job:
        overrides = [*self.fixed, *self._overrides(params)]
        job = session.job(overrides, self.space, label=self._label(number, params))
        job.extra = [f"sweep.study={quote(self.address)}", f"sweep.trial={number}"]
        session.plan(job)
        self.jobs[number] = job
        self._note(number, "directory", job.path.name)
        self._note(number, "overrides", overrides)
        return job

    def _label(self, number: int, params: Mapping[str, Any]) -> str:
        shown = [f"{key}={space.short_value(value)}" for key, value in params.items()]
        return f"{number:04d}_{job_label(shown, {key.lstrip('+~') for key in params})}"

    def _answered(self, session: Session, trial: Any) -> None:
        """Add a trial that ended in an earlier call to the closing table."""
        overrides = list(trial.user_attrs["overrides"]) if "overrides" in trial.user_attrs else []
        job = session.job(overrides, self.space, label=self._label(trial.number, trial.params))
        job.directory = str(session.folder / trial.user_attrs.get("directory", ""))
        job.other_code = session.planner.is_other_code(job.run)
        state = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
        job.action = "leave" if state == "failed" else "reuse"
        session.planner.directories_in_use.add(job.directory)
        result = result_of(job)  # only for time and note; figure and state come from the study
        value = trial.value if state == "completed" else None
        session.rows.append((job, Result(state, value, result.seconds, result.note, result.error_kind)))
        self.jobs[trial.number] = job

    def _note(self, number: int, name: str, value: Any) -> None:
        trials = {trial.number: trial for trial in self.study.get_trials(deepcopy=False)}
        with suppress(Exception):  # a finished trial accepts no more notes
            self.study._storage.set_trial_user_attr(trials[number]._trial_id, name, value)

    def _tell(self, job: Job, result: Result) -> None:
        number = next(number for number, other in self.jobs.items() if other is job)
        states = optuna_parts.optuna_module().trial.TrialState
        # Another process that searches the same study has already reported the result.
        if result.state == "completed" and result.value is not None:
            self.study.tell(number, result.value, skip_if_finished=True)
        elif result.state == "pruned":
            self.study.tell(number, state=states.PRUNED, skip_if_finished=True)
        elif result.state in ("completed", "failed"):
            self.study.tell(number, state=states.FAIL, skip_if_finished=True)
        # Interrupted: the trial stays in the state running, and the next call continues it.

    def _say_best(self, session: Session) -> bool:
        """Print the best trial; returns whether there is one."""
        best_row = summary.best(session.rows, self.direction == "maximize")
        if best_row is not None:
            job, result = best_row
            say(f"best: {job.label}, {job.metric} {result.value:.4f}: {' '.join(job.overrides[len(self.fixed) :])}")
        elif any(job.metric and result.state == "completed" for job, result in session.rows):
            say(f"no trial has the figure {session.rows[0][0].metric}: set sweep.metric to one of metrics.json")
        say(f"the study: optuna-dashboard {split_address(self.address)[0]}")
        return best_row is not None
