"""Weights & Biases behind a small interface; the only module that imports `wandb`, and only when used.

W&B gets a copy of what the run directory holds, and is never the only place. If the tracker fails, it prints one
warning and the run continues. Metric names are changed to `[A-Za-z0-9_/]` (`dev/recall_at_4`), because W&B's charts
need that. wandb cannot continue an offline run, and a sync keeps only one of two offline segments with the same id.
Therefore the W&B directory of a resumed run is written again completely from `metrics.jsonl`.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rag_experiments.config.schema import TrackingConfig
from rag_experiments.core.credentials import mask_secrets
from rag_experiments.core.distributed import is_main_process
from rag_experiments.core.errors import first_line
from rag_experiments.core.files import plain, safe_name
from rag_experiments.core.outcome import ending_of
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.tracking_names import flat_row, metric_name, session_mode, summary_of, tags

log = logging.getLogger(__name__)

STEP = "step"
"""W&B's x-axis: the optimiser step of `metrics.jsonl`."""
INIT_SECONDS = 20.0
FINISH_SECONDS = 60.0
"""How long an online run waits for the network at its start and end; data that was not uploaded stays on disk."""


class Tracker(ABC):
    """Reports a run to a tracking service. As a context manager it starts the run and records how the block ended."""

    def __enter__(self) -> Tracker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(ending_of(error).exit_status)

    @abstractmethod
    def start(self) -> None:
        """Open the run; earlier lines of a resumed run are logged again."""

    @abstractmethod
    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the figures of one logging step, with the names used on disk."""

    @abstractmethod
    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Log the final figures."""

    @abstractmethod
    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows of predictions as a table."""

    @abstractmethod
    def artifact(self, path: Path, name: str) -> None:
        """Store a folder (the model) with the run."""

    @abstractmethod
    def finish(self, exit_code: int) -> None:
        """Close the run; exit code 0 means finished, any other means failed."""


class NullTracker(Tracker):
    """Does nothing; used for `tracking=none` and on every rank except the first."""

    def start(self) -> None: ...

    def log(self, metrics: Mapping[str, Any], step: int) -> None: ...

    def summary(self, metrics: Mapping[str, Any]) -> None: ...

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def artifact(self, path: Path, name: str) -> None: ...

    def finish(self, exit_code: int) -> None: ...


class WandbTracker(Tracker):
    """One W&B run per run directory, however often it was interrupted."""

    def __init__(self, config: TrackingConfig, run: RunDirectory, resolved: Mapping[str, Any]):
        self.config = config
        self.run = run
        self.resolved = resolved
        self._wandb: Any = None
        self._session: Any = None
        self._defined: set[str] = set()
        self._broken = False

    # -- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._attempt("could not start", self._start)

    def _start(self) -> None:
        import wandb

        logging.getLogger("wandb").propagate = False  # wandb writes its own log to wandb/
        self._wandb = wandb
        mode = session_mode(self.config.mode)
        if mode == "disabled":
            self._broken = True
            return
        status = self.run.read_status()
        run_id = status.get("wandb_run_id") or uuid.uuid4().hex[:12]
        aside = self._move_earlier_segments()
        try:
            mode = self._open(mode, run_id, status)
        except BaseException:
            _move_back(aside, self.run.wandb_dir)
            raise
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        self.run.update_status(
            wandb_run_id=run_id, wandb_mode=mode, wandb_url=self._session.url if mode == "online" else None
        )
        self._define(STEP, hidden=True)
        self._replay()
        if mode == "offline":
            log.info("Weights & Biases: offline; upload with: wandb sync %s", self.run.wandb_dir)
        else:
            log.info("Weights & Biases: %s", self._session.url)

    def _open(self, mode: str, run_id: str, status: dict[str, Any]) -> str:
        """Start the session; returns its mode, which is offline if the online service does not answer."""
        try:
            self._session = self._init(mode, run_id, status)
            return mode
        except Exception as error:
            if mode == "offline":
                raise
            log.warning("Weights & Biases does not answer (%s); tracking offline instead", first_line(error)[:200])
            self._wandb.teardown()  # wandb's service process still holds the run id of the failed attempt
            shutil.rmtree(self.run.wandb_dir, ignore_errors=True)  # remove the empty segment with the same id
            self._session = self._init("offline", run_id, status)
            return "offline"

    def _init(self, mode: str, run_id: str, status: dict[str, Any]) -> Any:
        wandb = self._wandb
        sweep = status.get("sweep") or {}
        names = [*self.config.tags, *tags(self.resolved, sweep)]
        facts = ("config_hash", "data_hash", "corpus_hash", "git_commit", "git_dirty")
        about = {"directory": str(self.run.path), **{name: status.get(name) for name in facts}}
        return wandb.init(
            mode=mode,
            id=run_id,
            resume="allow" if mode == "online" else None,  # offline, wandb refuses to resume
            dir=str(self.run.path),
            project=self.config.project,
            entity=self.config.entity,
            group=self.config.group or sweep.get("name"),
            name=sweep.get("job") or self.run.path.name,
            job_type="train",
            tags=list(dict.fromkeys(tag[:64] for tag in names if tag)),
            config={**plain(mask_secrets(dict(self.resolved))), "run": about},
            settings=wandb.Settings(
                silent=True,
                console="off",  # train.log has the output
                save_code=False,
                disable_code=True,
                disable_git=True,  # the commit is in the config; do not upload a diff of the user's checkout
                x_save_requirements=False,
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                x_stats_sampling_interval=30.0,
            ),
        )

    def _move_earlier_segments(self) -> Path | None:
        """Hide an earlier segment from `wandb sync` until its replacement is open."""
        if not self.run.wandb_dir.is_dir():
            return None
        aside = self.run.path / ".wandb-earlier"
        shutil.rmtree(aside, ignore_errors=True)
        self.run.wandb_dir.rename(aside)
        return aside

    def _replay(self) -> None:
        """Log again what the run logged before it was interrupted, except what the server already has."""
        last_step = self._session.summary.get(STEP) if getattr(self._session, "resumed", False) else None
        for line in self.run.read_metrics():
            if last_step is None or line["step"] > last_step:
                metrics = {name: value for name, value in line.items() if name not in (STEP, "epoch", "seconds")}
                self._log(metrics, line["step"])

    # -- what is logged --------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self._attempt("could not log", lambda: self._log(metrics, step))

    def _log(self, metrics: Mapping[str, Any], step: int) -> None:
        numbers = {name: plain(value) for name, value in metrics.items()}
        numbers = {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        for name in numbers.keys() - self._defined:
            self._define(name)
        self._session.log({**{metric_name(name): value for name, value in numbers.items()}, STEP: step})

    def _define(self, name: str, hidden: bool = False) -> None:
        self._defined.add(name)
        if name == STEP:
            self._session.define_metric(STEP, hidden=hidden)
            return
        self._session.define_metric(metric_name(name), step_metric=STEP, summary=summary_of(name))

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Final figures go under `final/`, because `dev/recall_at_4` holds the best and last value of the curve."""
        values = {f"final/{metric_name(name)}": plain(value) for name, value in metrics.items()}
        self._attempt("could not write the summary", lambda: self._session.summary.update(values))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        shown = [flat_row(row) for row in rows[: self.config.table_rows]]
        if not shown:
            return
        columns = list(dict.fromkeys(column for row in shown for column in row))

        def write() -> None:
            data = [[row.get(column) for column in columns] for row in shown]
            table = self._wandb.Table(columns=columns, data=data, allow_mixed_types=True)
            self._session.log({metric_name(name): table})

        self._attempt("could not write a table", write)

    def artifact(self, path: Path, name: str) -> None:
        def write() -> None:
            artifact = self._wandb.Artifact(safe_name(name), type="model", metadata={"run": str(self.run.path)})
            # `immutable`: wandb uploads the folder in place, without a copy in its staging folder.
            artifact.add_dir(str(path), policy="immutable", skip_cache=True)
            self._session.log_artifact(artifact)

        self._attempt("could not store the model", write)

    def finish(self, exit_code: int) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.finish(exit_code=exit_code)
        except Exception as error:
            self._say("could not finish", error)

    # -- never fatal -----------------------------------------------------------------------------

    def _attempt(self, what: str, action: Callable[[], object]) -> None:
        """Run `action`. On an error, print one warning and stop tracking. A KeyboardInterrupt is raised as usual."""
        if self._broken or (self._session is None and self._wandb is not None):
            return
        try:
            action()
        except Exception as error:
            self._say(what, error)

    def _say(self, what: str, error: Exception) -> None:
        if not self._broken:
            log.warning(
                "Weights & Biases %s (%s); the run continues, metrics.jsonl has it all",
                what,
                first_line(error)[:200],
            )
        self._broken = True


def make_tracker(config: TrackingConfig, run: RunDirectory, resolved: Mapping[str, Any]) -> Tracker:
    """The tracker of a run: W&B on the main process if configured, else `NullTracker`. Start it with `with`."""
    if config.backend == "none" or not is_main_process():
        return NullTracker()
    return WandbTracker(config, run, resolved)


def _move_back(aside: Path | None, place: Path) -> None:
    if aside is not None and not place.exists():
        aside.rename(place)
