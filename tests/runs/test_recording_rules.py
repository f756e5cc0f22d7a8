"""What a status keeps over a run's segments, and what no ending may lose."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from rag_experiments.core import provenance
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import Pruned
from rag_experiments.runs import directory, recorder
from rag_experiments.runs.directory import RunDirectory
from tests.recorded import recorded
from tests.stand_in import stand_in


def interrupted(path, **status) -> RunDirectory:
    """A run that was begun and interrupted."""
    run = RunDirectory.create(path)
    run.update_status(state="interrupted", config_hash="abc", **status)
    return run


def test_a_resumed_run_that_is_refused_is_kept(tmp_path):
    """Its directory is not this request's to remove, even where the first segment finished nothing."""
    run = interrupted(tmp_path / "run")
    with recorded(run, "abc", discard_refused=True) as outcome:
        raise RequestError("no such layer")
    assert outcome.refused is None
    assert run.read_status()["state"] == "failed"


def test_only_a_refused_request_is_discarded(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    with recorded(run, "abc", discard_refused=True) as outcome:
        raise ValueError("a bug")
    assert outcome.refused is None
    assert run.read_status()["state"] == "failed"


def test_a_refused_request_is_kept_where_nobody_asked_to_discard_it(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    with recorded(run, "abc"):
        raise RequestError("no such layer")
    assert run.read_status()["error"]["message"] == "no such layer"


def test_a_failed_run_that_is_completed_says_nothing_of_its_failure(tmp_path):
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc"):
        raise ZeroDivisionError
    failed = run.read_status()
    assert failed["ended"]
    assert run.error_path.exists()
    with recorded(run, "abc"):
        during = run.read_status()
    assert (during["state"], during["ended"], during["error"]) == ("running", None, None)
    assert run.read_status()["error"] is None
    assert not run.error_path.exists()


def test_seconds_count_every_segment(tmp_path):
    run = interrupted(tmp_path, seconds=100.0)
    with recorded(run, "abc"):
        assert run.read_status()["seconds"] == 100.0
        time.sleep(0.01)
    assert 100.0 < run.read_status()["seconds"] < 200.0


def test_seconds_are_those_of_the_block(tmp_path, monkeypatch):
    clock = iter([10.0, 12.50049])
    stand_in(monkeypatch, recorder, "time", monotonic=lambda: next(clock))
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc"):
        assert run.read_status()["seconds"] == 0.0
    assert run.read_status()["seconds"] == 2.5


def test_a_folder_that_is_not_there_is_made(tmp_path):
    with recorded(RunDirectory(tmp_path / "a" / "b"), "abc") as outcome:
        pass
    assert outcome.exit_status == 0


def test_another_rank_is_not_kept_out_by_its_own_run(tmp_path, monkeypatch):
    entered = False
    with recorded(RunDirectory.create(tmp_path), "abc"):
        monkeypatch.setenv("RANK", "1")
        with recorded(RunDirectory.open(tmp_path), "abc"):
            entered = True
    assert entered


def test_a_status_that_was_broken_meanwhile_is_said_and_not_raised(tmp_path, caplog):
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc"):
        run.status_path.write_text("{")
    assert "could not be recorded" in caplog.text


def test_a_lost_heartbeat_file_does_not_end_the_run(tmp_path):
    with recorded(RunDirectory.create(tmp_path), "abc") as outcome:
        (tmp_path / recorder.HEARTBEAT).unlink()
    assert outcome.exit_status == 0


def test_one_missed_beat_does_not_make_a_run_dead():
    assert 3 * recorder.HEARTBEAT_SECONDS < directory.STALE_SECONDS


def test_resumed_counts_every_continuation_and_the_start_stays(tmp_path):
    run = interrupted(tmp_path, started="2020-01-01T00:00:00+00:00")
    for number in (1, 2):
        with recorded(run, "abc"):
            pass
        assert run.read_status()["resumed"] == number
    assert run.read_status()["started"] == "2020-01-01T00:00:00+00:00"


def test_a_status_says_which_code_and_process_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "git_state", lambda: ("c0ffee", True))
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc", {"algorithm": "ctl", "data_hash": "d"}):
        pass
    status = run.read_status()
    assert (status["git_commit"], status["git_dirty"], status["algorithm"], status["data_hash"]) == (
        "c0ffee",
        True,
        "ctl",
        "d",
    )
    assert {name: status[name] for name in ("host", "pid", "pid_started")} == provenance.process_identity()


def test_times_are_utc(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", recorder.now())
        with recorded(RunDirectory.create(tmp_path), "abc"):
            pass
        assert RunDirectory(tmp_path).read_status()["started"].endswith("+00:00")
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_resumed_run_forgets_what_its_checkpoint_does_not_know(tmp_path):
    """Without a checkpoint it begins anew: only what was measured before training stays."""
    run = interrupted(tmp_path)
    run.append_metrics(0, 0, 0, {"zero_shot/dev/recall@4": 0.5})
    run.append_metrics(0, 0, 1, {"train/loss": 3.0})
    run.append_metrics(4, 1, 2, {"train/loss": 2.0})
    with recorded(run, "abc"):
        assert [(line["step"], sorted(line)[-1]) for line in run.read_metrics()] == [(0, "zero_shot/dev/recall@4")]


def test_a_living_run_is_not_taken_and_another_hosts_silence_frees_it(tmp_path):
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc"), pytest.raises(RequestError, match=f"process {os.getpid()} on "):  # noqa: SIM117
        with recorded(RunDirectory.open(tmp_path), "abc"):
            pass
    assert run.read_status()["state"] == "completed"


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    stand_in(monkeypatch, recorder, "fcntl", flock=flock)
    with recorded(RunDirectory.create(tmp_path), "abc") as outcome:
        pass
    assert outcome.exit_status == 0


def test_room_for_the_last_status_is_held_while_the_run_lasts(tmp_path):
    run = RunDirectory.create(tmp_path)
    file = tmp_path / recorder.HEARTBEAT
    with recorded(run, "abc"):
        assert file.stat().st_size >= 64 * 1024
        assert len(set(file.read_bytes())) > 200  # zeros would be stored as nothing by some file systems
    assert not file.exists()


def test_a_run_leaves_no_open_file_and_no_thread(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        with recorded(RunDirectory.create(tmp_path / str(number)), "abc"):
            assert [thread.name for thread in threading.enumerate()].count("heartbeat") >= 1
    assert len(os.listdir("/proc/self/fd")) == before
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(10)
            assert not thread.is_alive()


def test_a_refused_claim_leaves_no_open_file(tmp_path):
    run = RunDirectory.create(tmp_path)
    holder = os.open(tmp_path / recorder.HEARTBEAT, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RequestError, match="another process"), recorded(run, "abc"):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
    assert not run.status_path.exists()
    os.close(holder)


def test_the_heartbeat_beats_while_the_run_lasts(tmp_path, monkeypatch):
    """Another host takes a silent run for dead."""
    monkeypatch.setattr(recorder, "HEARTBEAT_SECONDS", 0.01)
    file = tmp_path / recorder.HEARTBEAT
    with recorded(RunDirectory.create(tmp_path), "abc"):
        for _ in range(2):  # it beats more than once
            os.utime(file, (1, 1))
            deadline = time.monotonic() + 30
            while file.stat().st_mtime == 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert file.stat().st_mtime > 1


def test_a_heart_that_cannot_beat_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "HEARTBEAT_SECONDS", 0.01)
    failed = threading.Event()

    def utime(path, *times):
        failed.set()
        raise OSError(errno.ESTALE, "Stale file handle")

    stand_in(monkeypatch, recorder, "os", utime=utime)
    with recorded(RunDirectory.create(tmp_path), "abc") as outcome:
        assert failed.wait(30)
        failed.clear()
        assert failed.wait(30)  # and tries again
    assert outcome.exit_status == 0


def test_another_rank_beats_no_heart_and_says_why_it_failed(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RANK", "1")
    with recorded(RunDirectory.create(tmp_path / "run"), "abc") as outcome:
        raise ValueError("a shape")
    assert outcome.exit_status == 1
    assert not (tmp_path / "run").exists()
    assert "process 1: ValueError: a shape" in caplog.text
    assert any(record.exc_info for record in caplog.records)


def test_an_end_that_cannot_be_recorded_is_said_and_not_raised(tmp_path, monkeypatch, caplog):
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc") as outcome:
        real = recorder.RunDirectory.update_status

        def update_status(self, **changes):
            if changes.get("state") == "running":
                return real(self, **changes)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(recorder.RunDirectory, "update_status", update_status)
        raise ZeroDivisionError("division by zero")
    assert outcome.exit_status == 1
    assert "could not be recorded" in caplog.text
    assert "ZeroDivisionError: division by zero" in caplog.text
    assert "The traceback is in" not in caplog.text


@pytest.mark.parametrize(
    ("error", "said", "level", "files"),
    [
        (ValueError("a shape"), ["ValueError: a shape", "The traceback is in"], logging.ERROR, {"error.txt"}),
        (KeyboardInterrupt(), ["continue with resume="], logging.WARNING, set()),
        (Pruned("at step 3, behind"), ["pruned at step 3, behind"], logging.INFO, set()),
        (None, [], logging.INFO, set()),
    ],
)
def test_the_console_says_how_it_ended(tmp_path, caplog, error, said, level, files):
    caplog.set_level(logging.INFO, logger="rag_experiments.runs.recorder")
    with recorded(RunDirectory.create(tmp_path), "abc"):
        if error is not None:
            raise error
    messages = [record.getMessage() for record in caplog.records if record.name == "rag_experiments.runs.recorder"]
    assert len(messages) == len(said)
    assert all(part in message for part, message in zip(said, messages, strict=True))
    assert {record.levelno for record in caplog.records if record.name == "rag_experiments.runs.recorder"} <= {level}
    assert {path.name for path in tmp_path.iterdir()} == {"status.json"} | files


def test_the_outcome_before_the_end_is_a_failure(tmp_path):
    """Whoever leaves by another way than the block's end must not pass for done."""
    with recorded(RunDirectory.create(tmp_path), "abc") as outcome:
        assert outcome.exit_status == 1
        assert outcome.metrics == {}


# -- signals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [(provenance, "process_identity"), (fcntl, "flock")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_before_the_block_begins_is_an_interruption(tmp_path, monkeypatch, number, place):
    """Between the status that says `running` and the block there must be no moment in which it is lost."""
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    real = getattr(*place)

    def interrupted(*arguments):
        signal.raise_signal(number)
        return real(*arguments)

    if place[0] is fcntl:
        stand_in(monkeypatch, recorder, "fcntl", flock=interrupted)
    else:
        monkeypatch.setattr(*place, interrupted)
    run = RunDirectory.create(tmp_path)
    try:
        with pytest.raises(KeyboardInterrupt), recorded(run, "abc"):
            raise AssertionError("the block was entered")
    finally:
        signal.signal(number, before)
    assert run.read_status()["state"] == "interrupted"
    assert not (tmp_path / recorder.HEARTBEAT).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_end_is_written_does_not_lose_it(tmp_path, monkeypatch, number):
    got = []
    before = signal.signal(number, lambda *_: got.append(number))
    real = recorder.RunDirectory.update_status
    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL

    def update_status(self, **changes):
        if changes["state"] == "completed":
            signal.raise_signal(number)
        real(self, **changes)

    monkeypatch.setattr(recorder.RunDirectory, "update_status", update_status)
    outer = recorder.termination_as_interrupt
    run = RunDirectory.create(tmp_path)
    try:
        signal.signal(number, handler)
        with pytest.raises(KeyboardInterrupt), outer(), recorded(run, "abc"):
            pass
    finally:
        signal.signal(number, before)
    assert run.read_status()["state"] == "completed"


def test_handlers_are_put_back(tmp_path):
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with recorded(RunDirectory.create(tmp_path), "abc"):
        pass
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_handler_of_somebody_else_stays(tmp_path):
    """Ignored (nohup) or set by a library: it knows what it does."""
    for handler in (signal.SIG_IGN, lambda *_: None):
        before = signal.signal(signal.SIGHUP, handler)
        try:
            with recorded(RunDirectory.create(tmp_path / str(id(handler))), "abc") as outcome:
                assert signal.getsignal(signal.SIGHUP) is handler
                signal.raise_signal(signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert outcome.exit_status == 0


def test_a_run_in_a_thread_of_its_own_sets_no_handlers(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    outcomes = []

    def work():
        with recorded(RunDirectory.create(tmp_path), "abc") as outcome:
            outcomes.append((outcome, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ((outcome, seen),) = outcomes
    assert outcome.exit_status == 0
    assert seen == before


FORKS = """
import os, signal, sys, time
from rag_experiments.runs.recorder import recording
from rag_experiments.runs.directory import RunDirectory
with recording(RunDirectory.create(sys.argv[1]), "abc") as outcome:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"ready")  # what comes sooner after a fork Python forgets
        time.sleep(60)
        os._exit(0)
    os.read(reading, 5)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status))
sys.exit(outcome.exit_status)
"""


def test_a_child_process_dies_of_the_signal_as_usual(tmp_path):
    """A data loader's worker inherits the handler, and must not take itself for the run."""
    done = subprocess.run([sys.executable, "-c", FORKS, str(tmp_path / "run")], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(int(signal.SIGTERM)))
    assert RunDirectory(tmp_path / "run").read_status()["state"] == "completed"
