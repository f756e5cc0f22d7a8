"""What a run's files must look like: each rule with what passes and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from rag_experiments.comparison.records import record_checks

PLAIN = (
    "started",
    "ended",
    "data_hash",
    "corpus_hash",
    "config_hash",
    "git_commit",
    "wandb_run_id",
    "command",
)
ROW = {"id": "q", "question": "?", "retrieved_ids": ["a"], "metrics": {"f1": 0.5, "x": None}}


@pytest.mark.parametrize(
    "value",
    [
        {}, *({"state": state} for state in ("running", "completed", "failed", "interrupted")),
        {"data": None, "error": {"type": "x"}, "versions": {}, "sweep": None},
        {"started": "2026", "ended": None, "command": "x", "git_commit": 5}, {"seconds": 1}, {"seconds": 0.5},
        {"more": ["of", "anything"]},
    ],
)  # fmt: skip
def test_a_status_that_is_one(value: dict[str, Any]) -> None:
    assert record_checks.status(value) is value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "it is not a mapping"), ({"state": "done"}, "state is not one of running, completed, failed"),
        ({"state": None}, "state is not one of"), ({"seconds": "5"}, "seconds is not a number"),
        *(({key: 1}, f"{key} is not a mapping") for key in ("data", "error", "versions", "sweep")),
        *(
            ({key: 0.5}, f"{key} is not text")
            for key in PLAIN
        ),
    ],
)  # fmt: skip
def test_a_status_that_is_none(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        record_checks.status(value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "it is not a mapping"),
        *(
            ({key: 1}, f"{key} is not a mapping")
            for key in ("algorithm", "model", "data", "retriever", "trainer", "evaluation", "tracking", "paths")
        ),
        ({"seed": 0.5}, "seed is not a number"),
        ({"retriever": {"k": "4"}}, "retriever.k is not a number"),
    ],
)
def test_a_config_that_is_none(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        record_checks.config(value)


@pytest.mark.parametrize(
    "value", [{}, {"seed": "7"}, {"seed": None, "retriever": None}, {"retriever": {"k": 4}}, {"x": 1}]
)
def test_a_config_that_is_one(value: dict[str, Any]) -> None:
    assert record_checks.config(value) is value


def test_figures_are_the_finite_numbers() -> None:
    given = {"a": 1, "b": 0.5, "c": float("nan"), "d": float("inf"), "e": True, "f": "1", "g": None}
    assert record_checks.figures(given) == {"a": 1, "b": 0.5}
    with pytest.raises(ValueError, match="not a mapping"):
        record_checks.figures([])


@pytest.mark.parametrize(
    "change",
    [{}, {"id": 5}, {"metrics": {}}, {"answer": None}, {"answer": "x"}, {"gold_ids": None}, {"gold_ids": []},
     {"references": ["x"]}, {"given_ids": ["x"]}, {"given_ids": None}, {"hashed_as": {}}, {"hashed_as": {"a": "h"}}],
)  # fmt: skip
def test_a_row_that_is_one(change: dict[str, Any]) -> None:
    assert record_checks.prediction(ROW | change) == ROW | change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": None}, "no id or no question"), ({"question": None}, "no id or no question"),
        ({"metrics": None}, "question q has no figures"), ({"metrics": {"f1": "1"}}, "question q has no figures"),
        ({"retrieved_ids": None}, "no list of retrieved_ids"), ({"retrieved_ids": [1]}, "no list of retrieved_ids"),
        ({"gold_ids": "a"}, "no list of gold_ids"), ({"given_ids": [None]}, "no list of given_ids"),
        ({"hashed_as": ["h"]}, "question q has no ids under hashed_as"),
        ({"hashed_as": {"a": 5}}, "question q has no ids under hashed_as"),
        ({"references": {"x": 1}}, "no list of references"), ({"answer": 5}, "an answer that is not text"),
    ],
)  # fmt: skip
def test_a_row_that_is_none(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        record_checks.prediction(ROW | change)
