"""What is read back from a run directory, whatever a kill left in it."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from rag_experiments.core import provenance
from rag_experiments.core.distributed import is_main_process
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import TEMPORARY_PREFIX
from rag_experiments.runs import directory
from rag_experiments.runs.directory import RunDirectory
from tests.runs.test_run_directory import make_checkpoint
from tests.stand_in import stand_in


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(tmp_path)


# -- checkpoints ---------------------------------------------------------------------------------------


def test_one_broken_shard_makes_a_checkpoint_incomplete(run):
    good = make_checkpoint(run, 5)
    many = make_checkpoint(run, 10)
    whole = (many / "model.safetensors").read_bytes()
    (many / "inner").mkdir()
    (many / "inner" / "adapter.safetensors").write_bytes(whole)
    assert run.last_checkpoint() == many
    (many / "inner" / "adapter.safetensors").write_bytes(whole[:-1])
    assert run.last_checkpoint() == good
    (many / "inner" / "adapter.safetensors").write_bytes(b"")
    assert run.last_checkpoint() == good
    (many / "inner" / "adapter.safetensors").write_bytes(whole + b"\0")  # padding is no damage
    assert run.last_checkpoint() == many


def test_a_state_of_another_step_makes_a_checkpoint_incomplete(run):
    """As where a folder of an earlier attempt is written anew and the kill comes before the state."""
    make_checkpoint(run, 10).joinpath("trainer_state.json").write_text('{"global_step": 9}')
    assert run.last_checkpoint() is None


def test_checkpoints_are_ordered_by_number_and_other_folders_are_none(run):
    for step in (9, 100, 20):
        make_checkpoint(run, step)
    for name in ("checkpoint-200-old", "old-checkpoint-300", "checkpoint-", "checkpoint-x"):
        (run.checkpoints_dir / name).mkdir()
    assert run.last_checkpoint().name == "checkpoint-100"


@pytest.mark.parametrize("backwards", [True, False])
def test_the_most_steps_win_whatever_the_order_of_the_folder(run, monkeypatch, backwards):
    for step in (9, 100, 20):
        make_checkpoint(run, step)
    listed = sorted(run.checkpoints_dir.iterdir(), reverse=backwards)
    monkeypatch.setattr(directory.Path, "iterdir", lambda self: iter(listed))
    assert run.last_checkpoint().name == "checkpoint-100"


def test_a_folder_called_like_weights_is_none(run):
    (make_checkpoint(run, 5) / "a.safetensors").mkdir()
    assert run.last_checkpoint().name == "checkpoint-5"


def test_weights_that_cannot_be_read_make_a_checkpoint_incomplete(run, monkeypatch):
    def stale(path):
        raise OSError(116, "Stale file handle")

    make_checkpoint(run, 5)
    monkeypatch.setattr(directory, "safetensors_size", stale)
    assert run.last_checkpoint() is None


def test_a_run_is_made_in_a_new_folder_and_in_one_that_is_there(tmp_path):
    for _ in range(2):
        assert RunDirectory.create(tmp_path / "a" / "b").path.is_dir()


# -- going back ----------------------------------------------------------------------------------------


def write_history(run, *lines: tuple[int, str]) -> None:
    for step, name in lines:
        run.append_metrics(step, 0, 0, {name: 1.0})


def history(run) -> list[tuple[int, str]]:
    return [(line["step"], next(name for name in line if "/" in name)) for line in run.read_metrics()]


def test_going_back_keeps_the_lines_that_the_checkpoint_knows_of(run):
    """A run killed after its last step had logged its closing figures, at the same step; it logs them again."""
    known = [(0, "zero_shot/dev/a"), (0, "baseline/bm25/test/a"), (2, "train/loss"), (4, "train/loss"), (4, "dev/a")]
    write_history(run, *known, (4, "train/mean_loss"), (4, "dev/a"), (4, "test/a"))
    folder = make_checkpoint(run, 4)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 4, "log_history": [{}] * 3}))
    run.go_back_to_checkpoint()
    assert history(run) == known
    run.go_back_to_checkpoint()
    assert history(run) == known


def test_going_back_without_a_checkpoint_keeps_what_was_measured_before_training(run):
    write_history(run, (0, "zero_shot/dev/a"), (0, "train/loss"), (1, "train/loss"))
    run.go_back_to_checkpoint()
    assert history(run) == [(0, "zero_shot/dev/a")]


def test_going_back_to_a_checkpoint_that_does_not_say_goes_by_the_step(run):
    write_history(run, (0, "zero_shot/dev/a"), (4, "train/loss"), (5, "train/loss"))
    make_checkpoint(run, 4)
    run.go_back_to_checkpoint()
    assert history(run) == [(0, "zero_shot/dev/a"), (4, "train/loss")]


def test_going_back_removes_what_was_half_written(run):
    kept = make_checkpoint(run, 4)
    make_checkpoint(run, 6).joinpath("trainer_state.json").unlink()
    make_checkpoint(run, 2).joinpath("trainer_state.json").unlink()  # before it: it is nobody's business
    (run.checkpoints_dir / "notes").mkdir()
    partial = [
        run.path / f"{TEMPORARY_PREFIX}status.json-1-ab",
        run.predictions_path(f"zero_shot/{TEMPORARY_PREFIX}dev"),
        run.predictions_path(f"baseline/bm25/{TEMPORARY_PREFIX}dev"),
        run.predictions_path(f"{TEMPORARY_PREFIX}dev"),
    ]
    for file in partial:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    folder = run.path / f"{TEMPORARY_PREFIX}model-1-ab"
    (folder / "deep").mkdir(parents=True)
    other = run.path / "evaluations" / f"{TEMPORARY_PREFIX}again-1-ab"  # perhaps another process writes it now
    other.mkdir(parents=True)
    run.write_predictions("dev", [{"id": "q"}])
    run.go_back_to_checkpoint()
    assert sorted(path.name for path in run.checkpoints_dir.iterdir()) == ["checkpoint-2", kept.name, "notes"]
    assert not folder.exists()
    assert not any(file.exists() for file in partial)
    assert other.exists()
    assert run.read_predictions("dev") == [{"id": "q"}]


def test_going_back_to_nothing_removes_the_first_half_written_and_no_other_folder(run):
    make_checkpoint(run, 1).joinpath("trainer_state.json").unlink()
    (run.checkpoints_dir / "notes").mkdir()
    run.go_back_to_checkpoint()
    assert [path.name for path in run.checkpoints_dir.iterdir()] == ["notes"]


def test_going_back_is_for_the_process_that_writes(run, monkeypatch):
    write_history(run, (3, "train/loss"))
    make_checkpoint(run, 6).joinpath("trainer_state.json").unlink()
    monkeypatch.setenv("RANK", "1")
    other = RunDirectory(run.path)
    other.go_back_to_checkpoint()
    other.truncate_metrics(0)
    assert history(run) == [(3, "train/loss")]
    assert (run.checkpoints_dir / "checkpoint-6").exists()


def test_a_history_that_is_not_there_needs_no_cutting(run):
    run.truncate_metrics(0)
    assert not run.history_path.exists()


def test_cutting_counts_the_lines_of_training_and_no_others(run):
    write_history(run, (0, "zero_shot/dev/a"), (1, "train/loss"), (2, "train/loss"), (2, "dev/a"))
    run.truncate_metrics(2, 2)
    assert history(run) == [(0, "zero_shot/dev/a"), (1, "train/loss"), (2, "train/loss")]
    run.truncate_metrics(1, 2)
    assert history(run) == [(0, "zero_shot/dev/a"), (1, "train/loss")]


# -- the log and the files -----------------------------------------------------------------------------


def test_a_line_of_the_log_says_step_epoch_seconds_and_figures(run):
    run.append_metrics(3, 0.5, 1.23456, {"train/loss": 0.25})
    assert run.history_path.read_bytes() == b'{"step": 3, "epoch": 0.5, "seconds": 1.235, "train/loss": 0.25}\n'


@pytest.mark.parametrize(
    "broken", ['{"step": 2, "tra', "[1, 2]", '"text"', '{"epoch": 1}', "\xff\xfe", "", "{", "7", '"step"', '["step"]']
)
def test_a_broken_line_swallows_no_other(run, broken):
    write_history(run, (1, "train/loss"))
    with open(run.history_path, "ab") as file:
        file.write(broken.encode("latin-1"))
    write_history(run, (2, "train/loss"), (3, "train/loss"))
    assert history(run) == [(1, "train/loss"), (2, "train/loss"), (3, "train/loss")]
    assert b"\n\n" not in run.history_path.read_bytes()  # only what was broken off is ended


def test_a_log_that_begins_broken_off(run):
    run.history_path.write_bytes(b"{")
    write_history(run, (1, "train/loss"))
    assert history(run) == [(1, "train/loss")]


def test_the_first_line_is_the_first(run):
    write_history(run, (1, "train/loss"))
    assert run.history_path.read_bytes().count(b"\n") == 1


def test_readers_of_what_is_not_there(run):
    assert run.read_status() == {}
    assert run.read_metrics() == []
    assert run.read_final_metrics() == {}
    assert run.read_predictions("dev") == []
    assert run.last_checkpoint() is None
    assert run.state == "interrupted"
    with pytest.raises(RequestError, match=r"no status\.json"):
        RunDirectory.open(run.path)


def test_predictions_may_have_empty_lines(run):
    run.write_predictions("dev", [{"id": "é"}])
    with open(run.predictions_path("dev"), "a") as file:
        file.write("\n")
    assert run.read_predictions("dev") == [{"id": "é"}]


def test_final_figures_are_written_and_read(run):
    run.write_metrics({"dev/a": 0.5, "dev/b": float("nan")})
    assert run.read_final_metrics() == {"dev/a": 0.5, "dev/b": None}
    run.write_config("seed: 0\n")
    assert run.config_path.read_text() == "seed: 0\n"


def test_a_status_is_merged_and_a_broken_one_is_said(run):
    run.update_status(a=1, b=2)
    run.update_status(b=3)
    assert run.read_status() == {"a": 1, "b": 3}
    run.status_path.write_text("{")
    with pytest.raises(RequestError, match=r"status\.json cannot be read"):
        run.read_status()
    run.status_path.unlink()
    run.status_path.mkdir()
    with pytest.raises(RequestError, match=r"status\.json cannot be read"):
        run.read_status()


def test_another_rank_changes_nothing(run, monkeypatch):
    run.update_status(state="failed")
    monkeypatch.setenv("RANK", "1")
    other = RunDirectory.create(run.path)  # rank 0 has looked
    other.update_status(state="completed")
    other.write_config("x")
    other.write_metrics({})
    other.discard()
    assert run.read_status() == {"state": "failed"}
    assert os.listdir(run.path) == ["status.json"]


def test_where_everything_is(run):
    names = {
        "status_path": "status.json",
        "config_path": "config.yaml",
        "metrics_path": "metrics.json",
        "history_path": "metrics.jsonl",
        "error_path": "error.txt",
        "model_dir": "model",
        "checkpoints_dir": "checkpoints",
        "wandb_dir": "wandb",
    }
    assert {name: getattr(run, name).relative_to(run.path).as_posix() for name in names} == names
    assert str(run.path) in repr(run)


@pytest.mark.parametrize("what", ["log", "predictions", "checkpoint"])
def test_what_counts_as_work(run, what):
    assert not run.holds_work
    run.checkpoints_dir.mkdir()
    assert not run.holds_work
    if what == "log":
        write_history(run, (0, "zero_shot/dev/a"))
    elif what == "predictions":
        run.write_predictions("dev", [])
    else:
        make_checkpoint(run, 1)
    assert run.holds_work


def test_discarding_removes_all(run):
    (run.path / ".hydra").mkdir()
    (run.path / ".hydra" / "overrides.yaml").touch()
    run.discard()
    assert not run.path.exists()
    run.discard()


# -- who lives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "completed", "failed", "interrupted"])
def test_only_a_run_that_says_running_can_be_dead(run, state):
    run.update_status(state=state, **provenance.process_identity())
    assert run.state == state
    run.update_status(pid=2**22 + 1)  # more than there can be
    assert run.state == ("interrupted" if state == "running" else state)


def test_a_silent_host_is_dead_after_ten_minutes(run):
    run.update_status(state="running", host="elsewhere", pid=1)
    heartbeat = run.path / directory.HEARTBEAT
    heartbeat.touch()
    for silence, state in ((540, "running"), (660, "interrupted")):
        then = time.time() - silence
        os.utime(heartbeat, (then, then))
        assert run.state == state


def test_a_process_is_told_from_another_of_its_number():
    own = provenance.process_identity()
    assert own["host"] == socket.gethostname()
    assert own["pid"] == os.getpid()
    assert provenance.process_lives(own) is True
    assert provenance.process_lives({**own, "pid_started": own["pid_started"] + 1}) is False
    assert provenance.process_lives({**own, "pid_started": None}) is True
    assert provenance.process_lives({**own, "host": "elsewhere"}) is None
    for pid in (None, "1", 0, -1):
        assert provenance.process_lives({**own, "pid": pid}) is False


def test_a_process_of_another_user_lives(monkeypatch):
    def kill(pid, number):
        raise PermissionError

    stand_in(monkeypatch, provenance, "os", kill=kill)
    assert provenance.process_lives(provenance.process_identity()) is True


def test_a_process_that_ended_and_was_not_waited_for_is_dead():
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        started = provenance._start_ticks(os.getpid())
        deadline = time.monotonic() + 30
        identity = {"host": socket.gethostname(), "pid": child, "pid_started": started}
        while provenance._start_ticks(child) != -1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert provenance.process_lives(identity) is False
    finally:
        os.waitpid(child, 0)
    assert provenance._start_ticks(child) is None


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False), ("10", False)])
def test_rank_0_writes(monkeypatch, rank, main):
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    assert is_main_process() is main
