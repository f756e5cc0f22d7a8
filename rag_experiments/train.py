"""One run from one command line: config → checks → parts → zero shot → train → evaluate → write.

python -m rag_experiments.train [group=option …] [key=value …]        (`--help` lists them)
python -m rag_experiments.train -m …                                  a sweep
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rag_experiments.config import command_line
from rag_experiments.core import distributed, files
from rag_experiments.core.credentials import mask_secrets, refuse_secrets
from rag_experiments.core.distributed import is_main_process
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.recorder import recording
from rag_experiments.training import chain, resume

if TYPE_CHECKING:
    from rag_experiments.training.request import Request

log = logging.getLogger(__name__)

PURPOSE = "Train one half of a retrieval-augmented QA system, evaluate it before and after, and write a run directory."


def main() -> None:
    """The console script and `python -m`."""
    command_line.exit_with(start)


def start(arguments: list[str]) -> int:
    """From the typed arguments to an exit status.

    A single run is checked whole before Hydra makes its directory, so that a refused request leaves nothing.
    """
    if {"-h", "--help"} & set(arguments):
        print(command_line.help_page("python -m rag_experiments.train", PURPOSE))
        return command_line.DONE
    line = command_line.parse(arguments)
    refuse_secrets(line.overrides)
    if distributed.several() and line.multirun:
        raise RequestError("a sweep starts processes of its own: start it without torchrun or accelerate launch")
    if line.shows_only and not is_main_process():
        return command_line.DONE
    space = next((value for value in line.overrides if value.startswith("sweep=") and value != "sweep=null"), None)
    if line.multirun or line.shows_only:
        if space and not any(value.startswith("hydra/sweeper=") for value in line.overrides):
            arguments = [*arguments, "hydra/sweeper=optuna"]  # the YAML of a space cannot choose it
        return command_line.run_hydra(arguments, TaskFunction())
    if space and not any(value.startswith("sweep.name=") for value in line.overrides):  # a sweep's job has both
        raise RequestError(f"{space} is a search space: add -m to search it")
    continued = resume.asked_for(line.overrides)
    if continued and chain.is_chain(continued):
        others = [value for value in line.overrides if not value.startswith("resume=")]
        line = command_line.parse(chain.resumed_arguments(Path(continued), others))
    command, directory, composed = decide(line)
    if "chain" in composed:
        return chain.start(composed, command.overrides, command.config_dir)
    request = check(composed, directory)
    if request.config.plan:
        from rag_experiments.training.plan import print_plan

        if is_main_process():
            print_plan(request, directory)
        return command_line.DONE
    # The directory was decided above; Hydra must not decide again, a second later.
    overrides = [value for value in command.overrides if not value.startswith("hydra.run.dir=")]
    overrides.append(f"hydra.run.dir={resume.quoted(str(directory))}")
    if not is_main_process():
        overrides += [value for value in distributed.QUIET if value not in overrides]
    task = TaskFunction(request, resuming=command.directory is not None)
    arguments = resume.CommandPlan(overrides, command.config_dir, None).arguments
    existing = files.nearest_existing(directory)
    status = command_line.run_hydra(arguments, task)
    if task.refused is not None:  # found out late: the run discarded its directory, and those around it are empty
        files.remove_empty_folders(directory.parent, existing)
        raise task.refused
    return status


def decide(line: command_line.CommandLine) -> tuple[resume.CommandPlan, Path, DictConfig]:
    """What is to be run, in which directory, and that composed: one decision, however many processes the run has.

    Raises:
        RequestError: nothing that can be resumed, or the directory holds a run already.
    """

    here: list[DictConfig] = []

    def decided() -> dict[str, Any]:
        command = resume.resolve(line.overrides, line.config_dir)
        composed = command_line.compose(command.overrides, command.config_dir)
        here.append(composed)
        directory = Path(composed.hydra.run.dir)
        if "chain" in composed:
            if distributed.several():
                raise RequestError("a chain starts a process for each stage: start it without torchrun")
        elif command.directory is None and (directory / "status.json").exists():
            raise RequestError(f"hydra.run.dir={directory} already holds a run: continue it with resume={directory}")
        return {
            "overrides": command.overrides,
            "config_dir": command.config_dir,
            "resumes": command.directory is not None,
            "directory": str(directory),
        }

    found = distributed.decided_once(decided)
    directory = Path(found["directory"])
    resumed = directory if found["resumes"] else None
    command = resume.CommandPlan(found["overrides"], found["config_dir"], resumed)
    return command, directory, here[0] if here else command_line.compose(command.overrides, command.config_dir)


def check(composed: DictConfig, directory: Path) -> Request:
    """Every check of one run: its directory, then `request.check_request`.

    Raises:
        RequestError: with the one sentence that the user reads.
    """
    from rag_experiments.core.files import check_writable
    from rag_experiments.training.request import check_request

    check_writable(directory, "hydra.run.dir")
    return check_request(composed)


class TaskFunction:
    """What Hydra calls with a composed configuration: once for a single run, once a job in a sweep."""

    __name__ = "train"

    def __init__(self, request: Request | None = None, resuming: bool = False):
        self.request = request
        self.resuming = resuming
        self.status = command_line.DONE
        self.refused: RequestError | None = None
        """Why the run's directory was discarded; raised here, Hydra would print a line of its own first."""

    def __call__(self, composed: DictConfig) -> float | None:
        """Run; returns the figure that a search maximises or minimises (None where the run did not end well)."""
        from hydra.core.hydra_config import HydraConfig

        from rag_experiments.training.request import check_request

        directory = Path(HydraConfig.get().runtime.output_dir)
        request = self.request or check_request(composed)
        if self.request is None:  # a job of a sweep, in whichever process its launcher chose
            self.resuming = (directory / "status.json").exists()
        run = RunDirectory.open(directory) if self.resuming else RunDirectory.create(directory)
        alone = self.request is not None  # a sweep reads in its directory how a job ended
        with recording(run, request.config_hash, facts(request), discard_refused=alone) as outcome:
            outcome.metrics = train(request, run, resuming=self.resuming)
        if not alone and outcome.exit_status == command_line.INTERRUPTED:
            raise KeyboardInterrupt  # the sweep's too
        self.status, self.refused = outcome.exit_status, outcome.refused
        return objective(request, outcome.metrics) if self.status == command_line.DONE else None


def train(request: Request, run: RunDirectory, resuming: bool = False) -> dict[str, float]:
    """A checked request → a finished run directory. Returns the final figures."""
    from rag_experiments.runs.tracking import make_tracker
    from rag_experiments.training import build, stages
    from rag_experiments.training.callbacks import RunLog
    from rag_experiments.training.pruning import pruning_callbacks

    config = request.config
    run.write_config(OmegaConf.to_yaml(OmegaConf.create(mask_secrets(request.resolved))))
    with make_tracker(config.tracking, run, request.resolved) as tracker:
        run_log = RunLog(run, tracker)
        for note in request.data.notes:
            log.info("data: %s", note)
        parts = build.build_parts(request)
        before = stages.zero_shot(parts, run, run_log)
        trainer = build.build_trainer(request, parts, run.checkpoints_dir, [run_log, *pruning_callbacks(config)])
        cost = stages.fit(trainer, run.last_checkpoint() if resuming else None)
        stages.save_model(parts, run)
        after = stages.final(parts, run, run_log, trainer.state)
        metrics = {**before, **after, **cost}
        run.write_metrics(metrics)
        stages.report(run, tracker, metrics, config.tracking)
    return metrics


def facts(request: Request) -> dict[str, Any]:
    """What `status.json` says of a run besides its state."""
    return {
        "algorithm": request.config.algorithm.name,
        "name": request.config.name,
        "sweep": _sweep_facts(request),
        "data_hash": request.data.content_hash,
        "corpus_hash": request.data.corpus_hash,
        "data": {
            "format": request.config.data.format,
            "path": request.config.data.path,
            "passages": len(request.data.passages),
            **{split: len(questions) for split, questions in request.data.splits.items()},
        },
        "command": " ".join([Path(sys.executable).name, "-m", "rag_experiments.train", *sys.argv[1:]]),
        "working_directory": os.getcwd(),
    }


def _sweep_facts(request: Request) -> dict[str, str | None] | None:
    sweep = request.config.sweep
    return {"name": sweep.name, "job": sweep.job} if sweep.name else None


def objective(request: Request, metrics: dict[str, float]) -> float | None:
    """The figure that sweeps search by: `sweep.metric`, or else `trainer.metric_for_best_model`."""
    config = request.config
    return metrics.get(config.sweep.metric or config.trainer.get("metric_for_best_model") or "")


if __name__ == "__main__":
    main()
