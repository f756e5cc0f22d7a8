"""What a run directory holds, and who may write it."""

from __future__ import annotations

import json
import os
import struct
import time

import numpy as np
import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from tests.recorded import recorded


def make_checkpoint(run: RunDirectory, step: int):
    folder = run.checkpoints_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def test_a_run_on_another_host_is_dead_when_silent(tmp_path):
    run = RunDirectory.create(tmp_path)
    run.update_status(state="running", host="elsewhere", pid=1)
    assert run.state == "interrupted"
    (tmp_path / ".running").touch()
    assert run.state == "running"
    old = time.time() - 3600
    os.utime(tmp_path / ".running", (old, old))
    assert run.state == "interrupted"


def test_a_run_is_never_overwritten(tmp_path):
    with recorded(RunDirectory.create(tmp_path), "abc"):
        pass
    with pytest.raises(RequestError, match="already holds a run"):
        RunDirectory.create(tmp_path)


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run = RunDirectory.create(tmp_path / "run")
    with recorded(run, "abc") as outcome:
        run.append_metrics(1, 0, 0, {})
        run.write_metrics({})
        run.write_predictions("dev", [{}])
    assert outcome.exit_status == 0
    assert not (tmp_path / "run").exists()


def test_metrics_survive_a_broken_line_and_are_cut_on_resume(tmp_path):
    run = RunDirectory.create(tmp_path)
    run.append_metrics(0, 0, 0, {"zero_shot/dev/recall@4": np.float64(0.5)})
    run.append_metrics(10, 1, 2, {"train/loss": float("nan")})
    with open(run.history_path, "a", encoding="utf-8") as file:
        file.write('{"step": 11, "tra')
    run.append_metrics(12, 1, 2, {"train/loss": 0.1})
    assert [line["step"] for line in run.read_metrics()] == [0, 10, 12]
    assert run.read_metrics()[0]["zero_shot/dev/recall@4"] == 0.5
    run.truncate_metrics(10)
    assert [line["step"] for line in run.read_metrics()] == [0, 10]


def test_resuming_drops_what_was_logged_after_the_checkpoint(tmp_path):
    run = RunDirectory.create(tmp_path)
    with recorded(run, "abc"):
        make_checkpoint(run, 10)
        for step in (0, 5, 10, 15):
            run.append_metrics(step, 0, 0, {"x": 1})
        raise KeyboardInterrupt
    with recorded(run, "abc"):
        assert [line["step"] for line in run.read_metrics()] == [0, 5, 10]


def test_only_a_complete_checkpoint_is_resumed(tmp_path):
    run = RunDirectory.create(tmp_path)
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
    run = RunDirectory.create(tmp_path)
    run.write_predictions("zero_shot/dev", [{"id": "q1"}, {"id": "q2"}])
    assert run.predictions_path("zero_shot/dev") == tmp_path / "predictions" / "zero_shot" / "dev.jsonl"
    assert run.read_predictions("zero_shot/dev") == [{"id": "q1"}, {"id": "q2"}]
    assert run.read_predictions("test") == []
