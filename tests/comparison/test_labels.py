"""What configurations are called: the settings that tell them apart, and no others."""

from __future__ import annotations

from pathlib import Path

from rag_experiments.comparison.labels import labels_of, option_names, setting, telling_keys
from rag_experiments.comparison.loading import RunRecord, load_runs
from tests.comparison.conftest import rows_with, write_run

MINILM, OTHER = "package://minilm/model", "/models/other/model"


def load(root: Path, *changes: dict, **more) -> list[RunRecord]:
    for number, change in enumerate(changes):
        write_run(root / f"r{number}", {"test": rows_with(0.5)}, change, **more)
    return load_runs([root])


def test_a_label_holds_only_what_tells_its_run_from_others(tmp_path: Path) -> None:
    runs = load(
        tmp_path,
        {"trainer.learning_rate": 1e-5, "trainer.warmup": 1},
        {"trainer.learning_rate": 2e-5, "trainer.warmup": 2},
        {"algorithm.name": "sft", "model.path": OTHER, "trainer.learning_rate": 7.0, "trainer.warmup": 7},
    )
    assert labels_of([[run] for run in runs]) == ["ctl learning_rate=1e-05", "ctl learning_rate=2e-05", "sft"]
    assert telling_keys(runs) == ["algorithm.name", "trainer.learning_rate"]


def test_seeds_and_what_cannot_be_told(tmp_path: Path) -> None:
    runs = load(tmp_path, {"seed": 0}, {"seed": 1})
    assert labels_of([[run] for run in runs]) == ["seed=0", "seed=1"]
    assert labels_of([runs]) == [""]
    assert labels_of([[run] for run in (runs[0], runs[0])]) == ["", ""]
    long = load(tmp_path / "long", {"trainer.optim": "x" * 80}, {"trainer.optim": "y"})
    assert labels_of([[run] for run in long]) == ["", "optim=y"]


def test_an_option_is_called_by_its_name_where_most_mean_that_value(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"model.path": MINILM}, choices={"model": "minilm"})
    write_run(tmp_path / "b", {}, {"model.path": OTHER}, choices={"model": "mine"})
    runs = load_runs([tmp_path])
    assert [setting(run, "model.path", option_names(runs)) for run in runs] == ["minilm", "mine"]
    write_run(tmp_path / "c", {}, {"model.path": "/models/third"}, choices={"model": "mine"})
    runs = load_runs([tmp_path])  # `mine` is two models now
    assert [setting(run, "model.path", option_names(runs)) for run in runs] == ["minilm", "other", "third"]
    write_run(tmp_path / "d", {}, {"model.path": OTHER, "seed": 1}, choices={"model": "mine"})
    runs = load_runs([tmp_path])
    assert [setting(run, "model.path", option_names(runs)) for run in runs] == ["minilm", "mine", "third", "mine"]
