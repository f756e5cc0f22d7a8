"""Chains of runs: what each stage is started with, what is skipped or resumed, and the table at the end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from rag_experiments import train
from rag_experiments.config import command_line
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training import chain
from tests.stand_in import stand_in

LOOP = ["experiment=fid_dca_loop", "seed=3", "tracking=none"]


@pytest.fixture
def started(monkeypatch, tmp_path) -> list[list[str]]:
    """Stages end at once, each with figures of its own; the command lines they were started with."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        overrides = command[3:]
        commands.append(overrides)
        at = next(
            value.partition("=")[2].strip("'") for value in overrides if value.startswith(("hydra.run.dir=", "resume="))
        )
        finish(Path(at), recall=0.5 + len(commands) / 100)
        return SimpleNamespace(returncode=0)

    stand_in(monkeypatch, chain, "subprocess", run=run)
    return commands


def finish(at: Path, recall: float, state: str = "completed") -> None:
    run = RunDirectory.open(at) if (at / "status.json").is_file() else RunDirectory.create(at)
    run.update_status(state=state)
    run.write_metrics(
        {
            "zero_shot/test/recall@4": 0.5,
            "test/recall@4": recall,
            "test/recall@4_ci_low": recall - 0.1,
            "test/recall@4_ci_high": recall + 0.1,
        }
    )


def launch(tmp_path: Path, *more: str) -> int:
    overrides = [*LOOP, f"hydra.run.dir={tmp_path / 'loop'}", *more]
    return chain.start(command_line.compose(overrides), overrides, None)


def test_two_rounds_feed_each_other(started, tmp_path, capsys):
    at = tmp_path / "loop"
    assert launch(tmp_path, 'chain.stages.fid.extra=["trainer.max_steps=2"]') == command_line.DONE
    first, distil, second, again = started
    assert first == [
        *["algorithm=fid", "trainer=quick", "seed=3", "tracking=none", "trainer.max_steps=2"],
        *["name=1_fid", f"hydra.run.dir='{at}/1_fid'"],
    ]
    assert f"algorithm.teacher.path='run://{at}/1_fid'" in distil
    assert not any(value.startswith(("model=", "trainer.")) for value in distil)
    assert f"retriever.encoder.path='run://{at}/1_dca'" in second
    assert f"algorithm.teacher.path='run://{at}/2_fid'" in again
    assert f"model.path='run://{at}/1_dca'" in again
    table = (at / "comparison.md").read_text(encoding="utf-8").replace("\\_", "_")
    assert [line.split("|")[1].strip() for line in table.splitlines() if "1_" in line or "2_" in line] == [
        *["before 1_fid", "after 1_fid", "before 1_dca", "after 1_dca", "after 2_fid", "after 2_dca"]
    ]
    assert "54.0 [44.0, 64.0]" in table
    assert "after 2_dca" in capsys.readouterr().out


def test_every_stage_composes(started, tmp_path):
    """With the overrides it gets, but for the runs that it names."""
    launch(tmp_path)
    for overrides in started:
        named = [value for value in overrides if "run://" not in value and not value.endswith("=run")]
        assert command_line.compose(named).seed == 3


def test_completed_stages_are_skipped_and_an_unfinished_one_is_resumed(started, tmp_path):
    launch(tmp_path)
    del started[:]
    at = tmp_path / "loop"
    finish(at / "1_dca", 0.7, state="interrupted")
    assert launch(tmp_path) == command_line.DONE
    assert started == [[f"resume='{at}/1_dca'"]]


def test_a_failed_stage_ends_the_chain_with_its_status(monkeypatch, tmp_path, capsys):
    stand_in(monkeypatch, chain, "subprocess", run=lambda command, check: SimpleNamespace(returncode=1))
    assert launch(tmp_path) == 1
    assert "go on with resume=" in capsys.readouterr().err
    assert not (tmp_path / "loop" / "comparison.md").exists()


def test_resume_goes_on_with_what_was_typed(started, tmp_path):
    launch(tmp_path, "chain.rounds=1")
    del started[:]
    at = tmp_path / "loop"
    finish(at / "1_dca", 0.7, state="failed")
    assert train.start([f"resume={at}"]) == command_line.DONE
    assert started == [[f"resume='{at}/1_dca'"]]
    with pytest.raises(RequestError, match="leave out seed=9"):
        train.start([f"resume={at}", "seed=9"])


def test_plan_runs_nothing(started, tmp_path, capsys):
    assert launch(tmp_path, "plan=true") == command_line.DONE
    assert not started
    assert not (tmp_path / "loop").exists()
    assert "1_dca" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"stages": {"a": {"overrides": []}}, "rounds": 0}, "chain.rounds"),
        ({"stages": {"a": {}}}, "chain.stages.a.overrides"),
        ({"stages": {"a": {"overrides": [], "after": {"b": []}}}}, "there is no such stage"),
        ({"stages": {}}, "chain.stages is empty"),
        *((value, "experiment=rpg_loop has one") for value in (True, None, "/nowhere", 3, ["a"])),
    ],
)
def test_wrong_descriptions(described, said):
    with pytest.raises(RequestError, match=said):
        chain.check_plan(described)


def test_a_stage_must_have_run_before_it_is_named():
    plan = chain.check_plan({"stages": {"a": {"overrides": ["x={b}"]}, "b": {"overrides": []}}})
    with pytest.raises(RequestError, match="has not run before it"):
        chain.list_stages(plan, Path("loop"), [])


@pytest.mark.parametrize("override", ["x={", "x={}", "x={0}", "x={a.nothing}", "x={a[}"])
def test_braces_that_name_no_stage_are_refused(override):
    plan = chain.check_plan({"stages": {"a": {"overrides": []}, "b": {"overrides": [override]}}})
    with pytest.raises(RequestError, match=r"chain\.stages\.b"):
        chain.list_stages(plan, Path("loop"), [])


@pytest.mark.parametrize(
    "typed",
    [
        *("++chain=/nowhere", "+chain=true", "++chain=null", "+chain=${seed}", "+chain={}", "++chain=${nowhere}"),
        *("++chain.stages=${oc.env:NOT_SET_HERE}", "+chain={stages:${oc.env:NOT_SET_HERE}}"),
        "++chain.rounds=${oc.decode:[}",
    ],
)
def test_what_is_typed_as_a_chain_and_is_none_is_refused_in_one_sentence(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(train.start, ["algorithm=fid", typed])
    assert ended.value.code == command_line.WRONG_REQUEST
    assert "chain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("seed=${oc.env:NOT_SET_HERE}", "seed: the environment variable NOT_SET_HERE is not set"),
        ("++chain.stages=${oc.env:NOT_SET_HERE}", "chain.stages: the environment variable NOT_SET_HERE is not set"),
        ("hydra.run.dir=${oc.env:NOT_SET_HERE}", "hydra.run.dir: the environment variable NOT_SET_HERE is not set"),
        ("trainer.run_name=${nowhere}", "trainer.run_name: there is no key 'nowhere' to take the value from"),
        ("data.path=${oc.decode:[}", "data.path: ${…} in the value cannot be read"),
        ("++chain.rounds=${oc.decode:[}", "chain.rounds: ${…} in the value cannot be read"),
        ("trainer.max_steps=${seed.x}", "trainer.max_steps: Error trying to access seed.x"),
    ],
)
def test_a_value_that_cannot_be_resolved_is_refused_wherever_it_is_read(typed, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(train.start, ["algorithm=ctl", typed])
    assert ended.value.code == command_line.WRONG_REQUEST
    assert f"error: {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "typed",
    [
        *(["hydra.verbose=5"], ["hydra.verbose=5", "-m"], ["hydra.job_logging.version=9"]),
        *(
            ["hydra.job_logging.handlers=5"],
            ["hydra.sweeper._target_=nope", "-m"],
            ["hydra.hydra_logging.version=9", "-m"],
        ),
    ],
    ids=" ".join,
)
def test_what_hydra_does_not_check_itself_is_refused_and_leaves_nothing(typed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(train.start, ["algorithm=ctl", "model=bert_tiny_scratch", *typed])
    assert ended.value.code == command_line.WRONG_REQUEST
    assert f"error: Hydra cannot work with {typed[0]} (" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_wrong_first_stage_leaves_nothing(tmp_path):
    with pytest.raises(RequestError, match="greater than or equal to 1"):
        launch(tmp_path, "retriever.k=-1")
    assert not (tmp_path / "loop").exists()


def test_the_command_line_is_kept_whole(started, tmp_path):
    launch(tmp_path)
    stored = json.loads((tmp_path / "loop" / chain.FILE).read_text(encoding="utf-8"))
    assert stored["overrides"] == LOOP


# -- a chain that ends when nothing is gained ------------------------------------------------------------


def measured(at: Path, gain: float, questions: int = 24) -> None:
    """A completed run whose dev f1 is `gain` above what it was before, for three questions in four."""
    finish(at, 0.6)
    run = RunDirectory.open(at)
    run.write_config("trainer: {metric_for_best_model: dev/f1}\n")
    for stage, value in (("zero_shot/dev", 0.3), ("dev", 0.3 + gain)):
        rows = [
            {"id": str(n), "question": str(n), "positive_ids": [str(n)], "metrics": {"f1": value if n % 4 else 0.3}}
            for n in range(questions)
        ]
        run.write_predictions(stage, rows)


def alternating(monkeypatch, tmp_path: Path, gains: dict[str, float], *more: str) -> tuple[int, list[list[str]]]:
    """Run `experiment=alternate` with stages that gain so much (0 where nothing is said)."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        commands.append(command[3:])
        at = Path(next(v.partition("=")[2].strip("'") for v in command if v.startswith("hydra.run.dir=")))
        measured(at, gains.get(at.name, 0.0))
        return SimpleNamespace(returncode=0)

    stand_in(monkeypatch, chain, "subprocess", run=run)
    overrides = ["experiment=alternate", "tracking=none", f"hydra.run.dir={tmp_path / 'turns'}", *more]
    return chain.start(command_line.compose(overrides), overrides, None), commands


@pytest.mark.parametrize(
    ("gains", "rounds"),
    [
        ({}, 1),
        ({"1_reader": 0.2}, 2),
        ({"1_encoder": 0.2, "2_reader": -0.2}, 2),
        ({"1_reader": 0.2, "2_encoder": 0.2, "3_reader": 0.2}, 4),
        ({f"{turn}_reader": 0.2 for turn in range(1, 9)}, 4),
    ],
)
def test_the_chain_ends_after_a_round_in_which_no_half_gained(monkeypatch, tmp_path, capsys, gains, rounds):
    status, commands = alternating(monkeypatch, tmp_path, gains)
    assert status == command_line.DONE
    assert [value for one in commands for value in one if value.startswith("name=")] == [
        f"name={turn}_{half}" for turn in range(1, rounds + 1) for half in ("reader", "encoder")
    ]
    said = capsys.readouterr().out
    ended = not any(name.startswith(f"{rounds}_") and gain > 0 for name, gain in gains.items())
    assert ("no stage gained, the chain ends" in said) is ended
    assert said.count("on dev: ") == rounds
    assert f"after {rounds}_encoder" in said


def test_each_half_goes_on_beside_the_others_last_run(monkeypatch, tmp_path):
    _, (reader, encoder, again, last) = alternating(monkeypatch, tmp_path, {"1_reader": 0.2})
    at = tmp_path / "turns"
    assert not any("run://" in value for value in reader)
    assert [value for value in encoder if "run://" in value] == [f"algorithm.teacher.path='run://{at}/1_reader'"]
    assert f"model.path='run://{at}/1_reader'" in again
    assert f"retriever.encoder.path='run://{at}/1_encoder'" in again
    assert f"algorithm.teacher.path='run://{at}/2_reader'" in last
    assert f"model.path='run://{at}/1_encoder'" in last


@pytest.mark.parametrize("typed", ["evaluation.zero_shot=false", "evaluation.splits=[test]"])
def test_a_chain_that_ends_by_dev_must_measure_it(monkeypatch, tmp_path, typed):
    with pytest.raises(RequestError, match=r"chain\.stop=no_gain .* stage reader: it needs evaluation\.zero_shot=true"):
        alternating(monkeypatch, tmp_path, {}, typed)
    extra = f'chain.stages.encoder.extra=["{typed}"]'
    with pytest.raises(RequestError, match="stage encoder"):
        alternating(monkeypatch, tmp_path, {}, extra)
    assert not (tmp_path / "turns").exists()


def other_halves() -> list[list[str]]:
    """What the manual offers in place of SwR and RPG."""
    page = (Path(__file__).parents[2] / "docs" / "manual" / "joint.md").read_text(encoding="utf-8")
    lines = page.partition("## In turn")[2].splitlines()
    return [shlex.split(line) for line in lines if line.startswith("    'chain.stages.")]


@pytest.mark.parametrize("typed", other_halves(), ids=lambda typed: typed[0].partition("algorithm=")[2].split('"')[0])
def test_the_halves_that_the_manual_offers_compose(monkeypatch, tmp_path, typed):
    _, commands = alternating(monkeypatch, tmp_path, {"1_reader": 0.2}, *typed)
    assert len(commands) == 4
    for overrides in commands:
        named = [value for value in overrides if "run://" not in value and not value.endswith("=run")]
        composed = command_line.compose(command_line.parse(named).overrides)
        assert composed.algorithm.name in " ".join([*typed, "swr", "rpg"])


def test_there_are_other_halves():
    assert len(other_halves()) == 4
