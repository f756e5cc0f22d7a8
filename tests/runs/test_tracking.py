"""Tracking: what an offline W&B run holds when it is read back, and that its failures are never the run's."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from rag_experiments.config.schema import TrackingConfig
from rag_experiments.runs import tracking
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.recorder import recording
from rag_experiments.runs.tracking_names import flat_row, has_key, metric_name, session_mode
from tests.wandb_reader import read_back

RESOLVED = {
    "seed": 3,
    "algorithm": {"name": "ctl", "temperature": 0.05},
    "data": {"format": "pydocs"},
    "trainer": {"learning_rate": 1e-5, "hub_token": "hf_" + "a" * 30},
}
OFFLINE = TrackingConfig(mode="offline", tags=["mine"], table_rows=1)


@pytest.fixture(autouse=True)
def no_account(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "2026-01-01_minilm-pydocs")
    run.update_status(config_hash="abc", data_hash="def")
    return run


def test_an_offline_run_read_back(run):
    with tracking.make_tracker(OFFLINE, run, RESOLVED) as tracker:
        tracker.log({"zero_shot/dev/recall@4": 0.4}, 0)
        tracker.log({"train/loss": 2.0, "note": "text is left out"}, 5)
        tracker.log({"train/loss": 1.0, "dev/recall@4": 0.7}, 10)
        tracker.log({"train/loss": 1.5, "dev/recall@4": 0.6}, 15)
        tracker.summary({"test/recall@4": 0.65, "seconds/train": 9.0})
        rows = [
            {
                "id": "q1",
                "question": "why",
                "retrieved_ids": ["a", "b"],
                "retrieved_scores": [0.5, 0.25],
                "metrics": {"hit@1": 1},
            },
            {"id": "q2", "question": "how"},
        ]
        tracker.table("predictions/test", rows)
    read = read_back(run.wandb_dir)
    assert read["id"] == run.read_status()["wandb_run_id"]
    assert (read["project"], read["name"], read["exit_code"]) == ("rag_experiments", run.path.name, 0)
    assert set(read["tags"]) == {"mine", "ctl", "pydocs"}
    assert read["config"]["algorithm"] == {"name": "ctl", "temperature": 0.05}
    assert read["config"]["trainer"] == {"learning_rate": 1e-5, "hub_token": "***"}
    assert read["config"]["run"]["data_hash"] == "def"
    steps = [(line["step"], line.get("dev/recall_at_4")) for line in read["history"] if "step" in line]
    assert steps == [(0, None), (5, None), (10, 0.7), (15, 0.6)]
    assert read["summary"]["final/test/recall_at_4"] == 0.65
    recall, loss = read["metrics"]["dev/recall_at_4"], read["metrics"]["train/loss"]
    assert (recall.step_metric, recall.summary.max, recall.summary.min) == ("step", True, False)
    assert (loss.step_metric, loss.summary.max, loss.summary.min) == ("step", False, True)
    [table] = [line for line in read["history"] if "predictions/test/_type" in line]
    assert (table["predictions/test/nrows"], table["predictions/test/_type"]) == (1, "table-file")


def test_a_tables_row_has_no_column_for_each_hash():
    row = {"id": "q", "gold_ids": ["a.csv:2", "b"], "metrics": {"f1": 0.5}, "hashed_as": {"a.csv:2": "h"}}
    assert flat_row(row) == {"id": "q", "gold_ids": "a.csv:2 | b", "f1": 0.5}


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError(), 1), (KeyboardInterrupt(), 130), (MemoryError(), 1)])
def test_the_true_state_is_told_at_every_exit(run, error, code):
    with pytest.raises(type(error)), tracking.make_tracker(OFFLINE, run, RESOLVED):
        raise error
    assert read_back(run.wandb_dir)["exit_code"] == code


def test_a_resumed_run_is_one_whole_segment(run):
    with recording(run, "abc"), tracking.make_tracker(OFFLINE, run, RESOLVED) as tracker:
        for step in (0, 10, 20):
            run.append_metrics(step, 0, 0, {"train/loss": step / 10})
            tracker.log({"train/loss": step / 10}, step)
        raise KeyboardInterrupt
    first = read_back(run.wandb_dir)
    run.truncate_metrics(10)
    with tracking.make_tracker(OFFLINE, run, RESOLVED) as tracker:
        tracker.log({"train/loss": 7.0}, 20)
    second = read_back(run.wandb_dir)  # asserts that there is one segment
    assert (first["exit_code"], second["exit_code"]) == (130, 0)
    assert second["id"] == first["id"]
    assert [(line["step"], line["train/loss"]) for line in second["history"]] == [(0, 0.0), (10, 1.0), (20, 7.0)]
    assert not (run.path / ".wandb-earlier").exists()


def test_a_sweep_groups_its_jobs(run):
    run.update_status(sweep={"name": "lr-sweep", "job": "learning_rate-1e-5"})
    with tracking.make_tracker(OFFLINE, run, RESOLVED):
        pass
    read = read_back(run.wandb_dir)
    assert (read["group"], read["name"]) == ("lr-sweep", "learning_rate-1e-5")
    assert "sweep" in read["tags"]


def test_a_model_as_an_artifact(run, tmp_path):
    run.model_dir.mkdir()
    (run.model_dir / "model.safetensors").write_bytes(b"weights")
    with tracking.make_tracker(OFFLINE, run, RESOLVED) as tracker:
        tracker.artifact(run.model_dir, "ctl minilm")
    [artifact] = read_back(run.wandb_dir)["artifacts"]
    assert (artifact.name, artifact.type) == ("ctl-minilm", "model")
    assert [entry.path for entry in artifact.manifest.contents] == ["model.safetensors"]


class Broken:
    """A `wandb` whose every function raises."""

    def __init__(self, works=()):
        self.works = works
        self.calls = 0

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls += 1
            if name in self.works:
                return self
            raise OSError(f"{name} failed")

        return call


@pytest.mark.parametrize("works", [(), ("init", "Settings"), ("init", "Settings", "define_metric")])
def test_a_failing_tracker_is_said_once_and_never_fatal(run, monkeypatch, caplog, works):
    monkeypatch.setitem(sys.modules, "wandb", Broken(works))
    with caplog.at_level(logging.INFO), tracking.make_tracker(OFFLINE, run, RESOLVED) as tracker:
        for step in range(3):
            tracker.log({"train/loss": 1.0}, step)
        tracker.summary({"a": 1})
        tracker.table("t", [{"id": "1"}])
    assert len([record for record in caplog.records if "the run continues" in record.message]) == 1


def test_a_missing_wandb_is_not_fatal(run, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracking.make_tracker(OFFLINE, run, RESOLVED) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        tracker.summary({"a": 1})
        done = True
    assert done
    (said,) = [record for record in caplog.records if "the run continues" in record.message]
    assert "wandb" in said.message
    assert said.levelno == logging.WARNING
    assert "wandb_run_id" not in run.read_status(), "nothing began that could be gone on with"
    assert not run.wandb_dir.exists()


def test_a_start_that_fails_puts_the_earlier_segment_back(run, monkeypatch):
    (run.wandb_dir / "offline-run-1").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "wandb", Broken())
    with tracking.make_tracker(OFFLINE, run, RESOLVED):
        pass
    assert (run.wandb_dir / "offline-run-1").is_dir()


ONLINE_WITHOUT_A_SERVER = """
import logging, sys
from rag_experiments.runs import tracking
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.config.schema import TrackingConfig
logging.basicConfig(level=logging.INFO)
tracking.INIT_SECONDS = 3.0
run = RunDirectory.create(sys.argv[1])
with tracking.make_tracker(TrackingConfig(mode="auto"), run, {}) as tracker:
    tracker.log({"train/loss": 1.0}, 1)
"""


def test_online_without_an_answer_becomes_offline(tmp_path):
    # A process of its own: wandb reads its environment once. Nothing listens at port 9.
    account = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    command = [sys.executable, "-c", ONLINE_WITHOUT_A_SERVER, str(tmp_path / "run")]
    done = subprocess.run(command, env={**os.environ, **account}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tracking offline instead") == 1
    run = RunDirectory.open(tmp_path / "run")
    assert run.read_status()["wandb_mode"] == "offline"
    assert read_back(run.wandb_dir)["history"][0]["train/loss"] == 1.0


def test_only_the_first_rank_tracks(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with tracking.make_tracker(OFFLINE, run, RESOLVED) as tracker:
        assert isinstance(tracker, tracking.NullTracker)
    assert isinstance(tracking.make_tracker(TrackingConfig(backend="none"), run, {}), tracking.NullTracker)


def test_names_that_charts_can_read():
    assert metric_name("zero_shot/dev/recall@4") == "zero_shot/dev/recall_at_4"
    assert metric_name("a-b.c d") == "a_b_c_d"


def test_the_mode_follows_the_key(tmp_path, monkeypatch):
    assert session_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert session_mode("auto") == "disabled"
    assert session_mode("offline") == "offline"
    monkeypatch.delenv("WANDB_MODE")
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    netrc.write_text("machine example.org login user password x\n")
    assert not has_key()
    netrc.write_text("machine api.wandb.ai login user password x\n")
    assert session_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_key()


def test_wandb_is_imported_only_when_used():
    code = "import sys, rag_experiments.runs.tracking; sys.exit('wandb' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
