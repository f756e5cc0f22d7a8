"""One run from one command line: config → checks → parts → zero shot → train → evaluate → write.

python -m rag_experiments.train [group=option …] [key=value …]        (`--help` lists them)
python -m rag_experiments.train -m …                                  a sweep
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from rag_experiments.config import command_line, filling, habits, keys
from rag_experiments.config.overrides import quote, typed
from rag_experiments.core import distributed, files
from rag_experiments.core.callable_module import let_call
from rag_experiments.core.credentials import refuse_secrets
from rag_experiments.core.distributed import is_main_process
from rag_experiments.core.errors import RequestError
from rag_experiments.core.visible import say
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.recorder import Outcome, recording
from rag_experiments.training import chain, resume
from rag_experiments.training.run import facts, objective, train

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
        print(keys.help_text("python -m rag_experiments.train", PURPOSE, arguments))
        return command_line.DONE
    if message := habits.habit_message("python -m rag_experiments.train", arguments):
        raise RequestError(message)
    line = command_line.parse(arguments)
    refuse_secrets(line.overrides)
    if distributed.several() and line.multirun:
        raise RequestError("a sweep starts processes of its own: start it without torchrun or accelerate launch")
    if line.shows_only and not is_main_process():
        return command_line.DONE
    space = next((value for value in line.overrides if value.startswith("sweep=")), None)
    if line.multirun or line.shows_only:
        searches = space and not any(value.startswith("hydra/sweeper=") for value in line.overrides)
        more = ["hydra/sweeper=optuna"] if searches else []  # the YAML of a space cannot choose it
        return command_line.run_hydra(line.arguments + more, TaskFunction())
    command, directory, composed = settle(line)
    if "chain" in composed:
        return chain.start(composed, command.overrides, command.config_dir)
    request = check(composed, directory)
    if request.config.plan:
        from rag_experiments.training.plan import make_plan

        if is_main_process():
            say(make_plan(request, directory))
        return command_line.DONE
    status = carry_out(command, directory, composed, request).status
    if status == command_line.DONE and is_main_process() and not request.config.sweep.name:
        from rag_experiments.training.next_commands import farewell

        say(farewell(RunDirectory.open(directory), request.config, request.data))
    return status


def settle(line: command_line.CommandLine) -> tuple[resume.CommandPlan, Path, DictConfig]:
    """`decide` for a line as it was typed, which may name a search space, or a chain to go on with.

    Raises:
        RequestError: a search space without `-m`, or as `decide`.
    """
    space = next((value for value in line.overrides if value.startswith("sweep=")), None)
    if space and not any(value.startswith("sweep.name=") for value in line.overrides):  # a sweep's job has both
        raise RequestError(f"{space} is a search space: add -m to search it")
    continued = resume.asked_for(line.overrides)
    if continued and chain.is_chain(continued):
        others = [value for value in line.overrides if not value.startswith("resume=")]
        line = command_line.parse(chain.resumed_arguments(Path(continued), others))
    return decide(line)


def carry_out(command: resume.CommandPlan, directory: Path, composed: DictConfig, request: Request) -> TaskFunction:
    """Train a checked request in its directory; how that ended is in the `TaskFunction`.

    Args:
        command, directory, composed: what `settle` returned.

    Raises:
        RequestError: the request proved wrong before any work was done; nothing is left of it.
    """
    # The directory was decided above; Hydra must not decide again, a second later.
    overrides = [value for value in command.overrides if not value.startswith("hydra.run.dir=")]
    overrides.append(f"hydra.run.dir={quote(str(directory))}")
    if not is_main_process():
        overrides += [value for value in distributed.QUIET if value not in overrides]
    task = TaskFunction(request, resuming=command.directory is not None)
    arguments = resume.CommandPlan(overrides, command.config_dir, None).arguments
    known = None  # rank 0's overrides alone are those that were composed; Hydra notes where a `--config-dir` is
    if is_main_process() and command.config_dir is None:
        known = filling.in_directory(composed, arguments, str(directory))
    existing = files.nearest_existing(directory)
    try:
        command_line.run_hydra(arguments, task, known)
    except RequestError:
        if not task.started:
            files.remove_empty_folders(directory, existing)
        raise
    if task.refused is not None:  # found out late: the run discarded its directory, and those around it are empty
        files.remove_empty_folders(directory.parent, existing)
        raise task.refused
    return task


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
        with command_line.translated_errors():  # it may name a key that has no value, or was taken out
            directory = Path(composed.hydra.run.dir)
        if "chain" in composed:
            if distributed.several():
                raise RequestError("a chain starts a process for each stage: start it without torchrun")
        elif command.directory is None and (directory / "status.json").exists():
            raise RequestError(
                f"hydra.run.dir={directory} already holds a run: continue it with {typed('resume', str(directory))}"
            )
        return {
            "overrides": command.overrides,
            "config_dir": command.config_dir,
            "resumes": command.directory is not None,
            "directory": str(directory),
        }

    decision = distributed.decided_once(decided)
    directory = Path(decision["directory"])
    resumed = directory if decision["resumes"] else None
    command = resume.CommandPlan(decision["overrides"], decision["config_dir"], resumed)
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
        # Of a task from `__main__`, Hydra reads the source of every caller to see where its configuration lies.
        self.__module__ = "rag_experiments.train"
        self.request = request
        self.resuming = resuming
        self.status = command_line.DONE
        self.started = False
        self.outcome: Outcome | None = None
        self.refused: RequestError | None = None
        """Why the run's directory was discarded; raised here, Hydra would print a line of its own first."""

    def __call__(self, composed: DictConfig) -> float | None:
        """Run; returns the figure that a search maximises or minimises (None where the run did not end well)."""
        from hydra.core.hydra_config import HydraConfig

        from rag_experiments.training.request import check_request

        self.started = True
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
        self.outcome, self.status, self.refused = outcome, outcome.exit_status, outcome.refused
        return objective(request, outcome.metrics) if self.status == command_line.DONE else None


if __name__ == "__main__":
    main()
else:
    let_call(__name__, "rag_experiments.api.launch:train")
