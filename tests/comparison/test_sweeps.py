"""A table over part of a sweep says so."""

from __future__ import annotations

import json
from pathlib import Path

from rag_experiments.compare import start
from rag_experiments.comparison.loading import load_runs
from rag_experiments.comparison.sweeps import gaps
from tests.comparison.conftest import rows_with, write_run


def sweep(root: Path, planned: int, begun: int) -> Path:
    folder = root / "lr"
    for job in range(begun):
        write_run(folder / f"job{job}", {"test": rows_with(0.5)}, {"trainer.learning_rate": float(job)})
    (folder / "multirun.yaml").write_text("{}")
    jobs = [{"job": f"lr={job}", "directory": f"job{job}", "state": "completed"} for job in range(planned)]
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    return folder


def test_jobs_that_never_began_are_said(tmp_path, capsys) -> None:
    folder = sweep(tmp_path, planned=4, begun=2)
    assert gaps(load_runs([tmp_path]), [tmp_path]) == [
        "INCOMPLETE: 2 of 4 jobs of the sweep lr are not here: lr=2, lr=3."
    ]
    assert start([str(folder)]) == 0
    assert "INCOMPLETE: 2 of 4 jobs" in capsys.readouterr().out


def test_a_whole_sweep_says_nothing(tmp_path) -> None:
    sweep(tmp_path, planned=2, begun=2)
    assert gaps(load_runs([tmp_path]), [tmp_path]) == []


def test_a_sweep_that_has_not_ended_is_said(tmp_path) -> None:
    folder = sweep(tmp_path, planned=2, begun=2)
    (folder / "sweep.json").unlink()
    assert "still going" in gaps(load_runs([tmp_path]), [tmp_path])[0]


def test_a_broken_summary_is_said(tmp_path) -> None:
    folder = sweep(tmp_path, planned=2, begun=2)
    (folder / "sweep.json").write_text("{")
    assert "cannot be read" in gaps(load_runs([tmp_path]), [tmp_path])[0]


def test_single_runs_out_of_a_sweep_are_no_gap(tmp_path) -> None:
    folder = sweep(tmp_path, planned=4, begun=2)
    runs = [folder / "job0", folder / "job1"]
    assert gaps(load_runs(runs), runs) == []
