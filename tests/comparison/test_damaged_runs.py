"""One damaged run is a row that says why; the others stand, and nothing waits for a file that never ends.

`python -m benchmarks.damaged_runs` does the same to 700 directories, and measures.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.damaged_runs import FOLDER, KINDS, look, make_folder
from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.records import run_records
from rag_experiments.comparison.records.run_records import load_runs
from tests.comparison.conftest import rows_with, write_run

UNREADABLE = [
    "config: a date",
    "config: a set",
    "config: a cycle",
    "config: an alias bomb",
    "config: a bomb of merges",
    "config: deep lists",
    "config: an integer of 400 digits",
    "config: UTF-16",
    "status: NaN seconds",
    "status: deep",
    "status: half a character",
    "figures: 400 digits",
    "questions: blank lines",
    "questions: a folder",
]


@pytest.mark.parametrize("start", range(0, len(KINDS), FOLDER))
def test_sound_runs_stand_beside_damaged_ones(tmp_path: Path, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_EXPERIMENTS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    make_folder(tmp_path / "runs", list(KINDS)[start : start + FOLDER], random.Random(start))
    wrong, _ = look(tmp_path / "runs", tmp_path / "cache")
    assert wrong == []


def test_a_file_that_the_disk_does_not_give_is_a_row_that_says_why(tmp_path: Path, monkeypatch: Any) -> None:
    """A bad sector, a network drive that is gone: neither missing nor damaged."""
    sound, lost = (write_run(tmp_path / name, {"test": rows_with(0.5)}) for name in ("sound", "lost"))
    read = run_records.read_json

    def unless_lost(file: Path, *more: Any) -> Any:
        if file == lost / "metrics.json":
            raise OSError(errno.EIO, "input/output error")
        return read(file, *more)

    monkeypatch.setattr(run_records, "read_json", unless_lost)
    table = RunTable(load_runs([tmp_path], tmp_path / "cache"), "recall@1")
    assert {run.path: run.state for run in table.runs} == {sound: "completed", lost: "unreadable"}
    assert "lost: metrics.json cannot be read: input/output error." in table.notes


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_damaged_run_is_a_row_that_says_why(tmp_path: Path, kind: str) -> None:
    sound = write_run(tmp_path / "sound", {"test": rows_with(0.5)})
    damaged = write_run(tmp_path / "damaged", {"test": rows_with(0.5)}, {"trainer.learning_rate": 1.0})
    KINDS[kind](damaged, random.Random(0))
    table = RunTable(load_runs([tmp_path], tmp_path / "cache"), "recall@1")
    states = {run.path: run.state for run in table.runs}
    assert states == {sound: "completed", damaged: "unreadable"}
    assert any(note.startswith("damaged: ") and " cannot be read: " in note for note in table.notes)
