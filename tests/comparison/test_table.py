"""Columns, groups, sections and order."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.analysis.table_columns import config_columns
from rag_experiments.comparison.records.run_records import load_runs
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import ranked_row, rows_with, write_run


def test_only_what_differs_and_explains_is_a_column(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"name": "x", "paths.outputs": "here", "model.pooling": "mean"})
    write_run(
        tmp_path / "b",
        {},
        {"model.path": "other/model", "model.pooling": "cls", "trainer.learning_rate": 1e-5, "trainer.eval_steps": 7},
    )
    columns = config_columns(load_runs([tmp_path]))
    assert columns.shown == ("model.path", "trainer.learning_rate", "trainer.eval_steps")
    assert columns.hidden == {"model.pooling": "model.path"}


def test_a_key_that_differs_within_one_option_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"model.pooling": "mean"})
    write_run(tmp_path / "b", {}, {"model.pooling": "cls"})
    write_run(tmp_path / "c", {}, {"model.pooling": "cls", "model.path": "other/model"})
    assert "model.pooling" in config_columns(load_runs([tmp_path])).shown


def test_seeds_are_a_group_with_mean_and_sd_best_first(tmp_path: Path) -> None:
    for seed, share in enumerate((0.4, 0.5, 0.6)):
        write_run(tmp_path / f"low-{seed}", {"test": rows_with(share, seed=seed)}, {"seed": seed})
    write_run(tmp_path / "high", {"test": rows_with(0.9)}, {"trainer.learning_rate": 1e-3})
    write_run(tmp_path / "broken", {}, {"trainer.learning_rate": 1e-2}, state="failed")
    table = RunTable(load_runs([tmp_path]), "recall@1")
    best, grouped, failed = table.groups
    assert best.name == "high"
    assert str(grouped.summary("test/recall@1")) == "0.500 ± 0.100 (3)"
    assert grouped.seeds == [0, 1, 2]
    assert failed.state == "failed"
    assert failed.summary("test/recall@1") is None
    assert any("1 failed" in note for note in table.notes)
    assert any("between 1 and 3 finished seeds" in note for note in table.notes)
    assert len(RunTable(load_runs([tmp_path]), "recall@1", grouped=False).groups) == 5


def test_a_seed_run_twice_counts_once_the_newest(tmp_path: Path) -> None:
    write_run(tmp_path / "old", {"test": rows_with(0.2)}, status={"started": "2026-01-01"})
    write_run(tmp_path / "new", {"test": rows_with(0.6)}, status={"started": "2026-01-02"})
    table = RunTable(load_runs([tmp_path]), "recall@1")
    assert table.groups[0].summary("test/recall@1").mean == 0.6
    assert table.groups[0].repeated == 1
    assert any("repeat the config and seed" in note for note in table.notes)


def test_lower_is_better_for_costs(tmp_path: Path) -> None:
    for name, seconds in (("slow", 9.0), ("fast", 1.0)):
        changes = {"trainer.num_train_epochs": seconds}
        write_run(tmp_path / name, {"test": rows_with(0.5)}, changes, figures={"seconds/train": seconds})
    assert [group.name for group in RunTable(load_runs([tmp_path]), "seconds/train").groups] == ["fast", "slow"]


@pytest.mark.parametrize(
    "other",
    [
        {"status": {"corpus_hash": "other"}},  # another corpus
        {"stages": {"test": rows_with(0.5, questions=50)}},  # a sample of the questions
        {"stages": {"test": [ranked_row(f"q{i}", 1, (f"moved-{i}",)) for i in range(100)]}},  # other golds, same ids
    ],
    ids=["corpus", "sample", "golds"],
)
def test_what_does_not_compare_stands_apart(tmp_path: Path, other: dict) -> None:
    write_run(tmp_path / "a", {"test": rows_with(0.5)})
    stages = other.get("stages", {"test": rows_with(0.5)})
    write_run(tmp_path / "b", stages, {"trainer.learning_rate": 1.0}, status=other.get("status"))
    table = RunTable(load_runs([tmp_path]))
    assert len(table.sections) == 2
    assert any("do not compare" in note for note in table.notes)


def test_other_training_data_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"test": rows_with(0.5)})
    write_run(tmp_path / "b", {"test": rows_with(0.5)}, {"data.path": "/more"}, status={"data_hash": "more"})
    table = RunTable(load_runs([tmp_path]))
    assert len(table.sections) == 1
    assert any("differs elsewhere" in note for note in table.notes)


def test_an_unfinished_run_stands_with_its_data(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"test": rows_with(0.5)})
    write_run(tmp_path / "b", {}, {"seed": 1}, state="failed")
    table = RunTable(load_runs([tmp_path]))
    assert len(table.sections) == 1
    assert table.groups[0].state == "1 completed, 1 failed"


def test_choices_name_models_only_where_they_mean_one_path(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"test": rows_with(0.5)}, choices={"model": "minilm"})
    write_run(tmp_path / "b", {"test": rows_with(0.5)}, {"model.path": "run://out/x"}, choices={"model": "run"})
    write_run(tmp_path / "c", {"test": rows_with(0.5)}, {"model.path": "run://out/y"}, choices={"model": "run"})
    table = RunTable(load_runs([tmp_path]))
    assert {table.shown(group, "model.path") for group in table.groups} == {"minilm", "x", "y"}


def test_unknown_metric_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"test": rows_with(0.5)})
    with pytest.raises(RequestError, match="recall@1"):
        RunTable(load_runs([tmp_path]), "recal@1")


def test_nothing_finished(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, state="failed")
    table = RunTable(load_runs([tmp_path]))
    assert table.metric is None
    assert table.groups[0].state == "failed"
    with pytest.raises(RequestError, match="none of these runs has finished"):
        RunTable(load_runs([tmp_path]), "recall@1")
