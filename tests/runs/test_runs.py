"""The identity of runs, and finding them."""

from __future__ import annotations

import subprocess
import sys

from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import config_hash, find_runs, newest_unfinished


def test_the_hash_ignores_what_changes_no_figure_and_nothing_else():
    base = {"seed": 0, "name": "a", "trainer": {"learning_rate": 1.0, "max_steps": 5}, "tracking": {"mode": "x"}}
    same = {"tracking": None, "name": "b", "paths": {}, "plan": True, "resume": "auto", "sweep": {"on_error": "stop"}}
    reordered = {**same, "trainer": {"max_steps": 5, "learning_rate": 1}, "seed": 0}
    assert config_hash(base) == config_hash(reordered)
    assert config_hash(base) != config_hash({**base, "seed": 1})
    assert config_hash(base) != config_hash({**base, "trainer": {"learning_rate": 1.5, "max_steps": 5}})


def test_runs_are_found_at_any_depth_but_not_inside_runs(tmp_path):
    for name in ("ctl/a", "b", "ctl/a/evaluations/x", ".hidden/c"):
        run = RunDirectory.create(tmp_path / name)
        run.update_status(state="failed", config_hash="abc", started=name)
    assert [str(run.path.relative_to(tmp_path)) for run in find_runs(tmp_path)] == ["b", "ctl/a"]
    assert newest_unfinished(tmp_path, "abc").path == tmp_path / "ctl" / "a"
    assert newest_unfinished(tmp_path, "other") is None
    assert [run.path for run in find_runs(tmp_path / "b")] == [tmp_path / "b"]


def test_no_torch():
    code = "import sys, rag_experiments.runs.identity; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
