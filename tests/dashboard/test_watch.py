"""The watched directories: what is read, what is read again, and what broken files do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rag_experiments.core import provenance
from rag_experiments.core.errors import RequestError
from rag_experiments.dashboard.shared import watch as watch_module
from rag_experiments.dashboard.shared.watch import Watch
from tests.dashboard import synthetic


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LOOK_AGAIN_SECONDS", 0.0)


def make(tmp_path: Path, *names: str, **options) -> Watch:
    for name in names:
        synthetic.write_run(tmp_path / "runs" / name, synthetic.config(), **options)
    return Watch([tmp_path / "runs"], tmp_path / "cache")


def only(watch: Watch) -> watch_module.Run:
    (run,) = watch.look().values()
    return run


def test_finds_runs_at_any_depth_by_their_path(tmp_path: Path) -> None:
    watch = make(tmp_path, "a", "deep/er/b")
    assert [run.name for run in watch.look().values()] == ["a", "deep/er/b"]
    run = next(run for run in watch.look().values() if run.name.endswith("b"))
    assert (run.label, run.folder, run.algorithm) == ("b", "deep/er", "ctl")
    assert run.flat["trainer.learning_rate"] == 2e-5
    assert "test/recall@1" in run.figures


def test_the_same_run_below_two_directories_counts_once(tmp_path: Path) -> None:
    make(tmp_path, "x/a", "b")
    watch = Watch([tmp_path / "runs", tmp_path / "runs" / "x"], tmp_path / "cache")
    assert len(watch.look()) == 2


def test_a_key_does_not_depend_on_where_the_directory_lies(tmp_path: Path) -> None:
    one, other = make(tmp_path / "here", "x/a"), make(tmp_path / "there", "x/a")
    assert one.look().keys() == other.look().keys()


def test_what_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = make(tmp_path, "a", "b")
    first, version = dict(watch.look()), watch.version

    def refuse(*arguments: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(watch_module, "load_record", refuse)
    assert all(watch.look()[key] is run for key, run in first.items())
    assert watch.version == version


def test_a_growing_log_is_read_from_where_it_ended(tmp_path: Path) -> None:
    watch = make(tmp_path, "a", state="running", steps=3)
    before = only(watch)
    assert len(before.history()) == 3
    version = watch.version
    with open(tmp_path / "runs" / "a" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 40, "epoch": 0.4, "seconds": 40.0, "train/loss": 0.25}\n{"step": 50, "tra')
    after = only(watch)
    assert [line["step"] for line in after.history()] == [10, 20, 30, 40]  # half a line waits for its other half
    assert after.figures["train/loss"] == 0.25
    assert after.seconds == 100.0 + sum(map(ord, json.dumps(synthetic.config()["trainer"], sort_keys=True))) % 90
    assert watch.version != version
    assert len(before.history()) == 3  # who holds the older one is not disturbed
    with open(tmp_path / "runs" / "a" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('in/loss": 0.125}\n')
    assert only(watch).history()[-1] == {"step": 50, "train/loss": 0.125}


def test_a_resumed_runs_log_is_read_anew(tmp_path: Path) -> None:
    watch = make(tmp_path, "a", state="running", steps=3)
    assert len(only(watch).history()) == 3
    path = tmp_path / "runs" / "a" / "metrics.jsonl"
    replacement = path.with_suffix(".new")  # longer than before, so that its size alone would not tell
    replacement.write_text("".join(json.dumps({"step": step, "train/loss": 9.0}) + "\n" for step in range(100)))
    os.replace(replacement, path)
    assert [line["train/loss"] for line in only(watch).history()] == [9.0] * 100


def test_a_killed_run_is_interrupted_as_soon_as_its_process_is_gone(tmp_path: Path) -> None:
    watch = make(tmp_path, "a", state="running")
    status = tmp_path / "runs" / "a" / "status.json"
    values = json.loads(status.read_text())
    status.write_text(json.dumps(values | provenance.process_identity()))
    assert only(watch).state == "running"
    status.write_text(json.dumps(values | provenance.process_identity() | {"pid": 2**22 + 1}))
    assert only(watch).state == "interrupted"


@pytest.mark.parametrize("file", ["status.json", "config.yaml", "metrics.json"])
def test_a_broken_file_is_said_and_holds_nothing_back(tmp_path: Path, file: str) -> None:
    watch = make(tmp_path, "a", "b")
    (tmp_path / "runs" / "a" / file).write_text("{: broken")
    run, other = watch.look().values()
    assert file in (run.problem or "")
    assert other.problem is None
    assert other.metrics


def test_a_run_that_goes_away_goes_away(tmp_path: Path) -> None:
    watch = make(tmp_path, "a", "b")
    assert len(watch.look()) == 2
    (tmp_path / "runs" / "a" / "status.json").unlink()
    assert [run.name for run in watch.look().values()] == ["b"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere: there is no such directory"):
        Watch([tmp_path / "nowhere"])
