"""Grids: names, resuming, failing, ending. The jobs are stubs; `test_real.py` has real ones."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from rag_experiments import train
from rag_experiments.core.errors import RequestError
from rag_experiments.core.text_table import to_text
from rag_experiments.sweeps import session, summary
from rag_experiments.sweeps.jobs import Job, Result

GRID = ("seed=0,1", "algorithm.temperature=0.1,0.2")


def test_a_grid_runs_every_combination_into_folders_named_by_what_differs_and_again_nothing(sweep, capsys):
    assert sweep(*GRID) == 0
    names = {f"seed-{seed}_temperature-{temperature}" for seed in (0, 1) for temperature in (0.1, 0.2)}
    assert sweep.jobs() == dict.fromkeys(names, "completed")
    assert sweep.values()["seed-1_temperature-0.2"] == {"dev/ndcg@10": pytest.approx(0.991)}
    table = capsys.readouterr().out
    assert "4 jobs: 4 completed" in table
    assert all(name in table for name in names)
    status = json.loads((sweep.folder() / "seed-0_temperature-0.1" / "status.json").read_text())
    assert status["sweep"] == {"name": "s", "job": "seed-0_temperature-0.1"}

    assert sweep(*GRID) == 0
    assert sweep.ran == []
    assert "4 completed (4 reused)" in capsys.readouterr().out


def test_a_sweep_without_a_name_is_called_by_its_model_and_data(sweep, monkeypatch):
    from hydra.core.hydra_config import HydraConfig

    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as in a fresh process
    assert train.start([*sweep.common, "hydra/launcher=serial", "seed=0"]) == 0
    assert sweep.jobs("minilm-jsonl") == {"single": "completed"}


def test_an_added_value_or_key_runs_only_what_is_new(sweep):
    temperature = "algorithm.temperature=choice(0.1)"
    sweep("seed=0,1", temperature)
    assert sweep("seed=0,1,2", temperature) == 0
    assert sweep.ran == ["seed-2_temperature-0.1"]
    # A key that was fixed at its default is now varied: what is known has another name, and the same configuration.
    assert sweep("seed=0,1", temperature, "data.split_seed=0,5") == 0
    assert sorted(sweep.ran) == [f"seed-{seed}_temperature-0.1_split_seed-5" for seed in (0, 1)]


def test_another_value_behind_the_same_name_never_overwrites(sweep):
    sweep("seed=0,1", "algorithm.temperature=0.1")
    before = sweep.values()
    assert sweep("seed=0,1", "algorithm.temperature=0.2") == 0
    assert len(sweep.ran) == 2
    after = sweep.values()
    assert len(after) == 4
    assert {name: after[name] for name in before} == before


def test_changed_data_is_another_run(sweep):
    sweep("seed=0,1")
    with open(sweep.root / "data" / "train.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "new", "question": "where is the cat", "positive_ids": ["p0"]}) + "\n")
    assert sweep("seed=0,1") == 0
    assert len(sweep.ran) == 2


def test_a_code_version_counts_only_where_asked(sweep, monkeypatch, capsys):
    sweep("seed=0,1")
    monkeypatch.setattr("rag_experiments.core.provenance.git_state", lambda: ("another", False))
    assert sweep("seed=0,1") == 0
    assert sweep.ran == []
    assert "2 made by another version of the code" in capsys.readouterr().out
    assert sweep("seed=0,1", "sweep.same_code=true") == 0
    assert len(sweep.ran) == 2
    assert len(sweep.jobs()) == 4


def test_results_need_not_be_reused(sweep):
    sweep("seed=0,1")
    assert sweep("seed=0,1", "sweep.reuse_completed=false") == 0
    assert len(sweep.ran) == 2
    assert len(sweep.jobs()) == 4


@pytest.fixture
def half_done(sweep, tmp_path) -> Path:
    """A sweep of two jobs of which the second has gone: the folder it can come back from."""
    sweep("seed=0,1")
    shutil.rmtree(sweep.folder() / "seed-0")
    return (sweep.folder() / "seed-1").rename(tmp_path / "aside")


def test_a_job_that_another_sweep_did_meanwhile_is_reused(sweep, half_done, capsys):
    def meanwhile(request, run):
        half_done.rename(sweep.folder() / "seed-1")
        return {"dev/ndcg@10": 0.5}

    sweep.action = meanwhile
    assert sweep("seed=0,1") == 0
    assert sweep.ran == ["seed-0"]
    assert "2 completed (1 reused)" in capsys.readouterr().out


@pytest.mark.parametrize("ends", [True, False])
def test_a_job_that_another_sweep_has_is_waited_for(sweep, half_done, monkeypatch, ends):
    """Between the decision to start it and its first word lie seconds in which its folder is empty."""
    monkeypatch.setattr(session, "WAIT_SECONDS", 0.05)
    other = os.open(sweep.folder() / ".claims" / "seed-1.lock", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)

    def finish():
        time.sleep(0.5)
        assert not (sweep.folder() / "seed-1").exists()
        if ends:
            half_done.rename(sweep.folder() / "seed-1")
        os.close(other)

    thread = threading.Thread(target=finish)

    def first(request, run):
        if request.config.seed == 0:
            thread.start()
        return {"dev/ndcg@10": 0.5}

    sweep.action = first
    assert sweep("seed=0,1") == 0
    thread.join()
    assert sweep.ran == (["seed-0"] if ends else ["seed-0", "seed-1"])


def test_what_reuse_saves_is_the_seconds_of_the_reused_jobs_alone():
    def job(action: str) -> Job:
        return Job("j", [], action=action)

    reused = [(job("reuse"), Result("completed", seconds=seconds)) for seconds in (61.4, 30.0, None)]
    others = [(job("run"), Result("completed", seconds=500.0)), (job("run"), Result("failed", seconds=700.0))]
    assert summary.totals([*reused, *others]).endswith("4 completed (3 reused), 1 failed; 91 s saved by reuse")
    assert "saved" not in summary.totals(others)
    rows = [(Job("a", [], action="reuse"), Result("completed", seconds=61.4)), (Job("b", []), Result("failed"))]
    assert summary.totals(rows) == "2 jobs: 1 completed (1 reused), 1 failed; 61 s saved by reuse"


def test_a_figure_that_the_runs_do_not_have_is_said(sweep, capsys):
    assert sweep("seed=0,1", "sweep.metric=dev/ndcg@1O") == 0
    assert "no figure dev/ndcg@1O (did you mean 'dev/ndcg@10'?)" in capsys.readouterr().out


def fails_at_seed_one(error):
    def action(request, run):
        if request.config.seed == 1:
            raise error
        return {"dev/ndcg@10": 0.5}

    return action


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (MemoryError("40 GB"), "out of memory: 40 GB"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
)
def test_a_failing_job_is_said_and_the_others_go_on(sweep, error, shown, capsys, caplog):
    sweep.action = fails_at_seed_one(error)
    assert sweep("seed=0,1,2") == 1
    assert sweep.jobs() == {"seed-0": "completed", "seed-1": "failed", "seed-2": "completed"}
    assert "Traceback" in (sweep.folder() / "seed-1" / "error.txt").read_text()
    captured = capsys.readouterr()
    assert "3 jobs: 2 completed, 1 failed" in captured.out
    [line] = [line for line in captured.err.splitlines() if line.startswith("[2/3] seed-1")]
    assert shown in line


def test_failed_jobs_run_again_or_are_left(sweep, capsys):
    sweep.action = fails_at_seed_one(ZeroDivisionError())
    sweep("seed=0,1,2")
    assert sweep("seed=0,1,2", "sweep.retry_failed=false") == 1
    assert sweep.ran == []
    assert "failed (left)" in capsys.readouterr().out
    sweep.action = lambda request, run: {"dev/ndcg@10": 1.0}
    assert sweep("seed=0,1,2") == 0
    assert sweep.ran == ["seed-1 again"]


def test_stop_at_the_first_error(sweep, capsys):
    sweep.action = fails_at_seed_one(ZeroDivisionError())
    assert sweep("seed=0,1,2", "sweep.on_error=stop") == 1
    assert sweep.jobs() == {"seed-0": "completed", "seed-1": "failed"}
    assert "1 not started" in capsys.readouterr().out


def test_an_interruption_starts_nothing_more_and_the_same_command_continues(sweep, capsys):
    sweep.action = fails_at_seed_one(KeyboardInterrupt())
    assert sweep("seed=0,1,2") == 130
    assert sweep.jobs() == {"seed-0": "completed", "seed-1": "interrupted"}
    assert "1 not started" in capsys.readouterr().out
    sweep.action = lambda request, run: {"dev/ndcg@10": 1.0}
    assert sweep("seed=0,1,2") == 0
    assert sweep.ran == ["seed-1 again", "seed-2"]


def test_a_job_that_is_interrupted_before_its_run_began_had_started(sweep, capsys, monkeypatch):
    checked = []

    def check(composed, directory, own=train.check):
        checked.append(directory)
        if len(checked) == 2:
            raise KeyboardInterrupt
        return own(composed, directory)

    monkeypatch.setattr(train, "check", check)
    assert sweep("seed=0,1,2") == 130
    assert sweep.jobs() == {"seed-0": "completed"}
    shown = capsys.readouterr().out
    assert "1 completed, 1 interrupted, 1 not started" in shown
    assert sweep("seed=0,1,2") == 0
    assert [words.split()[0] for words in sweep.ran] == ["seed-1", "seed-2"]


def test_a_wrong_request_leaves_nothing(sweep):
    for wrong in ("trainer.learning_rat=1,2", "algorithm.temperature=-1,-2", "algorithm=nonsense", "retriever.k=0"):
        with pytest.raises(RequestError):
            sweep(wrong)
        assert not sweep.folder().exists()
    with pytest.raises(RequestError, match="same command"):
        sweep("seed=0,1", "resume=auto")


def test_one_wrong_job_is_refused_before_the_first_starts_and_the_others_run(sweep, capsys):
    assert sweep("retriever.k=4,-1") == 1
    assert sweep.jobs() == {"k-4": "completed", "k--1": "failed"}
    assert "retriever.k" in sweep.summary()["k--1"]["note"]
    with pytest.raises(RequestError, match=r"retriever\.k"):
        sweep("retriever.k=4,-1", "sweep.on_error=stop", name="stopped")
    assert not sweep.folder("stopped").exists()


def test_a_refused_job_does_not_stand_in_the_way_of_its_retry(sweep):
    sweep("retriever.k=4,100000")  # more than the corpus: known when the data is read
    assert sweep.jobs()["k-100000"] == "failed"
    assert sweep("retriever.k=4,100000") == 1
    assert sweep.jobs() == {"k-4": "completed", "k-100000": "failed"}


def test_two_names_for_one_configuration_run_once(sweep):
    assert sweep("algorithm.temperature=0.1,1e-1") == 0
    assert len(sweep.ran) == 1


def test_a_group_at_another_package_is_named_by_it(sweep, capsys):
    teachers = "model@algorithm.teacher=smollm2_135m,smollm2_360m"
    sweep("algorithm=rpg", teachers, f"model.path={sweep.model}", "plan=true")
    out = capsys.readouterr().out
    assert "teacher-smollm2_135m" in out
    assert "teacher-smollm2_360m" in out


def test_a_plan_starts_nothing(sweep, capsys):
    sweep("seed=0,0")
    assert sweep.jobs() == {"seed-0": "completed"}
    assert sweep("seed=0,1", "plan=true") == 0
    out = capsys.readouterr().out
    assert "seed-0  is completed" in out
    assert "seed-1  runs" in out
    assert sweep.jobs() == {"seed-0": "completed"}


@pytest.mark.parametrize(
    ("group", "option"),
    [
        ("hydra/launcher=slurm", "hydra.launcher.parameters.slurm_partition"),
        ("hydra/launcher=submitit_local", "hydra.launcher.parameters.mem_gb"),
        ("hydra/launcher=ray", "hydra.launcher.init.address"),
        ("hydra/sweeper=optuna", "hydra.sweeper.pruner_options.n_startup_trials"),
        ("hydra/sweeper=random", "hydra.sweeper.sampler_options.seed"),
        ("hydra/sweeper=grid", "hydra.sweeper.params.seed"),
    ],
)
def test_options_of_other_packages_are_taken_under_their_own_names(group, option):
    from omegaconf import OmegaConf

    from rag_experiments.config import command_line

    assert OmegaConf.select(command_line.compose([group, f"{option}=1"]), option) == 1
    with pytest.raises(RequestError):
        command_line.compose([group, f"{option.rsplit('.', 2)[0]}.nonsense=1"])


def test_hydras_own_launcher_and_sweeper_work_too(sweep):
    assert sweep("seed=0,1", launcher="basic") == 0
    assert sweep("seed=0,1,2", launcher="basic") == 0
    assert sweep.ran == ["seed-2"]
    sweep("seed=0,1", "hydra/sweeper=basic", name="b")
    assert set(sweep.jobs("b").values()) == {"completed"}
    sweep("seed=0,1,2", "hydra/sweeper=basic", name="b")
    assert len(sweep.ran) == 1


def test_the_closing_table_has_each_job_in_its_order():
    rows = [
        (Job("seed=1", []), Result("failed", seconds=2.0, note="out of\nmemory \x1b[2J")),
        (Job("seed=0", [], action="reuse", metric="dev/f1"), Result("completed", value=0.51234, seconds=61.4)),
        (Job("seed=2", []), Result("not started")),
    ]
    grid = summary.table(rows)
    assert grid.headers[:4] == ["job", "state", "dev/f1", "seconds"]
    assert [row[0] for row in grid.rows] == ["seed=1", "seed=0", "seed=2"]
    assert [row[2:4] for row in grid.rows] == [["", "2"], ["0.5123", "61"], ["", ""]]
    lines = to_text([grid]).splitlines()
    assert len(lines) == 5  # a note's line breaks make no line
    assert "\x1b" not in "".join(lines)
