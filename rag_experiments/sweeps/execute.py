"""One job, in this process or in one of its own. Nothing is raised: how it ended is in its directory.

`python -m rag_experiments.sweeps.execute JOB.json` is what a job's own process runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
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
from rag_experiments.core.files import atomic_write_json
from rag_experiments.core.outcome import DONE, INTERRUPTED, exit_status, termination_as_interrupt
from rag_experiments.sweeps.jobs import Job, prepare_directory, record_ending, record_exception

log = logging.getLogger(__name__)

JOB_FILE = "job.json"
CONSOLE = "console.log"
WHOLE_RUN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""A job is a whole run: it must not take itself for one rank of whatever started the sweep."""


def run_here(job: Job) -> int:
    """Run the job in this process; returns its exit status.

    Raises:
        KeyboardInterrupt: it was interrupted, and the sweep with it.
    """
    from rag_experiments import train

    prepare_directory(job)
    try:
        status = train.start(job.arguments())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        record_exception(job, error)
        return exit_status(error)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status


def run_here_inside_hydra(job: Job) -> int:
    """`run_here` where Hydra is running already (the sweep itself): its state and the logging are put back."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    GlobalHydra.instance().hydra = None
    try:
        return run_here(job)
    finally:
        Singleton.set_state(state)
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:], root.level = handlers, level
        free_memory()


def free_memory() -> None:
    """Give back what a finished job held, so that the next one finds room."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


# -- in a process of its own -------------------------------------------------------------------------


def start_process(job: Job, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start the job's own process; its output goes to `console.log` in the job's directory.

    It is in a session of its own: a Ctrl-C on the terminal reaches the sweep alone, which passes it on.
    """
    prepare_directory(job)
    file = job.path / JOB_FILE
    atomic_write_json(file, asdict(job))
    env = {name: value for name, value in os.environ.items() if name not in WHOLE_RUN}
    env |= {"RAG_EXPERIMENTS_SWEEP_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1", **(environment or {})}
    # The package as it is here, also where it is not installed but lies in the working directory.
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
    """Run the job in its own process and wait; an interruption is passed on to it, and raised."""
    kills = kernel_kills()
    process = start_process(job, environment)
    try:
        # Not `wait()`: Ray interrupts by setting a flag, which a blocking call would not see until the job has ended.
        while (status := process.poll()) is None:
            time.sleep(0.2)
    except BaseException:
        interrupt(process)
        await_end(process)
        raise
    settle(job, status, kernel_kills() > kills)
    return status


def interrupt(process: subprocess.Popen) -> None:
    """Ask the job to end. SIGTERM: a SIGINT is ignored by whatever a shell started in the background."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


def await_end(process: subprocess.Popen, grace_seconds: float = 60.0) -> None:
    """Wait for an interrupted job; kill it, and what it started, when it is too slow or at a second Ctrl-C."""
    try:
        process.wait(grace_seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def settle(job: Job, status: int, out_of_memory: bool) -> None:
    """Record the end of a process that could not do so itself: killed from outside, or broken before its run began."""
    if status in (DONE, INTERRUPTED):
        return
    run = job.run
    state = run.read_status().get("state")
    if state == "completed" or (status > 0 and state in ("failed", "interrupted")):
        return  # also where a library crashes while the process goes down
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
    """The last line with something on it, of the end of a file."""
    try:
        lines = path.read_bytes()[-8192:].decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def kernel_kills() -> int:
    """How many processes of this control group the kernel has ended for want of memory; 0 where it cannot be read."""
    for file in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(file).read_text(encoding="utf-8").splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
    return 0


def end_with_the_sweep() -> None:
    """Have the kernel end this process politely when the sweep's dies, also by `kill -9` (Linux).

    Otherwise the jobs of a killed sweep would go on, unseen, beside those of the sweep started again.
    """
    parent = int(os.environ.pop("RAG_EXPERIMENTS_SWEEP_PID", "0"))
    if not parent or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before the line above
        raise KeyboardInterrupt("the sweep has ended")


def read_job(path: Path) -> Job:
    """The job that `start_process` wrote."""
    return Job(**json.loads(path.read_text(encoding="utf-8")))


def main() -> NoReturn:
    """A job's own process."""

    def run(arguments: list[str]) -> int:
        end_with_the_sweep()
        with termination_as_interrupt():
            return run_here(read_job(Path(arguments[0])))

    exit_with(run, sys.argv[1:])


def follow(path: Path, position: int) -> tuple[bytes, int]:
    """What was written to a file after `position`, and the new position."""
    try:
        with open(path, "rb") as file:
            file.seek(position)
            new = file.read()
    except OSError:
        return b"", position
    return new, position + len(new)


def watch(interval: float = 0.2) -> Iterator[None]:
    """Yield every `interval` seconds: a sleep that signals interrupt."""
    while True:
        yield
        time.sleep(interval)


if __name__ == "__main__":
    main()
