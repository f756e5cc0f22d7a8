"""A table over part of a sweep says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_experiments.compare import start
from rag_experiments.comparison.records import sweep_gaps
from rag_experiments.comparison.records.run_records import load_runs
from rag_experiments.comparison.records.sweep_gaps import gaps, sweep_folders
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
    said = gaps(load_runs([tmp_path]), [tmp_path])
    assert said == ["INCOMPLETE: the sweep lr is still running, or was stopped before its end."]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"jobs": [{}]}', '{"jobs": [{"job": "x"}]}', '{"jobs": 5}', "\xff"])
def test_a_broken_summary_is_said_once_and_hides_no_other_sweeps_gap(tmp_path, text: str) -> None:
    broken, other = sweep(tmp_path / "a", planned=2, begun=2), sweep(tmp_path / "b", planned=3, begun=2)
    (broken / "sweep.json").write_bytes(text.encode("latin-1"))
    first, second = gaps(load_runs([tmp_path]), [tmp_path])
    assert first.startswith(f"{broken / 'sweep.json'} cannot be read (")
    assert first.endswith("): it is not known whether the sweep is complete.")
    assert second == f"INCOMPLETE: 1 of 3 jobs of the sweep {other.name} are not here: lr=2."


def test_many_missing_jobs_are_counted_and_three_named(tmp_path) -> None:
    sweep(tmp_path / "a", planned=4, begun=1)
    assert gaps(load_runs([tmp_path]), [tmp_path])[0].endswith(
        "3 of 4 jobs of the sweep lr are not here: lr=1, lr=2, lr=3."
    )
    sweep(tmp_path / "b", planned=5, begun=1)
    assert gaps(load_runs([tmp_path / "b"]), [tmp_path / "b"])[0].endswith("not here: lr=1, lr=2, lr=3, ….")


def test_a_sweep_is_found_above_job_names_with_slashes_and_said_once(tmp_path) -> None:
    folder = tmp_path / "deep"
    for job in ("a/b/c/one", "a/b/c/two"):
        write_run(folder / job, {"test": rows_with(0.5)}, {"name": job})
    (folder / "sweep.json").write_text(json.dumps({"jobs": [{"job": "x", "directory": "gone"}]}))
    runs = load_runs([tmp_path])
    assert list(sweep_folders(runs)) == [folder]
    assert gaps(runs, [tmp_path]) == ["INCOMPLETE: 1 of 1 jobs of the sweep deep are not here: x."]
    assert len(gaps(runs, [str(folder)])) == 1
    assert gaps(runs, [folder / "a"]) == [], "who names a part knows that it is one"
    assert gaps(runs, []) == []
    deeper = write_run(tmp_path / "far" / "a" / "b" / "c" / "d" / "one", {}, {"name": "far"})
    (tmp_path / "far" / "sweep.json").write_text("{}")
    assert list(sweep_folders(load_runs([deeper]))) == [], "four folders up, and no more"


def test_single_runs_out_of_a_sweep_are_no_gap(tmp_path) -> None:
    folder = sweep(tmp_path, planned=4, begun=2)
    runs = [folder / "job0", folder / "job1"]
    assert gaps(load_runs(runs), runs) == []


def test_each_sweep_is_looked_at_whatever_the_one_before_it_was(tmp_path) -> None:
    first, second = sweep(tmp_path / "a", planned=2, begun=1), sweep(tmp_path / "b", planned=3, begun=1)
    runs = load_runs([tmp_path])
    assert list(sweep_folders(runs)) == [first, second]
    assert gaps(runs, [second]) == ["INCOMPLETE: 2 of 3 jobs of the sweep lr are not here: lr=1, lr=2."]
    (first / "sweep.json").unlink()
    assert len(gaps(runs, [tmp_path])) == 2


def test_links_and_relative_paths_lead_to_the_same_sweep(tmp_path, monkeypatch) -> None:
    sweep(tmp_path / "a", planned=2, begun=2)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    for folder in ("link", "a"):
        assert gaps(load_runs([folder]), [folder]) == []
    sweep(tmp_path / "b", planned=2, begun=1)
    assert len(gaps(load_runs(["b"]), ["b"])) == 1


def test_a_summary_that_the_disk_does_not_give_is_said(tmp_path, monkeypatch) -> None:
    sweep(tmp_path, planned=1, begun=1)
    runs = load_runs([tmp_path])

    def fail(*arguments, **options):
        raise OSError("input/output error")

    monkeypatch.setattr(sweep_gaps, "read_json", fail)
    assert "cannot be read (input/output error)" in gaps(runs, [tmp_path])[0]


def test_a_folder_that_was_seen_from_too_deep_does_not_hide_its_sweep(tmp_path) -> None:
    folder = tmp_path / "lr"
    write_run(folder / "a" / "b" / "c" / "d" / "deep", {}, {"name": "deep"})
    write_run(folder / "a" / "near", {}, {"name": "near"})
    (folder / "sweep.json").write_text("{}")
    assert list(sweep_folders(load_runs([tmp_path]))) == [folder]
