"""A command that is forked from a process with imported libraries sees what it would see if it started cold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm

STATE = """
import atexit, json, locale, logging, os, signal, sys, tempfile, threading, time, warnings
import hydra, numpy
from hydra.core.global_hydra import GlobalHydra
import rag_experiments
atexit.register(lambda: print("the end"))
print(json.dumps({
    "arguments": [sys.argv, sys.orig_argv], "path": sys.path, "folder": os.getcwd(),
    "leads": os.getpgid(0) == os.getpid(),
    "environment": {name: value for name, value in os.environ.items() if name != "_"},
    "package": rag_experiments.__file__, "main": [__name__, sys.modules["__main__"].__dict__ is globals()],
    "own": sorted(name for name in sys.modules if name.split(".")[0] in ("rag_experiments", "tests", "server")),
    "temporary": tempfile.gettempdir(), "zone": time.tzname, "locale": locale.setlocale(locale.LC_ALL),
    "streams": [(one.encoding, one.errors, one.line_buffering, one.fileno()) for one in (sys.stdout, sys.stderr)],
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "logging": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable],
    "threads": threading.active_count(), "flags": str(sys.flags), "hydra": GlobalHydra.instance().is_initialized(),
    "open": sorted(name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
    "input": os.read(0, 1).decode(), "warnings": [str(one) for one in warnings.filters],
    "random": str(numpy.random.rand()),
}))
sys.exit(7)
"""


BY_TRANSFORMERS = "[INFO] Running in WANDB offline mode\n"
"""Printed when it is imported, which a forked process does not see."""


@pytest.fixture
def command(tmp_path: Path) -> dict:
    """A module in a folder of its own, as it is started."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "state.py").write_text(STATE)
    path = os.pathsep.join([str(tmp_path / "outside"), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "TZ": "America/St_Johns", "RAG_OWN": "é"}
    return {"cwd": tmp_path, "env": environment}


@pytest.mark.parametrize(("source_name", "option"), [("light", "-m"), ("light", "-c"), ("heavy", "-m")])
def test_the_surroundings_are_those_of_a_cold_start(command, source_name, option):
    code = f"import {', '.join(warm.SOURCES[source_name])}\n{STATE}"
    (command["cwd"] / "outside" / "state.py").write_text(code)
    line = [sys.executable, option, "state" if option == "-m" else code, "a b", "", "-x"]
    cold = subprocess.run(line, capture_output=True, text=True, **command)
    printed = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    forked = warm.start(line, source_name=source_name, **printed, **command)
    assert isinstance(forked, warm.Started)
    out, err = forked.communicate(60)
    assert (cold.returncode, forked.returncode) == (7, 7), cold.stderr + err
    assert err == cold.stderr
    states = []
    for text in (cold.stdout, out):
        first, last = text.removeprefix(BY_TRANSFORMERS).splitlines()
        assert last == "the end"
        states.append(json.loads(first))
    drawn = [state.pop("random") for state in states]
    assert drawn[0] != drawn[1]
    assert states[1].keys() == states[0].keys()
    for name, value in states[0].items():
        assert states[1][name] == value, name


def test_forks_draw_their_own_numbers(command):
    code = "import numpy, random, torch; print(numpy.random.rand(), random.random(), torch.rand(1).item())"
    printed = [warm.run([sys.executable, "-c", code], check=True, **command).stdout.split() for _ in range(2)]
    assert not set(printed[0]) & set(printed[1])


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit('no')", 1), ("1 / 0", 1), ("import os; os._exit(130)", 130),
     ("import os; os.kill(os.getpid(), 9)", -9)],
)  # fmt: skip
def test_statuses_are_those_of_a_process(command, code, status):
    done = warm.run([sys.executable, "-c", code], source_name="light", **command)
    assert done.returncode == status
    assert ("ZeroDivisionError" in done.stderr) is ("/" in code)
    if status:
        with pytest.raises(subprocess.CalledProcessError):
            warm.run([sys.executable, "-c", code], source_name="light", check=True, **command)


def test_it_is_signalled_and_waited_for(command):
    line = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    started = warm.start(line, source_name="light", stdout=subprocess.PIPE, start_new_session=True, **command)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0.2)
    assert started.poll() is None
    assert os.getpgid(started.pid) == started.pid
    started.send_signal(signal.SIGINT)
    assert started.wait(30) == -signal.SIGINT
    assert started.communicate() == (f"{started.pid}\n", None)
    started.kill()  # it has ended: nobody is signalled


def test_what_runs_ends_with_its_source(command):
    origin = warm.Source(("json",))
    line = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = warm.Started(origin, line, str(command["cwd"]), command["env"], None, None, False)
    origin.close()
    assert origin.process.wait(30) == 0
    with pytest.raises(RuntimeError, match="is gone"):
        started.wait(30)


def test_a_start_is_cold_where_it_could_differ(command, tmp_path):
    origin, line = warm.source("light"), [sys.executable, "-m", "state"]
    folder, environment = str(tmp_path), command["env"]
    assert warm.why_cold(line, folder, environment, origin) == ""
    for other in (["sleep", "1"], [sys.executable, "-I", "-m", "state"], [sys.executable, "state.py"]):
        assert "another program" in warm.why_cold(other, folder, environment, origin)
    for name, value in {"HOME": folder, "OMP_NUM_THREADS": "3", "LC_ALL": "C", "TMPDIR": folder}.items():
        assert name in warm.why_cold(line, folder, environment | {name: value}, origin)
    (tmp_path / "yaml.py").touch()
    assert "yaml.py stands in a library's place" in warm.why_cold(line, folder, environment, origin)
    elsewhere = environment | {"PYTHONPATH": folder}
    assert "yaml.py" in warm.why_cold(line, str(tmp_path / "outside"), elsewhere, origin)
    done = warm.run([sys.executable, "-c", "import yaml; print(yaml.__file__)"], source_name="light", **command)
    assert done.stdout == f"{tmp_path / 'yaml.py'}\n"
