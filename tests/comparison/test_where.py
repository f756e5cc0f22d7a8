"""The expression language: what it finds, what it refuses, and that it runs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.comparison.records.run_records import RunRecord, load_runs
from rag_experiments.comparison.records.where import filter_runs
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import rows_with, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    root = tmp_path_factory.mktemp("runs")
    for name, changes, share in [
        ("a", {"trainer.learning_rate": 1e-5, "seed": 0}, 0.2),
        ("b", {"trainer.learning_rate": "1e-4", "seed": 1, "model.path": "org/bge-small"}, 0.4),
        ("c", {"trainer.learning_rate": 1e-3, "algorithm.name": "sft", "data.path": None}, 0.6),
    ]:
        write_run(root / name, {"test": rows_with(share)}, changes, choices={"model": f"m-{name}"})
    write_run(root / "d", {}, {"trainer.bf16": True}, state="failed")
    return load_runs([root], cache=root / "cache")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("algorithm=ctl and trainer.learning_rate<1e-4", "a"),
        ("algorithm == 'ctl' and learning_rate <= 1e-4", "abd"),  # a number that YAML read as text counts as one
        ("1e-4 < learning_rate", "c"),
        ("1e-5 < learning_rate < 1e-3", "bd"),
        ("not state=completed", "d"),
        ("state != completed or seed = 1", "bd"),
        ("test/recall@1 > 0.3", "bc"),
        ("recall@1>0.3 and not (algorithm=sft)", "b"),
        ("seed in [1, 2]", "b"),
        ("seed not in (1, 2)", "acd"),
        ("model.path = org/bge-small", "b"),
        ("model = m-c", "c"),
        ('"bge" in model.path', "b"),
        ("data.path = null", "c"),
        ("data.path != null", "abd"),
        ("trainer.bf16", "d"),
        ("trainer.bf16 = true", "d"),
        ("name = a", "a"),
        ("seed > -1 and seed < 1", "acd"),
        ("seed >= 1", "b"),
        ("seed <= 0", "acd"),
        ("1 > seed", "acd"),
        ("0 >= seed", "acd"),
        ("1 <= seed", "b"),
        ("1 = seed", "b"),
        ("2 != seed", "abcd"),
        ("seed = true", ""),  # a number is no truth
        ("trainer.bf16 = 1", ""),
        ("trainer.bf16 = null", "abc"),
        ("trainer.bf16 != true", "abc"),
        ("trainer.bf16 not in [true]", "abc"),
        ("seed = '1'", "b"),  # text that is a number counts as one
        ("learning_rate < x", ""),
        ("learning_rate in [1e-5, 1e-3]", "ac"),
        ("learning_rate in {1e-5}", "a"),
        ("model.path = bge-small", ""),  # as it stands, or as a table shows it
        ("model.path = 'package://minilm/model'", "acd"),
        ("model.path = minilm", "acd"),
        ('"bge" not in model.path', "acd"),
        ('"x" in data.path', ""),
        ("algorithm = ctl or seed = 1 and state = failed", "abd"),
        ("(algorithm = ctl or seed = 1) and state = failed", "d"),
        ("not not seed = 1", "b"),
        ("not (seed = 1 or state = failed)", "ac"),
        ("data.path", "abd"),
        ("seed", "b"),
        ('"trainer.bf16"', "d"),
        ('"test/recall@1" >= 0.6', "c"),
        ('"model.path" = minilm', "acd"),
        ('"org/bge-small" = model.path', "b"),  # the text is no name, so it is the value
        ("0.3 < test/recall@1 <= 0.6", "bc"),
        ("  seed = 1  ", "b"),
        ("state = 'a=b'", ""),
        ("test/recall@1 = null", "d"),
        ("test/recall@1 < 0.5", "ab"),  # what has no figure satisfies no order
    ],
)
def test_finds(runs: list[RunRecord], expression: str, found: str) -> None:
    assert "".join(run.name for run in filter_runs(runs, expression)) == found


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("algoritm=ctl", "algorithm"),
        ("recal@1 > 0", "recall@1"),
        ("seed =", "--where"),
        ("seed", None),
        ("", "--where"),
        ("(seed=1", "--where"),
        ("seed=1 and", "--where"),
        ("__import__('os').system('true')", "neither a name nor a value"),
        ("seed = (lambda: 1)()", "neither a name nor a value"),
        ("[x for x in seed]", "neither a name nor a value"),
        ("seed is 1", "compare"),
        ("f'{seed}' = 1", "neither a name nor a value"),
        ("seed = 1; seed = 2", "--where"),
        ("seed := 1", "--where"),
        ("not " * 90 + "seed=1", "nested too deeply"),
        ("(" * 5000 + "seed=1" + ")" * 5000, "--where"),
    ],
)
def test_refuses_in_one_sentence(runs: list[RunRecord], expression: str, says: str | None) -> None:
    if says is None:
        filter_runs(runs, expression)
        return
    with pytest.raises(RequestError) as error:
        filter_runs(runs, expression)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_short_name_of_two_keys_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, {"trainer.depth": 1, "retriever.depth": 2})
    with pytest.raises(RequestError, match="short for several keys"):
        filter_runs(load_runs([tmp_path]), "depth = 1")
