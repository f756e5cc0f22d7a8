"""A job's process: what it gets, how its end is told, what is left of it. The processes here do nothing else."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from rag_experiments import train
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.sweeps import execute
from rag_experiments.sweeps.jobs import Job
from tests.stand_in import stand_in


@pytest.fixture
def job(tmp_path) -> Job:
    return Job("j", ["seed=0"], config_hash="abc", data_hash="d", directory=str(tmp_path / "j"), sweep="s")


def run_of(job: Job, **status) -> RunDirectory:
    job.path.mkdir(exist_ok=True)
    job.run.update_status(**status)
    return job.run


# -- in this process -----------------------------------------------------------------------------------


def test_a_job_here_is_its_command_line_in_an_empty_folder(job, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "start", lambda arguments: asked.append(arguments) or 0)
    run_of(job, state="failed")
    assert execute.run_here(job) == 0
    assert asked == [job.arguments()]
    assert os.listdir(job.path) == []


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [(ValueError("a shape"), 1, "exception"), (RequestError("seed"), 2, "request"), (SystemExit(3), 1, "exception")],
)
def test_what_a_job_raises_is_in_its_directory(job, monkeypatch, error, status, kind):
    def start(arguments):
        raise error

    monkeypatch.setattr(train, "start", start)
    assert execute.run_here(job) == status
    stored = job.run.read_status()
    assert (stored["state"], stored["error"]["kind"]) == ("failed", kind)


def test_an_interruption_is_the_sweeps_too(job, monkeypatch):
    def start(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "start", start)
    with pytest.raises(KeyboardInterrupt):
        execute.run_here(job)
    assert job.run.read_status() == {}
    monkeypatch.setattr(train, "start", lambda arguments: 130)
    with pytest.raises(KeyboardInterrupt):
        execute.run_here(job)
    monkeypatch.setattr(train, "start", lambda arguments: 1)
    assert execute.run_here(job) == 1


@pytest.fixture
def hydras_state():
    """Whatever a test does to it is undone."""
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()
    yield
    Singleton.set_state(state)


@pytest.mark.parametrize("fails", [False, True])
def test_hydra_and_the_logging_are_put_back(job, monkeypatch, hydras_state, fails):
    from hydra.core.global_hydra import GlobalHydra

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    freed, closed = [], []
    GlobalHydra.instance().hydra = "the sweep's"
    monkeypatch.setattr(execute, "free_memory", lambda: freed.append(True))

    class Handler(logging.StreamHandler):
        def close(self):
            closed.append(True)
            super().close()

    def start(arguments):
        assert GlobalHydra.instance().hydra is None
        root.handlers[:] = [Handler()]
        root.setLevel(logging.CRITICAL)
        if fails:
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(train, "start", start)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            execute.run_here_inside_hydra(job)
    else:
        assert execute.run_here_inside_hydra(job) == 0
    assert GlobalHydra.instance().hydra == "the sweep's"
    assert (root.handlers, root.level) == (before, level)
    assert (freed, closed) == ([True], [True])


# -- in a process of its own ---------------------------------------------------------------------------

SHOW = "import json, os, sys; print(json.dumps([sys.argv, dict(os.environ), os.getsid(0) == os.getpid()]))"


@pytest.fixture
def shown(job, monkeypatch):
    """What a job's process is started with."""

    def started(environment=None):
        popen = subprocess.Popen
        seen = {}

        def start(command, **options):
            seen["command"] = command
            return popen([sys.executable, "-c", SHOW, *command[1:]], **options)

        with monkeypatch.context() as patch:
            stand_in(patch, execute, "subprocess", Popen=start)
            assert execute.start_process(job, environment).wait() == 0
        seen["arguments"], seen["env"], seen["session"] = json.loads(execute.last_line(job.path / execute.CONSOLE))
        return seen

    return started


def test_a_jobs_process_reads_the_job_from_its_folder(job, shown):
    seen = shown()
    assert seen["command"][:3] == [sys.executable, "-m", "rag_experiments.sweeps.execute"]
    assert execute.read_job(job.path / "job.json") == job
    assert seen["command"][3] == str(job.path / "job.json")
    assert seen["session"]  # Ctrl-C on the terminal reaches the sweep alone


def test_a_job_is_a_whole_run_whatever_started_the_sweep(shown, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    env = shown({"CUDA_VISIBLE_DEVICES": "3"})["env"]
    assert not execute.WHOLE_RUN & env.keys()
    assert (env["KEPT"], env["CUDA_VISIBLE_DEVICES"], env["PYTHONUNBUFFERED"]) == ("1", "3", "1")
    assert env["RAG_EXPERIMENTS_SWEEP_PID"] == str(os.getpid())
    first, *others = env["PYTHONPATH"].split(os.pathsep)
    assert (first, others) == (str(execute.Path(execute.__file__).parents[2]), ["/mine"])
    monkeypatch.delenv("PYTHONPATH")
    assert shown()["env"]["PYTHONPATH"] == first


def test_a_second_start_adds_to_the_console(job, shown):
    shown()
    shown()
    assert len((job.path / "console.log").read_text().splitlines()) == 2


def test_an_interrupted_job_is_asked_to_end_and_waited_for():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    execute.interrupt(process)
    execute.await_end(process)
    assert process.returncode == -signal.SIGTERM
    execute.interrupt(process)  # has ended: no error


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


def test_a_job_that_does_not_end_is_killed():
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    execute.interrupt(process)
    execute.await_end(process, 0.2)
    assert process.returncode == -signal.SIGKILL


# -- how it ended --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 130])
def test_an_end_that_the_run_itself_tells_is_not_told_again(job, status):
    execute.settle(job, status, False)
    assert not job.path.exists()


@pytest.mark.parametrize(
    ("state", "status", "told"),
    [
        ("completed", 1, False),
        ("completed", -9, False),
        ("failed", 1, False),
        ("interrupted", 1, False),
        ("failed", -9, True),
        ("interrupted", -15, True),
        (None, 1, True),
    ],
)
def test_when_the_sweep_tells_it(job, state, status, told):
    if state:
        run_of(job, state=state)
    execute.settle(job, status, False)
    assert ("error" in job.run.read_status()) is told


@pytest.mark.parametrize(
    ("status", "out_of_memory", "error"),
    [
        (
            -9,
            True,
            {"type": "SIGKILL", "message": "the kernel ended it, since memory ran out", "kind": "out_of_memory"},
        ),
        (
            -9,
            False,
            {
                "type": "SIGKILL",
                "message": "ended from outside; without a message that is most often memory running out",
                "kind": "exception",
            },
        ),
        (-15, False, {"type": "SIGTERM", "message": "ended from outside", "kind": "exception"}),
        (3, False, {"type": "Error", "message": "exit status 3", "kind": "exception"}),
    ],
)
def test_why_a_process_ended_is_recorded(job, status, out_of_memory, error):
    execute.settle(job, status, out_of_memory)
    stored = job.run.read_status()
    assert (stored["state"], stored["error"]) == ("failed", error)


def test_the_last_words_of_a_process_are_kept(job):
    job.path.mkdir()
    (job.path / "console.log").write_text("first\nImportError: no module\n\n  \n")
    execute.settle(job, 1, False)
    assert job.run.read_status()["error"]["message"] == "ImportError: no module"


def test_last_lines(tmp_path):
    file = tmp_path / "log"
    assert execute.last_line(file) == ""
    for content, last in (
        (b"", ""),
        (b"\n \n", ""),
        (b"a\n b \n\n", "b"),
        (b"\xff\n", "\ufffd"),
        (b"a" * 9000, "a" * 8192),
    ):
        file.write_bytes(content)
        assert execute.last_line(file) == last


def test_a_file_is_followed(tmp_path):
    file = tmp_path / "log"
    assert execute.follow(file, 0) == (b"", 0)
    file.write_bytes(b"one")
    assert execute.follow(file, 0) == (b"one", 3)
    file.write_bytes(b"one two")
    assert execute.follow(file, 3) == (b" two", 7)
    assert execute.follow(file, 7) == (b"", 7)


@pytest.mark.parametrize(
    ("text", "kills"),
    [("oom 1\noom_kill 3\n", 3), ("low 0\n", 0), ("oom_kill x\n", 0), ("", 0), ("not_oom_kill 4\n", 0)],
)
def test_how_often_the_kernel_killed(tmp_path, monkeypatch, text, kills):
    file = tmp_path / "memory.events"
    file.write_text(text)
    monkeypatch.setattr(execute, "Path", lambda path: file if path.endswith("events") else tmp_path / "gone")
    assert execute.kernel_kills() == kills
    monkeypatch.setattr(execute, "Path", lambda path: tmp_path / "gone")
    assert execute.kernel_kills() == 0


ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, sys, time
from rag_experiments.sweeps.execute import end_with_the_sweep
end_with_the_sweep()
assert "RAG_EXPERIMENTS_SWEEP_PID" not in os.environ
print(os.getpid(), flush=True)
time.sleep(60)
'''], env={**os.environ, "RAG_EXPERIMENTS_SWEEP_PID": str(os.getpid())})
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word for it is Linux's")
def test_a_job_ends_when_its_sweep_is_killed():
    sweep = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    child = int(sweep.stdout.readline())
    sweep.kill()
    sweep.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{child}/stat") as file:  # nobody may be left to wait for it
            if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                return
        time.sleep(0.05)
    raise AssertionError("it goes on without its sweep")


def test_a_job_whose_sweep_has_gone_does_not_begin(monkeypatch):
    monkeypatch.setenv("RAG_EXPERIMENTS_SWEEP_PID", str(2**22 + 1))
    job = [sys.executable, "-m", "rag_experiments.sweeps.execute", "no job that could begin"]
    done = subprocess.run(job, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted; the sweep has ended\n")
    code = "from rag_experiments.sweeps.execute import end_with_the_sweep; end_with_the_sweep(); print('began')"
    monkeypatch.delenv("RAG_EXPERIMENTS_SWEEP_PID")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "began\n")


@pytest.mark.parametrize(("raised", "status"), [(None, 5), (KeyboardInterrupt(), 130)])
def test_a_jobs_process_leaves_with_the_runs_status(job, monkeypatch, raised, status):
    job.path.mkdir()
    file = job.path / "job.json"
    file.write_text(json.dumps(execute.asdict(job)))
    monkeypatch.setattr(sys, "argv", ["execute", str(file)])

    def run_here(read):
        assert read == job
        if raised:
            raise raised
        return 5

    monkeypatch.setattr(execute, "run_here", run_here)
    with pytest.raises(SystemExit) as leaving:
        execute.main()
    assert leaving.value.code == status
