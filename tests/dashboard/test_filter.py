"""The filter box."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.dashboard.shared.filter import parse_filter
from rag_experiments.dashboard.shared.watch import Run, Watch


@pytest.fixture(scope="module")
def runs(sweep: Path):
    return list(Watch([sweep / "runs"], sweep / "cache").look().values())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 25),
        ("rpg", 12),
        ("RPG batch=16", 25),  # an equals sign makes it a condition, and this is none: everything stays
        ("sweep minilm", 24),
        ("algorithm=ctl and learning_rate<1e-4", 9),
        ("state=running", 1),
        ("test/recall@1>0 and seed=1", 11),
        ("per_device_train_batch_size in [32]", 12),
        ("nothing such", 0),
    ],
)
def test_words_and_conditions(runs, text: str, count: int) -> None:
    keep, _ = parse_filter(text, runs)
    assert sum(map(keep, runs)) == count


@pytest.mark.parametrize("text", ["learning_rat<1", "seed=", "((seed=1", "__import__('os').system('x')=1"])
def test_what_cannot_be_read_is_said_and_filters_nothing(runs, text: str) -> None:
    keep, problem = parse_filter(text, runs)
    assert problem
    assert not problem.startswith("--where")
    assert all(map(keep, runs))


def made(name: str, algorithm: str = "ctl", status: dict | None = None, **config: object) -> Run:
    values = {"algorithm": {"name": algorithm}, **config}
    return Run(Path(name), name, "completed", status or {}, values, {}, {}, {}, key=name)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("one", ["One"]),  # its path, whatever the case
        ("given", ["two"]),  # the name it was given
        ("GIVEN ctl", ["two"]),  # every word must be found
        ("given rpg", []),
        ("secret", []),  # a project's or a folder's name is no setting of a run
        ("7", []),  # numbers are asked for by conditions
        ("inside", ["three"]),  # a word with `in` in it is no condition
        ("nothing", ["three"]),  # nor one with `not`
        ("model", ["three"]),
    ],
)
def test_a_word_is_looked_for_in_names_and_settings(text: str, names: list[str]) -> None:
    found = [
        made("One", seed=7, tracking={"project": "secret"}, paths={"outputs": "/secret"}),
        made("two", status={"name": "Given"}),
        made("three", algorithm="rpg", model={"path": "INSIDE/model/nothing"}),
    ]
    keep, problem = parse_filter(text, found)
    assert problem is None
    assert [run.name for run in found if keep(run)] == names


@pytest.mark.parametrize("text", ["seed in [7]", "not seed=8", "8>seed", "seed<8", "seed=7", "seed!=8"])
def test_a_condition_is_known_by_its_sign_or_word(text: str) -> None:
    found = [made("a", seed=7), made("b", seed=8)]
    keep, problem = parse_filter(text, found)
    assert problem is None
    assert [run.name for run in found if keep(run)] == ["a"]


def test_without_runs_or_text_everything_stays() -> None:
    assert parse_filter("seed=", [])[1] is None
    keep, problem = parse_filter("", [made("a")])
    assert problem is None
    assert keep(made("b"))
