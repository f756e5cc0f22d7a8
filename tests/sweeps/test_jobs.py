"""Whether a job must run, where, and what its directory says of its end. No Hydra, no training."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rag_experiments.config.schema import SweepConfig
from rag_experiments.core import provenance
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.sweeps import jobs
from rag_experiments.sweeps.jobs import Job, Planner, Result, result_of

HASH = {"config_hash": "c0ffee00c0ffee00", "data_hash": "da7a"}


@pytest.fixture(autouse=True)
def commit(monkeypatch):
    monkeypatch.setattr(provenance, "git_state", lambda: ("here", False))


def known(folder: Path, name: str = "known", begun: bool = True, **status) -> RunDirectory:
    """A run that an earlier call left."""
    run = RunDirectory.create(folder / name)
    run.update_status(**{"state": "completed", "git_commit": "here", **HASH, **status})
    if begun:
        (run.path / ".hydra").mkdir()
        (run.path / ".hydra" / "overrides.yaml").write_text("[]")
    return run


def job(label: str = "lr-1", **given) -> Job:
    return Job(label, ["seed=0"], **{**HASH, **given})


def planned(folder: Path, *given: Job, **config) -> list[tuple[str, str]]:
    planner = Planner(folder, SweepConfig(**config))
    return [(planner.plan(each).action, each.path.name) for each in given or [job()]]


RUNNING = {"state": "running", **provenance.process_identity()}
KILLED = {**RUNNING, "pid": 2**22 + 1}


@pytest.mark.parametrize(
    ("status", "config", "action"),
    [
        ({}, {}, "reuse"),
        ({}, {"reuse_completed": False}, "run"),
        ({"git_commit": "elsewhere"}, {}, "reuse"),
        ({"git_commit": "elsewhere"}, {"same_code": True}, "run"),
        ({}, {"same_code": True}, "reuse"),
        (RUNNING, {}, "wait"),
        (KILLED, {}, "resume"),
        ({"state": "interrupted"}, {}, "resume"),
        ({"state": "interrupted"}, {"retry_failed": False}, "resume"),
        ({"state": "failed"}, {}, "resume"),
        ({"state": "failed"}, {"retry_failed": False}, "leave"),
        ({"config_hash": "another"}, {}, "run"),
        ({"data_hash": "another"}, {}, "run"),
    ],
)
def test_what_becomes_of_a_job(tmp_path, status, config, action):
    known(tmp_path, **status)
    assert planned(tmp_path, **config) == [(action, "known" if action != "run" else "lr-1")]


def test_a_completed_run_comes_before_others_of_the_same_configuration(tmp_path):
    known(tmp_path, "a", state="failed")
    known(tmp_path, "b", state="interrupted")
    known(tmp_path, "c")
    assert planned(tmp_path) == [("reuse", "c")]


def test_a_job_that_never_began_has_nothing_to_resume(tmp_path):
    known(tmp_path, state="failed", begun=False)
    assert planned(tmp_path) == [("run", "known")]


def test_two_jobs_never_have_one_directory(tmp_path):
    known(tmp_path)
    assert planned(tmp_path, job(), job(), job()) == [
        ("reuse", "known"),
        ("run", "lr-1"),
        ("run", "lr-1-c0ffee00"),
    ]


def test_a_name_that_another_configuration_has_is_not_taken(tmp_path):
    known(tmp_path, "lr-1", config_hash="another")
    known(tmp_path, "lr-1-c0ffee00", config_hash="another")
    assert planned(tmp_path) == [("run", "lr-1-c0ffee00-2")]
    (tmp_path / "lr-2").mkdir()  # empty, or of a job that never began
    assert planned(tmp_path, job("lr-2")) == [("run", "lr-2")]


def test_a_thousand_runs_of_one_name_are_refused(tmp_path, monkeypatch):
    planner = Planner(tmp_path, SweepConfig())
    names = ["x", "x-c0ffee00", *[f"x-c0ffee00-{number}" for number in range(2, 1000)]]
    planner.directories_in_use = {str(tmp_path / name) for name in names}
    with pytest.raises(RequestError, match="choose another name="):
        planner.plan(job("x"))
    planner.directories_in_use.remove(str(tmp_path / "x-c0ffee00-999"))
    assert planner.plan(job("x")).path.name == "x-c0ffee00-999"


def test_a_label_that_cannot_be_typed_becomes_a_name_that_can(tmp_path):
    assert planned(tmp_path, job("ü/x")) == [("run", "u-x")]


def test_a_job_knows_its_sweep_and_whose_code_its_result_is(tmp_path):
    known(tmp_path / "mine", git_commit="elsewhere")
    planner = Planner(tmp_path / "mine", SweepConfig())
    first, second = planner.plan(job()), planner.plan(job())
    assert (first.sweep, first.action, first.other_code) == ("mine", "reuse", True)
    assert (second.action, second.other_code) == ("run", False)


def test_a_broken_status_is_passed_over_and_said(tmp_path, caplog):
    (tmp_path / "a").mkdir(parents=True)
    (tmp_path / "a" / "status.json").write_text("{")
    known(tmp_path, "b")
    assert planned(tmp_path) == [("reuse", "b")]
    assert "this run is ignored" in caplog.text


def test_a_job_that_is_forgotten_is_planned_by_what_is_there_now(tmp_path):
    planner = Planner(tmp_path, SweepConfig())
    mine = planner.plan(job())
    mine.extra = ["sweep.name=s", "sweep.job=j", "sweep.trial=3"]
    known(tmp_path, "lr-1")  # another process did it in the meantime
    planner.forget(mine)
    assert mine.extra == ["sweep.trial=3"]
    assert (planner.plan(mine).action, mine.path.name) == ("reuse", "lr-1")
    planner.forget(mine)
    assert planner.plan(mine).action == "reuse"
    assert len(planner.runs_by_hashes[HASH["config_hash"], HASH["data_hash"]]) == 1  # known once


def test_a_forgotten_job_whose_status_is_broken_is_no_error(tmp_path):
    planner = Planner(tmp_path, SweepConfig())
    mine = planner.plan(job())
    mine.path.mkdir()
    (mine.path / "status.json").write_text("{")
    assert planner.forget(mine) is mine


# -- the command line ----------------------------------------------------------------------------------


def test_the_command_line_of_a_fresh_job():
    mine = job(directory="/s/a b", extra=["sweep.job=j"], config_dir="/conf")
    assert mine.arguments() == ["--config-dir", "/conf", "seed=0", "sweep.job=j", "hydra.run.dir='/s/a b'"]
    mine.config_dir = None
    assert mine.arguments()[0] == "seed=0"


def test_a_continued_job_replays_its_stored_command_line_under_its_new_number():
    mine = job(directory="/s/a", action="resume", extra=["sweep.name=s", "sweep.study=x", "sweep.trial=3"])
    assert mine.arguments() == ["resume='/s/a'", "sweep.study=x", "sweep.trial=3"]


# -- results -------------------------------------------------------------------------------------------


def ended(tmp_path, figures: dict | None = None, metric: str | None = "dev/f1", **status) -> Result:
    run = known(tmp_path, **status)
    if figures is not None:
        run.write_metrics(figures)
    return result_of(job(directory=str(run.path), metric=metric))


def test_a_completed_jobs_figure(tmp_path):
    assert ended(tmp_path, {"dev/f1": 0.5}, seconds=3.0) == Result("completed", 0.5, 3.0)


def test_a_figure_that_is_not_there_is_said(tmp_path):
    result = ended(tmp_path, {"dev/f2": 0.5})
    assert (result.state, result.value) == ("completed", None)
    assert result.note == "it has no figure dev/f1 (did you mean 'dev/f2'?)"


def test_without_a_metric_there_is_no_figure(tmp_path):
    assert ended(tmp_path, {"dev/f1": 0.5}, metric=None) == Result("completed")


def test_a_failed_job_says_why(tmp_path):
    error = {"type": "ValueError", "message": "a shape\nmore", "kind": "exception"}
    result = ended(tmp_path, {"dev/f1": 0.5}, state="failed", error=error, seconds=1.0)
    assert result == Result("failed", None, 1.0, "ValueError: a shape", "exception")
    assert result.failed


def test_an_interrupted_job_has_no_note(tmp_path):
    error = {"type": "KeyboardInterrupt", "message": "", "kind": "exception"}
    result = ended(tmp_path, state="interrupted", error=error)
    assert result == Result("interrupted", error_kind="exception")
    assert not result.failed


def test_a_pruned_job_is_no_failure(tmp_path):
    error = {"type": "Pruned", "message": "at step 3", "kind": "pruned"}
    result = ended(tmp_path, state="interrupted", error=error, seconds=2.0)
    assert result == Result("pruned", None, 2.0, "at step 3", "pruned")


def test_a_killed_job_is_interrupted_and_an_unreadable_one_failed(tmp_path):
    assert ended(tmp_path, **KILLED).state == "interrupted"
    (tmp_path / "known" / "status.json").write_text("{")
    result = result_of(job(directory=str(tmp_path / "known")))
    assert result.failed
    assert "cannot be read" in result.note


# -- what is written about a job -----------------------------------------------------------------------


def test_a_fresh_run_finds_nothing_of_an_earlier_one(tmp_path):
    mine = job(directory=str(tmp_path / "deep" / "a"))
    names = ["status.json", "error.txt", "metrics.jsonl", "metrics.json"]
    folders = [".hydra", "checkpoints", "predictions", "model"]
    for _ in range(2):
        jobs.prepare_directory(mine)
        assert os.listdir(mine.path) == []
        for name in names:
            (mine.path / name).touch()
        for name in folders:
            (mine.path / name / "x").mkdir(parents=True)
    (mine.path / "console.log").touch()
    mine.action = "resume"
    jobs.prepare_directory(mine)
    assert sorted(os.listdir(mine.path)) == sorted(["console.log", *names, *folders])
    mine.action = "run"
    jobs.prepare_directory(mine)
    assert os.listdir(mine.path) == ["console.log"]


ERROR = {"type": "SIGKILL", "message": "ended from outside", "kind": "exception"}


def test_a_run_that_could_not_say_how_it_ended_is_recorded_as_failed(tmp_path):
    mine = job(directory=str(tmp_path / "a"), sweep="s")
    jobs.record_ending(mine, ERROR)
    status = mine.run.read_status()
    assert (status["state"], status["error"], status["sweep"]) == ("failed", ERROR, {"name": "s", "job": "lr-1"})
    assert {name: status[name] for name in HASH} == HASH
    assert status["started"]
    assert status["ended"]
    assert mine.run.error_path.read_text() == "SIGKILL: ended from outside\n"
    jobs.record_ending(mine, ERROR, "Traceback …")
    assert mine.run.error_path.read_text() == "Traceback …"


def test_what_the_run_itself_said_stays(tmp_path):
    mine = job(directory=str(tmp_path / "a"))
    mine.run.update_status(**{**KILLED, "config_hash": "own", "started": "2026-01-01", "data_hash": "own"})
    jobs.record_ending(mine, ERROR)
    status = mine.run.read_status()
    assert (status["state"], status["config_hash"], status["started"]) == ("failed", "own", "2026-01-01")


@pytest.mark.parametrize("state", ["completed", "running elsewhere"])
def test_a_completed_or_living_run_is_not_called_failed(tmp_path, state, caplog):
    mine = job(directory=str(tmp_path / "a"))
    status = {"state": "completed"} if state == "completed" else {"state": "running", "host": "x", "pid": 1}
    mine.run.path.mkdir()
    mine.run.update_status(**status)
    (tmp_path / "a" / ".running").touch()
    jobs.record_ending(mine, ERROR)
    assert mine.run.read_status() == status
    assert not mine.run.error_path.exists()
    assert f"(the run is {status['state']})" in caplog.text


def test_a_run_of_this_process_may_be_called_failed(tmp_path):
    """A job in the sweep's own process that raised outside its recording."""
    mine = job(directory=str(tmp_path / "a"))
    mine.run.path.mkdir()
    mine.run.update_status(**RUNNING)
    jobs.record_ending(mine, ERROR)
    assert mine.run.read_status()["state"] == "failed"


def test_an_exception_is_recorded_with_its_traceback_and_a_refusal_without(tmp_path):
    mine = job(directory=str(tmp_path / "a"))
    try:
        raise ValueError("a shape")
    except ValueError as error:
        jobs.record_exception(mine, error)
    assert "Traceback" in mine.run.error_path.read_text()
    assert mine.run.read_status()["error"]["kind"] == "exception"
    jobs.record_exception(mine, RequestError("seed=x"))
    assert mine.run.error_path.read_text() == "RequestError: seed=x\n"
    assert mine.run.read_status()["error"]["kind"] == "request"


def test_a_job_whose_folder_cannot_be_made(tmp_path, monkeypatch):
    mine = job(directory=str(tmp_path / "a"))
    full = OSError(errno.ENOSPC, "No space left on device")
    result = jobs.not_begun(mine, full)
    assert (result.state, result.error_kind) == ("failed", "disk_full")
    assert result.note == "the disk is full: [Errno 28] No space left on device"
    assert mine.run.read_status()["state"] == "failed"

    def fails(*arguments):
        raise full

    monkeypatch.setattr(jobs, "record_exception", fails)
    assert jobs.not_begun(mine, full).failed
