"""Grids: names, resuming, failing, ending. The jobs are stubs; `test_real.py` has real ones."""

from __future__ import annotations

import errno
import json

import pytest

from rag_experiments.errors import RequestError

GRID = ("seed=0,1", "algorithm.temperature=0.1,0.2")


def test_a_grid_runs_every_combination_into_folders_named_by_what_differs(sweep, capsys):
    assert sweep(*GRID) == 0
    names = {f"seed-{seed}_temperature-{temperature}" for seed in (0, 1) for temperature in (0.1, 0.2)}
    assert sweep.jobs() == dict.fromkeys(names, "completed")
    assert sweep.values()["seed-1_temperature-0.2"] == {"dev/ndcg@10": pytest.approx(0.991)}
    table = capsys.readouterr().out
    assert "4 jobs: 4 completed" in table
    assert all(name in table for name in names)
    status = json.loads((sweep.folder() / "seed-0_temperature-0.1" / "status.json").read_text())
    assert status["sweep"] == {"name": "s", "job": "seed-0_temperature-0.1"}


def test_the_same_command_again_runs_nothing(sweep, capsys):
    sweep(*GRID)
    assert sweep(*GRID) == 0
    assert sweep.ran == []
    assert "4 completed (4 reused)" in capsys.readouterr().out


def test_an_added_value_or_key_runs_only_what_is_new(sweep):
    sweep(*GRID)
    assert sweep("seed=0,1,2", GRID[1]) == 0
    assert sweep.ran == ["seed-2_temperature-0.1", "seed-2_temperature-0.2"]
    # A key that was fixed at its default is now varied: what is known has another name, and the same configuration.
    assert sweep("seed=0,1", GRID[1], "data.split_seed=0,5") == 0
    assert sorted(sweep.ran) == [f"seed-{s}_temperature-{t}_split_seed-5" for s in (0, 1) for t in (0.1, 0.2)]


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
    with open(sweep.root / "data" / "train.jsonl", "a") as file:
        file.write(json.dumps({"id": "new", "question": "where is the cat", "positive_ids": ["p0"]}) + "\n")
    assert sweep("seed=0,1") == 0
    assert len(sweep.ran) == 2


def test_a_code_version_counts_only_where_asked(sweep, monkeypatch, capsys):
    sweep("seed=0,1")
    monkeypatch.setattr("rag_experiments.provenance.git_state", lambda: ("another", False))
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


def test_hydras_own_launcher_and_sweeper_work_too(sweep):
    assert sweep("seed=0,1", launcher="basic") == 0
    assert sweep("seed=0,1,2", launcher="basic") == 0
    assert sweep.ran == ["seed-2"]
    sweep("seed=0,1", "hydra/sweeper=basic", name="b")
    assert set(sweep.jobs("b").values()) == {"completed"}
    sweep("seed=0,1,2", "hydra/sweeper=basic", name="b")
    assert len(sweep.ran) == 1
