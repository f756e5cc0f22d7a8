"""Run directories: whole writes, states, resuming, finding, credentials."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from rag_experiments import provenance, runs
from rag_experiments.errors import RequestError
from rag_experiments.outcome import ending_of


def make_checkpoint(run: runs.RunDirectory, step: int):
    folder = run.checkpoints_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


# -- files -------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "metrics.json"
    runs.atomic_write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        runs.atomic_write_json(file, {"a": object()})

    def rows():
        yield {"a": 2}
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        runs.atomic_write_jsonl(file, rows())
    assert json.loads(file.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_json_is_strict_utf8_and_takes_numpy(tmp_path):
    file = tmp_path / "x.json"
    runs.atomic_write_json(
        file, {"n": np.float32(0.5), "i": np.int64(3), "nan": float("nan"), "v": np.ones(2), "s": "é"}
    )
    text = file.read_text(encoding="utf-8")
    assert json.loads(text) == {"n": 0.5, "i": 3, "nan": None, "v": [1.0, 1.0], "s": "é"}
    assert "é" in text
    assert "NaN" not in text


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(FileNotFoundError), runs.atomic_directory(target) as folder:
        (folder / "no such" / "file").write_bytes((folder / "a").write_text("half").to_bytes())
    assert os.listdir(tmp_path) == []
    for text in ("one", "two"):
        with runs.atomic_directory(target) as folder:
            (folder / "a").write_text(text)
            assert not (target / "a").exists() or (target / "a").read_text() == "one"
    assert (target / "a").read_text() == "two"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("text", ["algorithm=ctl,lr=1e-5", "ünï/cødé: x", "..", "", "a" * 300, "日本語", "-x-"])
def test_safe_names_can_be_typed_back(text):
    name = runs.safe_name(text)
    assert name
    assert len(name) <= 100
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name not in (".", "..")
    assert not name.startswith("-")


def test_long_names_that_differ_at_the_end_stay_apart():
    assert runs.safe_name("a" * 300 + "1") != runs.safe_name("a" * 300 + "2")


# -- identity ----------------------------------------------------------------------------------------


def test_the_hash_ignores_what_changes_no_figure_and_nothing_else():
    base = {"seed": 0, "name": "a", "trainer": {"learning_rate": 1.0, "max_steps": 5}, "tracking": {"mode": "x"}}
    same = {"tracking": None, "name": "b", "paths": {}, "plan": True, "resume": "auto", "sweep": {"on_error": "stop"}}
    reordered = {**same, "trainer": {"max_steps": 5, "learning_rate": 1}, "seed": 0}
    assert runs.config_hash(base) == runs.config_hash(reordered)
    assert runs.config_hash(base) != runs.config_hash({**base, "seed": 1})
    assert runs.config_hash(base) != runs.config_hash({**base, "trainer": {"learning_rate": 1.5, "max_steps": 5}})


def test_git_state_is_of_the_package_and_not_of_the_folder_around_it(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages" / "rag_experiments" / "provenance.py"))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert provenance.git_state() == (None, None)


# -- states ------------------------------------------------------------------------------------------


def test_a_run_that_ends_well(tmp_path):
    run = runs.RunDirectory.create(tmp_path / "run")
    with runs.recording(run, "abc", {"algorithm": "ctl", "data_hash": "d"}) as outcome:
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
    run = runs.RunDirectory.create(tmp_path)
    with runs.recording(run, "abc") as outcome:
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
from rag_experiments import runs
run = runs.RunDirectory.create(sys.argv[1])
with runs.recording(run, "abc") as outcome:
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
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT)],
    )
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_an_interruption(tmp_path, number):
    process = start_waiting(tmp_path)
    process.send_signal(number)
    assert process.wait(20) == 130
    assert runs.RunDirectory(tmp_path / "run").read_status()["state"] == "interrupted"


def test_a_killed_run_counts_as_interrupted_and_goes_on(tmp_path):
    process = start_waiting(tmp_path)
    run = runs.RunDirectory.open(tmp_path / "run")
    assert run.state == "running"
    with pytest.raises(RequestError, match="is running"), runs.recording(run, "abc"):
        pass
    assert runs.newest_unfinished(tmp_path, "abc") is None
    process.kill()
    process.wait()
    assert run.read_status()["state"] == "running"
    assert run.state == "interrupted"
    assert runs.newest_unfinished(tmp_path, "abc").path == run.path
    first = run.read_status()["started"]
    with runs.recording(run, "abc"):
        pass
    status = run.read_status()
    assert (status["state"], status["resumed"], status["started"]) == ("completed", 1, first)


def test_two_processes_cannot_have_one_run(tmp_path):
    process = start_waiting(tmp_path)
    run = runs.RunDirectory.open(tmp_path / "run")
    run.update_status(state="interrupted")  # as if the status did not tell
    with pytest.raises(RequestError, match="another process"), runs.recording(run, "abc"):
        pass
    process.kill()
    process.wait()
    with runs.recording(run, "abc") as outcome:
        pass
    assert outcome.exit_status == 0
    assert not (run.path / ".running").exists()


def test_a_process_number_used_again_is_not_the_run():
    me = provenance.process_identity()
    assert provenance.process_lives(me) is True
    assert provenance.process_lives({**me, "pid_started": me["pid_started"] - 1}) is False
    assert provenance.process_lives({**me, "host": "elsewhere"}) is None


def test_a_run_on_another_host_is_dead_when_silent(tmp_path):
    run = runs.RunDirectory.create(tmp_path)
    run.update_status(state="running", host="elsewhere", pid=1)
    assert run.state == "interrupted"
    (tmp_path / ".running").touch()
    assert run.state == "running"
    old = time.time() - 3600
    os.utime(tmp_path / ".running", (old, old))
    assert run.state == "interrupted"


def test_a_run_is_never_overwritten(tmp_path):
    with runs.recording(runs.RunDirectory.create(tmp_path), "abc"):
        pass
    with pytest.raises(RequestError, match="already holds a run"):
        runs.RunDirectory.create(tmp_path)


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run = runs.RunDirectory.create(tmp_path / "run")
    with runs.recording(run, "abc") as outcome:
        run.append_metrics(1, 0, 0, {})
        run.write_metrics({})
        run.write_predictions("dev", [{}])
    assert outcome.exit_status == 0
    assert not (tmp_path / "run").exists()


# -- what a run writes -------------------------------------------------------------------------------


def test_metrics_survive_a_broken_line_and_are_cut_on_resume(tmp_path):
    run = runs.RunDirectory.create(tmp_path)
    run.append_metrics(0, 0, 0, {"zero_shot/dev/recall@4": np.float64(0.5)})
    run.append_metrics(10, 1, 2, {"train/loss": float("nan")})
    with open(run.history_path, "a") as file:
        file.write('{"step": 11, "tra')
    run.append_metrics(12, 1, 2, {"train/loss": 0.1})
    assert [line["step"] for line in run.read_metrics()] == [0, 10, 12]
    assert run.read_metrics()[0]["zero_shot/dev/recall@4"] == 0.5
    run.truncate_metrics(10)
    assert [line["step"] for line in run.read_metrics()] == [0, 10]


def test_resuming_drops_what_was_logged_after_the_checkpoint(tmp_path):
    run = runs.RunDirectory.create(tmp_path)
    with runs.recording(run, "abc"):
        make_checkpoint(run, 10)
        for step in (0, 5, 10, 15):
            run.append_metrics(step, 0, 0, {"x": 1})
        raise KeyboardInterrupt
    with runs.recording(run, "abc"):
        assert [line["step"] for line in run.read_metrics()] == [0, 5, 10]


def test_only_a_complete_checkpoint_is_resumed(tmp_path):
    run = runs.RunDirectory.create(tmp_path)
    assert run.last_checkpoint() is None
    good = make_checkpoint(run, 9)
    assert run.last_checkpoint() == good
    make_checkpoint(run, 20).joinpath("trainer_state.json").unlink()
    make_checkpoint(run, 30).joinpath("trainer_state.json").write_text('{"global_st')
    weights = make_checkpoint(run, 40) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    make_checkpoint(run, 50).joinpath("model.safetensors").unlink()
    (run.checkpoints_dir / "tmp-checkpoint-60").mkdir()
    assert run.last_checkpoint() == good
    better = make_checkpoint(run, 100)
    assert run.last_checkpoint() == better


def test_predictions_by_stage(tmp_path):
    run = runs.RunDirectory.create(tmp_path)
    run.write_predictions("zero_shot/dev", [{"id": "q1"}, {"id": "q2"}])
    assert run.predictions_path("zero_shot/dev") == tmp_path / "predictions" / "zero_shot" / "dev.jsonl"
    assert run.read_predictions("zero_shot/dev") == [{"id": "q1"}, {"id": "q2"}]
    assert run.read_predictions("test") == []


def test_runs_are_found_at_any_depth_but_not_inside_runs(tmp_path):
    for name in ("ctl/a", "b", "ctl/a/evaluations/x", ".hidden/c"):
        run = runs.RunDirectory.create(tmp_path / name)
        run.update_status(state="failed", config_hash="abc", started=name)
    assert [str(run.path.relative_to(tmp_path)) for run in runs.find_runs(tmp_path)] == ["b", "ctl/a"]
    assert runs.newest_unfinished(tmp_path, "abc").path == tmp_path / "ctl" / "a"
    assert runs.newest_unfinished(tmp_path, "other") is None
    assert [run.path for run in runs.find_runs(tmp_path / "b")] == [tmp_path / "b"]


# -- credentials -------------------------------------------------------------------------------------

HEX40 = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "override",
    [
        "+tracking.api_key=abc",
        "trainer.hub_token=hf_" + "a" * 34,
        "name=hf_" + "b" * 34,
        "tracking.entity=" + HEX40,
        "+db.password='hunter2'",
        "data.path=https://me:secret@example.org/x.jsonl",
        "++x.HF_TOKEN=abc",
        "model.path=m,hf_" + "c" * 34,
        "+env.WANDB_API_KEY=" + HEX40,
    ],
)
def test_a_credential_on_the_command_line_is_refused_and_not_repeated(override):
    with pytest.raises(RequestError, match="credential") as caught:
        runs.refuse_secrets(["seed=1", override])
    secret = override.split("=", 1)[1]
    assert secret.strip("'") not in str(caught.value)


def test_what_only_resembles_a_credential_passes():
    runs.refuse_secrets(
        [
            "model.max_new_tokens=32",
            "+model.tokenizer=bert",
            "+model.eos_token=</s>",
            "+model.pad_token=[PAD]",
            "trainer.hub_token=null",
            "trainer.include_num_input_tokens_seen=all",
            "model.revision=" + HEX40,
            "+x.api_key=${oc.env:KEY}",
            "data.path=https://example.org/a@b",
            "hydra.sweep.dir=/tmp/a:b@c",
            "~tracking",
            "-m",
            "trainer.push_to_hub_token=",
        ]
    )


def test_credentials_are_masked_at_any_depth():
    config = {"a": {"hub_token": "x", "tokens": ["hf_" + "a" * 30, "plain"]}, "max_new_tokens": 3, "n": None}
    assert runs.mask_secrets(config) == {
        "a": {"hub_token": "***", "tokens": ["***", "plain"]},
        "max_new_tokens": 3,
        "n": None,
    }


def test_no_torch():
    code = "import sys, rag_experiments.runs; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
