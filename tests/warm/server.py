"""A Python that has imported the libraries: it forks a command for each request (tests/warm/__init__.py).

`python server.py <socket> <module> …`, where `<socket>` is the number of an open socket that keeps messages apart.
Nothing of the repository is imported here, so that each command imports its own package, from its own path, in its own
environment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import site
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

BOUND = 1 << 20
"""Bytes of a request: a command line and an environment."""
OWN_THREADS = {"jemalloc_bg_thd"}
"""Threads that survive a fork: jemalloc, which pyarrow brings, stops and starts them around it."""


def threads() -> list[str]:
    """Names of the threads of this process but for the main one and those that survive a fork."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if name not in OWN_THREADS][1:]


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; returns the request in the forked process, and None here when the asking side is gone.

    The fourth file of a request hears the process's number and, when it has ended, its exit status.
    """
    running: dict[int, tuple[int, int]] = {}  # by its pidfd: a process and where its end is told
    while True:
        ready, _, _ = select.select([control, *running], [], [])
        for handle in [one for one in ready if one is not control]:
            number, answer = running.pop(handle)
            status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
            with contextlib.suppress(BrokenPipeError):
                os.write(answer, f"{status}\n".encode())
            os.close(answer)
            os.close(handle)
        if control not in ready:
            continue
        message, files, _, _ = socket.recv_fds(control, BOUND, 4)
        if not message:
            for number, _ in running.values():
                os.kill(number, signal.SIGKILL)
            return None
        number = os.fork()
        if number == 0:
            for target, file in enumerate(files[:3]):
                os.dup2(file, target)
            for file in (*files, *running, *(answer for _, answer in running.values()), control.detach()):
                os.close(file)
            return json.loads(message)
        for file in files[:3]:
            os.close(file)
        os.write(files[3], f"{number}\n".encode())
        running[os.pidfd_open(number)] = number, files[3]


def become(request: dict[str, Any], libraries: list[str], changed: dict[str, tuple[str | None, str]]) -> None:
    """Take on the request's surroundings, as the interpreter would find them at its start."""
    if request["new_session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    environment = request["environment"]
    os.environ.clear()
    # Libraries set variables when they are imported.
    os.environ.update(
        environment | {name: value for name, (before, value) in changed.items() if environment.get(name) == before}
    )
    time.tzset()
    tempfile.tempdir = None
    # Their generators got states when they were imported: the same for every fork.
    for generators in ("numpy.random", "torch"):
        if generators in sys.modules:
            sys.modules[generators].seed()
    sys.orig_argv = list(request["command"])
    added = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = list(dict.fromkeys([*added, *libraries]))
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    # What lines are reached is measured in started processes too: by these hooks of the interpreter's start.
    site.execsitecustomize()
    if {"COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"} & set(os.environ):
        importlib.import_module("coverage").process_startup()


def run(command: list[str]) -> None:
    """`python -m module …` or `python -c code …`, in a main module of its own."""
    option, what = command[1:3]
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if option == "-m":
        sys.argv = ["-m", *command[3:]]
        sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(what)  # what the interpreter itself calls for `-m`
    else:
        sys.argv = ["-c", *command[3:]]
        sys.path.insert(0, "")
        exec(compile(what, "<string>", "exec"), main.__dict__)


def start() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted pytest ends this by closing the socket
    libraries = sys.path[1:]  # without this file's folder
    sys.path[:] = libraries
    before, surroundings = set(sys.modules), dict(os.environ)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    if threads():
        raise RuntimeError(f"these threads would be missing in a forked process: {threads()}")
    changed = {
        name: (surroundings.get(name), value) for name, value in os.environ.items() if surroundings.get(name) != value
    }
    gc.collect()
    gc.freeze()
    names = sorted({name.split(".")[0] for name in set(sys.modules) - before})
    control.send(json.dumps({"names": names, "changed": changed}).encode())
    request = serve(control)
    if request is not None:
        become(request, libraries, changed)
        run(request["command"])


if __name__ == "__main__":
    start()
