"""Sweeps of real, tiny trainings: in processes of their own, killed, out of memory, on a full disk."""

from __future__ import annotations

import _thread
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_json
from rag_experiments.core.provenance import _start_ticks, process_identity
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.sweeps import execute, launchers
from rag_experiments.sweeps.cluster import RayLauncher, RemoteLauncher
from rag_experiments.sweeps.jobs import Job, record_exception
from tests import warm
from tests.stand_in import stand_in
from tests.wandb_reader import read_back

TINY = ("trainer.num_train_epochs=1", "evaluation.splits=[dev]", "evaluation.zero_shot=false")


def command(sweep, *overrides: str, name: str = "s") -> list[str]:
    return [sys.executable, "-m", "rag_experiments.train", *sweep.common, f"name={name}", *TINY, *overrides]


COUNTING = """
import os
from rag_experiments.algorithms.ctl import CTLTrainer
from rag_experiments.models.encoder.encoder import Encoder

embed_passages = Encoder.embed_passages
def counted(self, texts, *more, **named):
    with open(os.environ["EMBEDDED"], "a") as file:
        file.write(f"{self.fingerprint()} {len(texts)}\\n")
    return embed_passages(self, texts, *more, **named)
Encoder.embed_passages = counted

class CountingCTL(CTLTrainer):
    pass
"""
"""CTL that writes down, in whichever process it runs, every corpus embedding: whose weights, how many passages."""


def test_parallel_processes_give_what_one_process_gives_and_embed_the_corpus_once(real_sweep, tmp_path, monkeypatch):
    from rag_experiments.models.encoder.encoder import Encoder

    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "counting.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("EMBEDDED", str(tmp_path / "embedded"))
    monkeypatch.setattr(Encoder, "embed_passages", Encoder.embed_passages)  # put back afterwards
    once = (*TINY, "algorithm._target_=counting.CountingCTL", "seed=0,1", "trainer.eval_strategy=no")
    once += ("trainer.load_best_model_at_end=false", "evaluation.zero_shot=true")
    assert real_sweep(*once, "hydra.launcher.n_jobs=2", "hydra.launcher.threads=1", launcher="local") == 0
    embedded = Counter((tmp_path / "embedded").read_text().splitlines())
    # The untrained weights by one of the two jobs, whose vectors both use; then each job its own trained ones.
    assert sorted(embedded.values()) == [1, 1, 1]
    assert {line.split()[1] for line in embedded} == {"40"}

    assert real_sweep(*once, f"paths.cache={tmp_path}/other_cache", name="serial") == 0
    assert Counter((tmp_path / "embedded").read_text().splitlines()) == dict.fromkeys(embedded, 2)
    parallel, serial = (figures(real_sweep, name) for name in ("s", "serial"))
    assert len(parallel) == 2
    assert parallel == serial
    assert weights(real_sweep, "s") == weights(real_sweep, "serial")


def figures(sweep, name: str) -> dict[str, dict[str, float]]:
    """What the jobs measured, times left out."""
    return {
        job: {k: v for k, v in metrics.items() if k.startswith(("dev/", "zero_shot/")) and "seconds" not in k}
        for job, metrics in sweep.values(name).items()
    }


def weights(sweep, name: str) -> dict[str, str]:
    """A hash of the weights of each job, which a failing test can show."""
    files = sweep.folder(name).glob("*/model/model.safetensors")
    return {file.parts[-3]: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_killed_sweep_takes_its_jobs_along_and_continues(real_sweep):
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    arguments = (
        "seed=0,1",
        "trainer.num_train_epochs=400",
        "trainer.save_strategy=epoch",
        "trainer.eval_strategy=epoch",
    )
    process = warm.start(command(real_sweep, *arguments), source_name="heavy", **silent)
    job = RunDirectory(real_sweep.folder() / "seed-0")
    wait_until(lambda: job.last_checkpoint() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: job.state == "interrupted", 30)
    assert not (real_sweep.folder() / "seed-1").exists()
    step = int(job.last_checkpoint().name.split("-")[1])
    process = warm.start(command(real_sweep, *arguments), source_name="another heavy", **silent)
    wait_until(lambda: job.read_status().get("resumed") == 1 and job.read_metrics()[-1]["step"] > step)
    steps = [line["step"] for line in job.read_metrics() if "train/loss" in line]
    assert steps == sorted(set(steps))  # continued, neither begun anew nor logged twice
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 130
    assert job.read_status()["state"] == "interrupted"


def wait_until(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


def test_offline_tracking_of_a_sweep_read_back(real_sweep):
    seeds = "seed=0,99999999999999"  # the second is more than random generators take
    assert real_sweep(*TINY, seeds, "tracking=wandb_offline", "tracking.tags=[mine]") == 1
    jobs = real_sweep.jobs()
    assert jobs == {"seed-0": "completed", "seed-99999999999999": "failed"}
    for name, state in jobs.items():
        read = read_back(real_sweep.folder() / name / "wandb")
        assert (read["group"], read["name"], "mine" in read["tags"], "sweep" in read["tags"]) == ("s", name, True, True)
        assert read["config"]["seed"] == int(name.removeprefix("seed-"))
        assert read["exit_code"] == (0 if state == "completed" else 1)
    assert any("dev/recall_at_4" in line for line in read_back(real_sweep.folder() / "seed-0" / "wandb")["history"])


# -- what a job's own process may come to ------------------------------------------------------------

STUB = """
import os, sys
from rag_experiments import train
from rag_experiments.runs.recorder import recording
from rag_experiments.runs.directory import RunDirectory
def start(arguments):
    run = RunDirectory.create({directory!r})
    with recording(run, "abc") as outcome:
        {body}
    return outcome.exit_status
train.start = start
from rag_experiments.sweeps import execute
sys.argv = ["execute", {job!r}]
execute.main()
"""


def run_stub(tmp_path: Path, body: str, directory: Path | None = None) -> RunDirectory:
    """A job whose run does `body`, in its own process, settled as a launcher would."""
    job = Job(label="j", overrides=[], config_hash="abc", directory=str(directory or tmp_path / "j"))
    job.path.mkdir(parents=True, exist_ok=True)
    file = tmp_path / "job.json"
    atomic_write_json(file, job.__dict__)
    process = subprocess.run([sys.executable, "-c", STUB.format(directory=job.directory, body=body, job=str(file))])
    execute.settle(job, process.returncode, out_of_memory=False)
    return job.run


def test_a_job_that_the_kernel_kills_is_recorded_by_its_sweep(tmp_path):
    run = run_stub(tmp_path, "os.kill(os.getpid(), 9)")
    status = run.read_status()
    assert (status["state"], status["error"]["type"]) == ("failed", "SIGKILL")
    assert "memory" in status["error"]["message"]


def test_a_completed_run_stays_completed_whatever_its_process_comes_to(tmp_path):
    job = Job(label="j", overrides=[], config_hash="abc", directory=str(tmp_path / "j"))
    job.run.update_status(state="completed", error=None)
    execute.settle(job, -signal.SIGSEGV, out_of_memory=False)
    execute.settle(job, 1, out_of_memory=False)
    record_exception(job, RequestError("that run is completed"))
    assert job.run.read_status() == {"state": "completed", "error": None}


def test_a_run_of_another_process_is_not_called_failed(tmp_path):
    job = Job(label="j", overrides=[], config_hash="abc", directory=str(tmp_path / "j"))
    other = subprocess.Popen(["sleep", "60"])
    identity = {**process_identity(), "pid": other.pid, "pid_started": _start_ticks(other.pid)}
    job.run.update_status(state="running", **identity)
    record_exception(job, RequestError("is running: another process has it"))
    assert job.run.read_status()["state"] == "running"
    other.kill()
    other.wait()
    record_exception(job, RequestError("no such key"))
    assert job.run.read_status()["state"] == "failed"


def test_an_interruption_without_a_signal_reaches_the_job(tmp_path, monkeypatch):
    """As Ray's `cancel` interrupts a worker."""
    job = Job(label="j", overrides=[], directory=str(tmp_path / "j"))
    process = subprocess.Popen(["sleep", "120"])
    monkeypatch.setattr(execute, "start_process", lambda *_: process)
    # A shell starts background jobs (`make test &`) with the signal ignored, and then nothing would interrupt.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.3, _thread.interrupt_main).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            execute.run_process(job)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.poll() == -signal.SIGTERM


def test_cancelled_jobs_of_a_cluster_are_waited_for(tmp_path):
    class Cluster(RemoteLauncher):
        poll_seconds = 0.02
        cancelled: float | None = None

        def open(self):
            pass

        def submit(self, job):
            return job

        def exception(self, handle):
            return None

        def cancel(self, handle):
            self.cancelled = time.monotonic()

        def done(self, handle):
            ended = self.cancelled is not None and time.monotonic() > self.cancelled + 0.3
            if ended:
                handle.run.update_status(state="interrupted")
            return ended

    job = Job(label="j", overrides=[], directory=str(tmp_path / "j"))

    def jobs():
        yield job
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Cluster(n_jobs=2).run_jobs(jobs()))
    assert job.run.state == "interrupted"
    assert job.run.read_status()


def test_a_job_that_wants_forty_gigabytes(tmp_path):
    body = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2); x = bytearray(40 * 2**30)"
    status = run_stub(tmp_path, body).read_status()
    assert (status["state"], status["error"]["kind"]) == ("failed", "out_of_memory")


def test_a_job_that_meets_a_full_disk_says_so_and_keeps_what_was_finished(tmp_path):
    """The device that is always full: holds for every user, also where nothing may be mounted."""
    run = run_stub(tmp_path, 'run.write_metrics({"dev/f1": 1}); open("/dev/full", "w").write("x" * 2**20)')
    status = run.read_status()
    assert (status["state"], status["error"]["kind"]) == ("failed", "disk_full")
    assert run.read_final_metrics() == {"dev/f1": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root; the test above holds for every user")
def test_a_job_on_a_full_disk_says_so_and_keeps_what_was_finished(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no mounts here; the test above holds without")
    try:
        body = 'run.write_metrics({"dev/f1": 1}); f = open(run.path / "big", "wb"); f.write(bytes(2**20)); f.flush()'
        run = run_stub(tmp_path, body, disk / "j")
        status = run.read_status()
        assert (status["state"], status["error"]["kind"]) == ("failed", "disk_full")
        assert run.read_final_metrics() == {"dev/f1": 1}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_places_have_their_gpus_and_their_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    stand_in(monkeypatch, launchers, "os", sched_getaffinity=lambda pid: set(range(8)))
    four = launchers.LocalLauncher(n_jobs="auto", gpus=4)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in four.free] == ["0", "1", "2", "3"]
    two = launchers.LocalLauncher(n_jobs="auto", gpus="4,5,6,7", gpus_per_job=2)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in two.free] == ["4,5", "6,7"]
    cpu = launchers.LocalLauncher(n_jobs=4, gpus=0)
    assert [place.environment["OMP_NUM_THREADS"] for place in cpu.free] == ["2"] * 4
    assert "CUDA_VISIBLE_DEVICES" not in cpu.free[0].environment
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert launchers.visible_gpus("auto") == ["3", "5"]


def test_submitits_stand_in_for_slurm(real_sweep, capfd):
    pytest.importorskip("submitit")
    assert real_sweep(*TINY, "seed=choice(1)", launcher="submitit_local") == 0
    assert real_sweep.jobs() == {"seed-1": "completed"}
    debug = "hydra.launcher.executor=debug"
    assert real_sweep(*TINY, "seed=1,0", debug, launcher="submitit_local") == 0
    assert real_sweep.jobs() == {"seed-0": "completed", "seed-1": "completed"}
    assert "2 completed (1 reused)" in capfd.readouterr().out


def test_a_ray_that_does_not_start_is_a_sentence(monkeypatch):
    class Ray:
        @staticmethod
        def is_initialized():
            return False

        @staticmethod
        def init(**options):
            raise Exception("The current node timed out during startup.")

    monkeypatch.setitem(sys.modules, "ray", Ray)
    monkeypatch.setattr(RayLauncher, "check", lambda self: None)
    with pytest.raises(RequestError, match="Ray did not start: The current node timed out"):
        RayLauncher().open()


def test_slurm_without_slurm_is_a_sentence(real_sweep):
    pytest.importorskip("submitit")
    with pytest.raises(RequestError, match=r"hydra\.launcher"):
        real_sweep("seed=0,1", launcher="slurm")
    assert not real_sweep.folder().exists()
