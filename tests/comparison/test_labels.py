"""What configurations are called: the settings that tell them apart, and no others."""

from __future__ import annotations

from pathlib import Path

from rag_experiments.comparison.analysis.labels import labels_of, option_names, setting, telling_keys
from rag_experiments.comparison.records.run_records import RunRecord, load_runs
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


def test_parts_are_split_by_the_first_setting_that_differs_within_them(tmp_path: Path) -> None:
    """Of two settings that say the same, and of one that differs in another part alone, nothing is said."""
    rate, epochs = "trainer.learning_rate", "trainer.num_train_epochs"
    runs = load(
        tmp_path,
        {"algorithm.name": "a", rate: 1.0, epochs: 1},
        {"algorithm.name": "a", rate: 2.0, epochs: 1},
        {"algorithm.name": "b", rate: 1.0, epochs: 1},
        {"algorithm.name": "b", rate: 1.0, epochs: 2},
    )
    assert labels_of([[run] for run in runs]) == [
        "a learning_rate=1", "a learning_rate=2", "b num_train_epochs=1", "b num_train_epochs=2",
    ]  # fmt: skip
    assert telling_keys(runs) == ["algorithm.name", rate, epochs]
    assert labels_of([[run] for run in runs[:1]]) == [""]
    assert telling_keys(runs[:1]) == []
    assert labels_of([]) == []


def test_what_a_run_lacks_is_not_said_and_a_label_of_60_letters_is_short_enough(tmp_path: Path) -> None:
    runs = load(tmp_path / "a", {"trainer.depth": 3}, {})
    assert labels_of([[run] for run in runs]) == ["depth=3", ""]
    fits, long = "x" * (60 - len("optim=")), "x" * (61 - len("optim="))
    runs = load(tmp_path / "b", {"trainer.optim": fits}, {"trainer.optim": long}, {"trainer.optim": "y"})
    assert labels_of([[run] for run in runs]) == [f"optim={fits}", "", "optim=y"]


def test_seeds_tell_what_nothing_else_does(tmp_path: Path) -> None:
    changes = [{"trainer.learning_rate": rate, "seed": seed} for rate, seed in ((1.0, 0), (1.0, 1), (2.0, 0))]
    runs = load(tmp_path, *changes)
    assert labels_of([[run] for run in runs]) == ["learning_rate=1 seed=0", "learning_rate=1 seed=1", "learning_rate=2"]
    assert labels_of([runs[:2], runs[2:]]) == ["learning_rate=1", "learning_rate=2"]
    assert telling_keys(runs) == ["trainer.learning_rate"], "seeds of one config are one config"


def test_a_selector_stands_by_itself_and_options_are_made_of_the_runs_given(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"model.path": MINILM}, choices={"model": "mini"})
    write_run(tmp_path / "b", {}, {"model.path": OTHER}, choices={"model": "null"})
    runs = load_runs([tmp_path])
    assert labels_of([[run] for run in runs]) == ["mini", "other"]
    assert labels_of([[run] for run in runs], {}) == ["minilm", "other"]
    assert option_names(runs)["model.path"] == {MINILM: "mini"}, "null is no option's name"


def test_an_option_of_encoder_and_teacher_has_its_own_group(tmp_path: Path) -> None:
    for key, group in (
        ("retriever.encoder.path", "retriever.encoder"),
        ("algorithm.teacher.path", "algorithm.teacher"),
    ):
        run = write_run(tmp_path / group, {}, {key: OTHER}, choices={f"model@{group}": "mine", "model": "else"})
        assert setting(load_runs([run])[0], key, option_names(load_runs([run]))) == "mine"


def test_two_values_as_often_under_one_option_have_no_name(tmp_path: Path) -> None:
    for number, path in enumerate((MINILM, MINILM, OTHER, OTHER)):
        write_run(tmp_path / str(number), {}, {"model.path": path, "seed": number}, choices={"model": "mine"})
    runs = load_runs([tmp_path])
    assert option_names(runs)["model.path"] == {}
    assert option_names(runs[:3])["model.path"] == {MINILM: "mine"}


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
