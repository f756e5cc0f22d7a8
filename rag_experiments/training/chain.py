"""Chains of runs: `experiment=fid_dca_loop` and the like, each stage an ordinary run directory.

A configuration with a `chain` key is no run but a plan of runs:

    chain:
      rounds: 2
      stop: no_gain                             # or after a round in which no stage gained on dev (`chain_stop.py`)
      stages:
        fid:                                    # in order; the name is the directory's: <chain>/1_fid
          overrides: [algorithm=fid]
          extra: []                             # the user's own, for this stage only
          after:                                # once a run of stage dca is there, as well:
            dca: ["model@retriever.encoder=run", "retriever.encoder.path='run://{dca}'"]
        dca: …

`{stage}` is the directory of that stage's newest run. Whatever else was typed (`data=…`, `seed=…`) goes to every
stage. Each runs in a process of its own: `python -m rag_experiments.train …` would give the same. Stages that are
completed are not run again, an unfinished one is resumed, so the same command (`hydra.run.dir=<chain>`), or
`resume=<chain>`, goes on where the chain stopped. At the end one table of all stages is printed and written.
"""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from rag_experiments.config import command_line
from rag_experiments.config.habits import with_places
from rag_experiments.config.overrides import quote, typed
from rag_experiments.config.schema import PositiveInt
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_json, atomic_write_text
from rag_experiments.core.visible import say
from rag_experiments.runs.directory import RunDirectory

log = logging.getLogger(__name__)

FILE = "chain.json"
"""In the chain's directory: the command line it was started with."""
COLUMNS = ("exact_match", "f1", "recall@1", "recall@4", "ndcg@10")


@dataclass(kw_only=True)
class StagePlan:
    """One stage: its overrides, the user's, and those that hold once another stage has run."""

    overrides: list[str]
    extra: list[str] = field(default_factory=list)
    after: dict[str, list[str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class ChainPlan:
    """`chain:` of a composed configuration."""

    stages: dict[str, StagePlan]
    rounds: PositiveInt = 1
    stop: Literal["rounds", "no_gain"] = "rounds"
    """`no_gain`: `rounds` are the most there are, and the chain ends after one in which no stage gained on dev."""


@dataclass
class Stage:
    """One run of the chain."""

    name: str
    """`1_fid`: round and stage."""
    kind: str
    directory: Path
    overrides: list[str]


def is_chain(directory: str | Path) -> bool:
    """Whether `directory` is a chain's, not a run's."""
    return (Path(directory) / FILE).is_file()


def resumed_arguments(directory: Path, overrides: Sequence[str]) -> list[str]:
    """The command line of the chain in `directory`. Raises `RequestError` for overrides beside it."""
    if overrides:
        raise RequestError(
            f"resume={directory} goes on with a chain of runs as it was started: leave out {overrides[0]}"
        )
    stored = json.loads((directory / FILE).read_text(encoding="utf-8"))
    config_dir = ["--config-dir", stored["config_dir"]] if stored["config_dir"] else []
    return [*config_dir, *stored["overrides"], f"hydra.run.dir={quote(str(directory))}"]


def start(composed: DictConfig, overrides: Sequence[str], config_dir: str | None) -> int:
    """Run the chain of a composed configuration; returns the exit status of the stage that ended it.

    Raises:
        RequestError: the chain's description is wrong, or its first stage is.
    """
    described = OmegaConf.select(composed, "chain", throw_on_missing=False)
    plan = check_plan(OmegaConf.to_container(described, resolve=True) if OmegaConf.is_config(described) else described)
    directory = Path(composed.hydra.run.dir).resolve()
    shared = [value for value in overrides if _key(value).split(".")[0] not in ("experiment", "chain", "hydra", "plan")]
    stages = list_stages(plan, directory, shared)
    if composed.plan:
        for stage in stages:
            print(stage.name, *stage.overrides, sep="\n    ")
        return command_line.DONE
    _check_first(stages[0], config_dir)
    if plan.stop == "no_gain":
        _check_measured(stages[: len(plan.stages)], config_dir)
    directory.mkdir(parents=True, exist_ok=True)
    chain_overrides = [value for value in overrides if _key(value) != "hydra.run.dir"]
    atomic_write_json(directory / FILE, {"overrides": chain_overrides, "config_dir": config_dir})
    for number, stage in enumerate(stages, 1):
        status = run_stage(stage, config_dir, f"stage {number} of {len(stages)}")
        if status != command_line.DONE:
            say(
                f"the chain stopped at {stage.directory}; go on with {typed('resume', str(directory))}", file=sys.stderr
            )
            return status
        if (
            plan.stop == "no_gain"
            and number % len(plan.stages) == 0
            and not _round_gained(stages[number - len(plan.stages) : number])
        ):
            stages = stages[:number]
            break
    _compare(stages, directory)
    return command_line.DONE


def check_plan(described: Any) -> ChainPlan:
    """`chain:` as a `ChainPlan`. Raises `RequestError`, naming the key."""
    if not isinstance(described, dict):
        raise RequestError(
            f"chain={described}: a chain is a mapping with stages, written in a file: experiment=rpg_loop has one"
        )
    try:
        plan = TypeAdapter(ChainPlan).validate_python(described)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("chain", *first["loc"]))
        raise RequestError(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
    if not plan.stages:
        raise RequestError("chain.stages is empty: a chain has at least one stage")
    for name, stage in plan.stages.items():
        for other in stage.after:
            if other not in plan.stages:
                raise RequestError(
                    f"chain.stages.{name}.after.{other}: there is no such stage ({', '.join(plan.stages)})"
                )
    return plan


def list_stages(plan: ChainPlan, directory: Path, shared: Sequence[str]) -> list[Stage]:
    """Every run of the chain, in order, with its overrides."""
    stages: list[Stage] = []
    newest: dict[str, Path] = {}
    for turn in range(1, plan.rounds + 1):
        for kind, described in plan.stages.items():
            overrides = list(described.overrides)
            for other, more in described.after.items():
                overrides += more if other in newest else []
            try:
                overrides = [value.format(**newest) for value in overrides]
            except KeyError as error:
                raise RequestError(f"chain.stages.{kind}: stage {error} has not run before it") from error
            except (ValueError, IndexError, AttributeError) as error:
                raise RequestError(
                    f"chain.stages.{kind}: {{name}} stands for the directory of the stage `name`; "
                    f"in other places braces are doubled ({error})"
                ) from error
            name = f"{turn}_{kind}"
            at = directory / name
            overrides += [*shared, *described.extra, f"name={name}", f"hydra.run.dir={quote(str(at))}"]
            stages.append(Stage(name, kind, at, overrides))
            newest[kind] = at
    return stages


def run_stage(stage: Stage, config_dir: str | None, position: str) -> int:
    """Run, resume or skip one stage, in a process of its own."""
    overrides = stage.overrides
    if (stage.directory / "status.json").is_file():
        if RunDirectory.open(stage.directory).read_status().get("state") == "completed":
            say(f"{position}: {stage.name} is completed", flush=True)
            return command_line.DONE
        overrides = [f"resume={quote(str(stage.directory))}"]
        config_dir = None
    say(f"{position}: {stage.name}  {shlex.join(overrides)}", flush=True)
    options = ["--config-dir", config_dir] if config_dir else []
    command = [sys.executable, "-m", "rag_experiments.train", *options, *overrides]
    return subprocess.run(command, check=False).returncode


def _check_first(stage: Stage, config_dir: str | None) -> None:
    """The first stage's configuration, before anything is written; later ones name runs that are not there yet."""
    from rag_experiments.training.checks import check_common

    check_common(_composed(stage, config_dir))


def _composed(stage: Stage, config_dir: str | None) -> DictConfig:
    """The configuration of a stage, as the process that runs it will compose it."""
    return command_line.compose(with_places(stage.overrides, config_dir), config_dir)


def _check_measured(stages: Sequence[Stage], config_dir: str | None) -> None:
    from rag_experiments.training.chain_stop import check_measured

    for stage in stages:
        check_measured(stage.kind, _composed(stage, config_dir))


def _round_gained(stages: Sequence[Stage]) -> bool:
    """Whether a stage of the round gained on dev; says what each did."""
    from rag_experiments.training.chain_stop import gain_of, has_gained, sentence

    tests = {stage.name: gain_of(stage.directory) for stage in stages}
    gained = any(map(has_gained, tests.values()))
    say(f"on dev: {sentence(tests)}" + ("" if gained else "; no stage gained, the chain ends"), flush=True)
    return gained


def _compare(stages: Sequence[Stage], directory: Path) -> None:
    from rag_experiments.core.text_table import show, to_markdown

    grid = comparison(stages)
    say()
    show([grid])
    atomic_write_text(directory / "comparison.md", to_markdown([grid]) + "\n")


def comparison(stages: Sequence[Stage]) -> Any:
    """One table: where each kind of stage began, and every stage's final figures, with intervals if any."""
    from rag_experiments.core.text_table import Grid

    rows = []
    final = [RunDirectory.open(stage.directory).read_final_metrics() for stage in stages]
    split = "test" if any(name.startswith("test/") for name in final[0]) else "dev"
    for stage, metrics in zip(stages, final, strict=True):
        if stage.kind not in {earlier.kind for earlier in stages[: stages.index(stage)]}:
            rows.append([f"before {stage.name}", *_cells(metrics, f"zero_shot/{split}")])
        rows.append([f"after {stage.name}", *_cells(metrics, split)])
    return Grid("", [f"stage ({split}, %)", *COLUMNS], rows, [False] + [True] * len(COLUMNS))


def _cells(metrics: dict[str, float], stage: str) -> list[str]:
    cells = []
    for name in COLUMNS:
        value, low, high = (metrics.get(f"{stage}/{name}{suffix}") for suffix in ("", "_ci_low", "_ci_high"))
        if value is None:
            cells.append("–")
        elif low is None or high is None:
            cells.append(f"{100 * value:.1f}")
        else:
            cells.append(f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    return cells


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
