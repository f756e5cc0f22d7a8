"""The command that makes a run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.comparison.analysis.seed_repeats import command, overrides
from rag_experiments.comparison.records.run_records import RunRecord, load_runs
from tests.comparison.conftest import write_run


def run_with(path: Path, recorded: str | None, **status: object) -> RunRecord:
    write_run(path, {}, status=status)
    if recorded is not None:
        (path / ".hydra").mkdir()
        (path / ".hydra" / "overrides.yaml").write_text(recorded, encoding="utf-8")
    return load_runs([path])[0]


def test_what_was_typed_without_where_it_was_written_and_what_it_went_on_from(tmp_path: Path) -> None:
    recorded = [
        "algorithm=ctl", "data.path='/a b/c'", "hydra.run.dir=/x", "hydra.sweep.dir=/y", "resume=/z", "sweep.name=s",
        "sweep.job=j", "sweep.metric=dev/f1", "seed=3",
    ]  # fmt: skip
    run = run_with(tmp_path / "r", "".join(f'- "{item}"\n' for item in recorded), working_directory="/home/a b")
    assert overrides(run) == recorded
    assert command(run) == (
        "cd '/home/a b' && python -m rag_experiments.train algorithm=ctl 'data.path='\"'\"'/a b/c'\"'\"'' "
        "sweep.metric=dev/f1 seed=3"
    )


@pytest.mark.parametrize("recorded", [None, "{broken: [", "just: a mapping", "[]", "- resume=/x"])
def test_the_command_line_stands_in_where_nothing_was_recorded(tmp_path: Path, recorded: str | None) -> None:
    typed = run_with(tmp_path / "r", recorded, command="python -m rag_experiments.train seed=1")
    assert command(typed) == "python -m rag_experiments.train seed=1"
    assert command(run_with(tmp_path / "s", recorded)) is None
    assert overrides(typed) == (["resume=/x"] if recorded == "- resume=/x" else [])


def test_what_was_recorded_is_preferred_and_may_be_numbers(tmp_path: Path) -> None:
    run = run_with(tmp_path / "r", "- seed=1\n- 5\n- ünï=é\n", command="other")
    assert command(run) == "python -m rag_experiments.train seed=1 5 'ünï=é'"


def test_a_record_in_another_encoding_is_none(tmp_path: Path) -> None:
    run = run_with(tmp_path / "r", "- a=1\n", command="typed")
    (run.path / ".hydra" / "overrides.yaml").write_bytes("- a=ü\n".encode("latin-1"))
    assert command(run) == "typed"


def test_a_folder_of_own_options_is_part_of_the_command(tmp_path):
    """Without it the options of the run's own packages are not found."""
    write_run(tmp_path / "run", {})
    hydra = tmp_path / "run" / ".hydra"
    hydra.mkdir(exist_ok=True)
    (hydra / "overrides.yaml").write_text("[algorithm=mine, seed=1]")
    sources = "{path: hydra.conf, provider: hydra}, {path: /my conf, provider: command-line}"
    (hydra / "hydra.yaml").write_text(f"hydra: {{runtime: {{config_sources: [{sources}]}}}}")
    (run,) = load_runs([tmp_path])
    line = command(run)
    assert line is not None
    assert "rag_experiments.train --config-dir '/my conf' algorithm=mine seed=1" in line
    (hydra / "hydra.yaml").write_text("hydra: [")
    assert "--config-dir" not in str(command(run))
