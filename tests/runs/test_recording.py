"""How a run ended is in its status, whatever ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import ending_of
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import newest_unfinished
from tests.recorded import recorded


def test_a_run_that_ends_well(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    with recorded(run, "abc", {"algorithm": "ctl", "data_hash": "d"}) as outcome:
        assert run.state == "running"
        assert run.read_status()["pid"] == os.getpid()
    status = run.read_status()
    assert outcome.exit_status == 0
    assert (status["state"], status["config_hash"], status["algorithm"], status["resumed"]) == (
        "completed",
        "abc",
        "ctl",
        0,
    )
    assert status["versions"]["python"]
    assert status["error"] is None
    assert status["ended"]
    assert sorted(os.listdir(run.path)) == ["status.json"]


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "state", "exit_status", "kind"),
    [
        (ZeroDivisionError("division by zero"), "failed", 1, "exception"),
        (KeyboardInterrupt(), "interrupted", 130, "exception"),
        (MemoryError(), "failed", 1, "out_of_memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 40.00 GiB"), "failed", 1, "out_of_memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "failed",
            1,
            "out_of_memory",
        ),
        (OSError(28, "No space left on device"), "failed", 1, "disk_full"),
        (RuntimeError("PytorchStreamWriter failed: No space left on device"), "failed", 1, "disk_full"),
        (RequestError("no such passage"), "failed", 2, "request"),
    ],
)
def test_how_a_run_ended_is_recorded(tmp_path, error, state, exit_status, kind):
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc") as outcome:
        raise error
    status = run.read_status()
    assert outcome.exception is error
    assert outcome.exit_status == exit_status
    assert (status["state"], status["error"]["type"], status["error"]["kind"]) == (state, type(error).__name__, kind)
    assert run.error_path.exists() == (state == "failed")
    if state == "failed":
        assert "Traceback" in run.error_path.read_text()


def test_a_wrapped_full_disk_is_still_a_full_disk():
    outer = RuntimeError("saving failed")
    outer.__cause__ = OSError(28, "No space left on device")
    assert ending_of(outer).error["kind"] == "disk_full"
    assert "disk is full" in ending_of(outer).sentence


RUN_AND_WAIT = """
import sys, time
from rag_experiments.runs.recorder import recording
from rag_experiments.runs.directory import RunDirectory
run = RunDirectory.create(sys.argv[1])
with recording(run, "abc") as outcome:
    run.append_metrics(1, 0.1, 0.5, {"train/loss": 1.0})
    print("ready", flush=True)
    time.sleep(60)
sys.exit(outcome.exit_status)
"""


def start_waiting(tmp_path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_WAIT, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        # Under nohup, or in a shell's background, these would be ignored, rightly.
        preexec_fn=lambda: [
            signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        ],
    )
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_an_interruption(tmp_path, number):
    process = start_waiting(tmp_path)
    process.send_signal(number)
    assert process.wait(20) == 130
    assert RunDirectory(tmp_path / "run").read_status()["state"] == "interrupted"


def test_a_killed_run_counts_as_interrupted_and_goes_on(tmp_path):
    process = start_waiting(tmp_path)
    run = RunDirectory.open(tmp_path / "run")
    assert run.state == "running"
    with pytest.raises(RequestError, match="is running"), recorded(run, "abc"):
        pass
    assert newest_unfinished(tmp_path, "abc") is None
    process.kill()
    process.wait()
    assert run.read_status()["state"] == "running"
    assert run.state == "interrupted"
    assert newest_unfinished(tmp_path, "abc").path == run.path
    first = run.read_status()["started"]
    with recorded(run, "abc"):
        pass
    status = run.read_status()
    assert (status["state"], status["resumed"], status["started"]) == ("completed", 1, first)


def test_two_processes_cannot_have_one_run(tmp_path):
    process = start_waiting(tmp_path)
    run = RunDirectory.open(tmp_path / "run")
    run.update_status(state="interrupted")  # as if the status did not tell
    with pytest.raises(RequestError, match="another process"), recorded(run, "abc"):
        pass
    process.kill()
    process.wait()
    with recorded(run, "abc") as outcome:
        pass
    assert outcome.exit_status == 0
    assert not (run.path / ".running").exists()


@pytest.mark.parametrize("done", [False, True])
def test_a_request_refused_late_leaves_nothing_unless_something_was_done(tmp_path, done):
    run = RunDirectory.create(tmp_path / "run")
    with recorded(run, "abc", discard_refused=True) as outcome:
        if done:
            run.append_metrics(0, 0, 0, {"zero_shot/dev/recall@4": 0.5})
        raise RequestError("no such layer")
    assert outcome.exit_status == 2
    assert (outcome.refused is None) == done == run.path.exists() == run.error_path.exists()
