"""Run one job in this process or in one of its own. Errors are not raised: the job's directory records its end.

A job's own process runs `python -m rag_experiments.sweeps.execute JOB.json`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from rag_experiments.config.command_line import exit_with
from rag_experiments.config.surroundings import as_before, free_memory
from rag_experiments.core.files import atomic_write_json
from rag_experiments.core.outcome import DONE, INTERRUPTED, exit_status, termination_as_interrupt
from rag_experiments.sweeps.jobs import Job, prepare_directory, record_ending, record_exception

log = logging.getLogger(__name__)

JOB_FILE = "job.json"
CONSOLE = "console.log"
WHOLE_RUN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""These variables are removed: a job is a whole run, and not one rank of the command that started the sweep."""


def run_here(job: Job) -> int:
    """Run the job in this process; returns its exit status.

    Raises:
        KeyboardInterrupt: the job and the sweep were interrupted.
    """
    import rag_experiments.train as command

    prepare_directory(job)
    try:
        status = command.start(job.arguments())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        record_exception(job, error)
        return exit_status(error)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status


def run_here_inside_hydra(job: Job) -> int:
    """`run_here` inside a sweep, where Hydra already runs and must find itself as it was."""
    try:
        with as_before():
            return run_here(job)
    finally:
        free_memory()


# -- in a process of its own -------------------------------------------------------------------------


def start_process(job: Job, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start a process for the job; its output goes to `console.log` in the job's directory.

    The process has its own session, so Ctrl-C on the terminal reaches only the sweep, which interrupts the job.
    """
    prepare_directory(job)
    file = job.path / JOB_FILE
    atomic_write_json(file, asdict(job))
    env = {name: value for name, value in os.environ.items() if name not in WHOLE_RUN}
    env |= {"RAG_EXPERIMENTS_SWEEP_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1", **(environment or {})}
    # The same package as here, also if it is not installed but in the working directory.
    root = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
    with open(job.path / CONSOLE, "ab") as console:
        return subprocess.Popen(
            [sys.executable, "-m", "rag_experiments.sweeps.execute", str(file)],
            stdout=console,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )


def run_process(job: Job, environment: Mapping[str, str] | None = None) -> int:
    """Run the job in its own process and wait. An interruption is passed on to the job, then raised."""
    kills = kernel_kills()
    process = start_process(job, environment)
    try:
        # Not `wait()`: Ray interrupts by a flag, and a blocking call would see it only after the job has ended.
        while (status := process.poll()) is None:
            time.sleep(0.2)
    except BaseException:
        interrupt(process)
        await_end(process)
        raise
    settle(job, status, kernel_kills() > kills)
    return status


def interrupt(process: subprocess.Popen) -> None:
    """Ask the job to end. SIGTERM, because processes that a shell started in the background ignore SIGINT."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


def await_end(process: subprocess.Popen, grace_seconds: float = 60.0) -> None:
    """Wait for an interrupted job. Kill it and its children if it is too slow or at a second Ctrl-C."""
    try:
        process.wait(grace_seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def settle(job: Job, status: int, out_of_memory: bool) -> None:
    """Record the end of a process that could not do it itself: it was killed, or failed before its run began."""
    if status in (DONE, INTERRUPTED):
        return
    run = job.run
    state = run.read_status().get("state")
    if state == "completed" or (status > 0 and state in ("failed", "interrupted")):
        return  # also if a library crashes during the exit
    if status < 0:
        name = signal.Signals(-status).name
        kind = "out_of_memory" if out_of_memory else "exception"
        why = "the kernel ended it, since memory ran out" if out_of_memory else "ended from outside"
        hint = "; without a message that is most often memory running out" if name == "SIGKILL" else ""
        record_ending(job, {"type": name, "message": why + ("" if out_of_memory else hint), "kind": kind})
        return
    last = last_line(job.path / CONSOLE)
    record_ending(job, {"type": "Error", "message": last or f"exit status {status}", "kind": "exception"})


def last_line(path: Path) -> str:
    """The last non-empty line of a file."""
    try:
        lines = path.read_bytes()[-8192:].decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def kernel_kills() -> int:
    """How many processes of this control group the kernel killed because memory ran out; 0 if that is unknown."""
    for file in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(file).read_text(encoding="utf-8").splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
    return 0


def end_with_the_sweep() -> None:
    """Let the kernel send SIGTERM to this process when the sweep's process ends, also after `kill -9` (Linux).

    Otherwise the jobs of a killed sweep would continue unseen next to those of the restarted sweep.
    """
    parent = int(os.environ.pop("RAG_EXPERIMENTS_SWEEP_PID", "0"))
    if not parent or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
    if os.getppid() != parent:  # the parent ended before the line above
        raise KeyboardInterrupt("the sweep has ended")


def read_job(path: Path) -> Job:
    """Read the job that `start_process` wrote."""
    return Job(**json.loads(path.read_text(encoding="utf-8")))


def main() -> NoReturn:
    """The entry point of a job's own process."""

    def run(arguments: list[str]) -> int:
        end_with_the_sweep()
        with termination_as_interrupt():
            return run_here(read_job(Path(arguments[0])))

    exit_with(run, sys.argv[1:])


def follow(path: Path, position: int) -> tuple[bytes, int]:
    """The bytes written to a file after `position`, and the new position."""
    try:
        with open(path, "rb") as file:
            file.seek(position)
            new = file.read()
    except OSError:
        return b"", position
    return new, position + len(new)


def watch(interval: float = 0.2) -> Iterator[None]:
    """Yield every `interval` seconds; a signal can interrupt the sleep."""
    while True:
        yield
        time.sleep(interval)


if __name__ == "__main__":
    main()
