"""Train, plan, compare, check: what the commands of these names do, as functions that return their result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import rag_experiments.compare as comparing
import rag_experiments.train as training
from rag_experiments.api import frames
from rag_experiments.api.opened_run import Overrides, Place, Run, as_words, read_line
from rag_experiments.config.surroundings import as_before, free_memory
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import DONE, INTERRUPTED, WRONG_REQUEST
from rag_experiments.data import check
from rag_experiments.data.tools import data_command

if TYPE_CHECKING:
    import pandas as pd

    from rag_experiments.data.builder import Problem
    from rag_experiments.training.plan import Plan


class RunFailed(RuntimeError):
    """A run failed; the exception that ended it is `__cause__`."""

    def __init__(self, message: str, run: Run):
        super().__init__(message)
        self.run = run
        """The run, as far as it came."""


def train(*overrides: Overrides, name: str | None = None, config_dir: Place | None = None) -> Run:
    """One run, as `python -m rag_experiments.train` gives it: the same checks, files and figures.

        rag.train("algorithm=ctl", "data=pydocs", "trainer=quick")
        rag.train({"algorithm": "ctl", "trainer.learning_rate": 1e-5}, name="small")

    Ctrl-C, or *interrupt the kernel*, ends it as interrupted; `rag.train({"resume": run.path})` goes on.

    Args:
        overrides: `"key=value"`, or mappings of keys to Python values; later ones win.
        name: the key `name`, the last part of the run directory's name.
        config_dir: a folder of your own config groups (`--config-dir`).

    Raises:
        RequestError: the request is wrong; nothing is left of it.
        RunFailed: the run failed; its directory says how.
        KeyboardInterrupt: it was interrupted.
    """
    line = read_line([*overrides, *([{"name": name}] if name is not None else [])], config_dir)
    with as_before():
        command, directory, composed = training.settle(line)
        if "chain" in composed:
            raise RequestError("a chain starts a process for each stage: start it with python -m rag_experiments.train")
        request = training.check(composed, directory)
        if request.config.plan:
            raise RequestError("plan=true trains nothing: rag.plan(…) returns the plan")
        task = training.carry_out(command, directory, composed, request)
    free_memory()
    run = Run(directory)
    if task.status != DONE:
        _raise(run, task)
    return run


def _raise(run: Run, task: training.TaskFunction) -> None:
    """Raise how a run ended that did not end well, with its own sentence and its directory."""
    assert task.outcome is not None
    assert task.outcome.ending is not None
    cause, sentence = task.outcome.exception, task.outcome.ending.sentence
    if task.status == INTERRUPTED:
        raise KeyboardInterrupt(f'interrupted; go on with rag.train({{"resume": "{run.path}"}})') from cause
    if task.status == WRONG_REQUEST:
        raise RequestError(f"{sentence} (the run's directory: {run.path})") from cause
    raise RunFailed(f"{sentence} (the run's directory: {run.path}; error.txt in it has the traceback)", run) from cause


def plan(*overrides: Overrides, name: str | None = None, config_dir: Place | None = None) -> Plan:
    """What `train` would do with the same arguments; no weights are read, nothing is written.

    Returns:
        an object that shows itself as what `plan=true` prints; `rows` has the pairs.

    Raises:
        RequestError: the request is wrong.
    """
    from rag_experiments.training.plan import make_plan

    line = read_line([*overrides, *([{"name": name}] if name is not None else [])], config_dir)
    with as_before():
        _, directory, composed = training.settle(line)
        if "chain" in composed:
            raise RequestError("a chain has a plan for each stage: python -m rag_experiments.train … plan=true")
        return make_plan(training.check(composed, directory), directory)


def compare(
    runs: Place | Sequence[Place],
    metric: str | Sequence[str] | None = None,
    baseline: Place | None = None,
    where: str | None = None,
    grouped: bool = True,
) -> pd.DataFrame:
    """The figures of `rag-compare`: a row for each configuration (its seeds together) and metric, best first.

    Columns: `run`, `metric`, `mean`, `sd` and `seeds`, and with a baseline `difference` (minus the baseline, paired by
    question), `low` and `high` (its 95 % interval), `p` (randomisation test over questions, Holm-corrected),
    `p_seeds`, `verdict`, `questions`; then `state`, `section` (runs of another one answered other questions), `paths`.
    `attrs["notes"]` holds the sentences below the table.

    Args:
        runs: runs, run directories, or folders that hold some.
        metric: what to rank by and test, such as `recall@4` or `test/f1`, or several; None: the one most runs have.
        baseline: the run, or the folder with its seeds, that all others are compared with.
        where: only these runs, such as `"algorithm=ctl and seed in [0, 1]"`.
        grouped: False gives each seed a row of its own.

    Raises:
        RequestError: a directory, a name or an expression that cannot be used.
    """
    several = [runs] if isinstance(runs, str | os.PathLike) else runs
    metrics = [metric] if isinstance(metric, str) else list(metric or [])
    document = comparing.document_of(
        [_path(one) for one in several],
        [name.strip() for names in metrics for name in names.split(",")],
        baseline=None if baseline is None else _path(baseline),
        where=where,
        grouped=grouped,
    )
    return frames.comparison(document)


def _path(place: Place) -> str:
    return str(Path(place).expanduser())


class DataFindings:
    """What is in a data set, and what is wrong with it. Shows itself as what the command prints."""

    def __init__(self, looked: check.Looked):
        self._looked = looked

    def __repr__(self) -> str:
        from rag_experiments.core.visible import visible

        return visible(self._looked.report)

    @property
    def usable(self) -> bool:
        """Whether the data can be used as it is."""
        return self._looked.verdict is None

    @property
    def verdict(self) -> str | None:
        """One sentence that says what is wrong; None: nothing."""
        return self._looked.verdict

    @property
    def problems(self) -> list[Problem]:
        """Every bad row, with its file and line."""
        return self._looked.problems

    @property
    def frame(self) -> pd.DataFrame:
        """The problems as `file`, `line`, `kind`, `reason`."""
        return frames.problems(self._looked.problems)


def check_data(
    path: Place | None = None,
    *overrides: Overrides,
    needs: Sequence[Literal["positives", "answers"]] = (),
    fix: Place | None = None,
    config_dir: Place | None = None,
) -> DataFindings:
    """Look at a data set, as `rag-data check` does. Bad rows are found, not raised.

        rag.check_data("my_questions.csv")                          what it is, is found out: data=auto
        rag.check_data("corpora/scifact", "data=beir")
        rag.check_data(None, "data=pydocs")

    Args:
        path: `data.path`; what is there is looked at, unless an override names the format.
        overrides: as for `train`, and `check.examples` and `check.problems`.
        needs: what every question must have; one without it is a problem.
        fix: a new folder for what is usable (`--fix`).
        config_dir: a folder of your own config groups.

    Raises:
        RequestError: the files do not exist, or are of a kind that is never read.
    """
    own: list[Overrides] = []
    if path is not None:
        own.append({"data.path": str(path)})
    if needs:
        own.append({"check.needs": list(needs)})
    with as_before():
        command = data_command.parse(as_words([*own, *overrides], config_dir), "check", check.CheckOptions)
        if command.words:
            raise RequestError(f"check does not know {command.words[0]!r}: give key=value")
        folder = None if fix is None else data_command.target_folder([str(fix)], "check")
        return DataFindings(check.look(command, folder))
