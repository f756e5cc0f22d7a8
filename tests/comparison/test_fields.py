"""Names that people type, and values as they stand in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_experiments.comparison.records.metric_fields import (
    Fields,
    bare,
    group_value,
    higher_is_better,
    short_labels,
    short_value,
    split_metric,
    value_of,
)
from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.errors import RequestError

CONFIG = {
    "seed": 3,
    "algorithm": {"name": "ctl", "temperature": 0.05},
    "model": {"path": "org/m", "depth": 1},
    "retriever": {"type": "faiss", "depth": 2},
    "data": {"format": "jsonl"},
}
METRICS = {
    "test/recall@1": 0.5,
    "dev/f1": 0.25,
    "zero_shot/dev/f1": 0.1,
    "seconds/train": 9.0,
    "test/recall@1_ci_low": 0.4,
}


def made(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {"config": CONFIG, "metrics": METRICS, "choices": {"model": "minilm"}} | changes
    return RunRecord(Path("/out/r"), "r", "completed", {}, values["config"], values["metrics"], {}, values["choices"])


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("name", "name"), ("path", "path"), ("state", "state"), ("seed", "seed"),
        ("algorithm", "algorithm"), ("model", "model"), ("temperature", "algorithm.temperature"),
        ("model.depth", "model.depth"), ("recall@1", "test/recall@1"), ("f1", "dev/f1"),
        ("zero_shot/dev/f1", "zero_shot/dev/f1"), ("seconds/train", "seconds/train"), ("type", "retriever.type"),
    ],
)  # fmt: skip
def test_a_short_name_is_the_one_thing_that_it_ends(name: str, full: str) -> None:
    assert Fields([made()]).resolve(name) == full


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("depth", "short for several keys: model.depth, retriever.depth"),
        ("temperatur", "temperature"),
        ("recal@1", "recall@1"),
        ("experiment", "no run has experiment"),
        ("emperature", "no run has emperature"),
    ],
)
def test_a_name_of_nothing_or_of_several_is_refused(name: str, says: str) -> None:
    with pytest.raises(RequestError) as refused:
        Fields([made()]).resolve(name)
    assert says in str(refused.value)


def test_a_metric_by_its_full_or_short_name() -> None:
    fields = Fields([made()])
    assert fields.metric("recall@1") == "test/recall@1"
    assert fields.metric("dev/f1") == fields.metric("f1") == "dev/f1"
    with pytest.raises(RequestError, match="did you mean 'recall@1'"):
        fields.metric("recal@1")
    with pytest.raises(RequestError, match="no run has it"):
        fields.metric("temperature")
    with pytest.raises(RequestError, match="none of these runs has finished"):
        Fields([made(metrics={})]).metric("recall@1")


def test_the_stage_of_a_short_name_is_test_dev_then_those_before_training() -> None:
    stages = ["test", "dev", "zero_shot/test", "zero_shot/dev"]
    for count in range(len(stages)):
        fields = Fields([made(metrics={f"{stage}/f1": 1.0 for stage in stages[count:]})])
        assert fields.metric("f1") == fields.resolve("f1") == f"{stages[count]}/f1"


def test_what_a_run_has_under_a_name() -> None:
    run = made()
    assert [value_of(run, name) for name in ("name", "path", "state", "seed")] == ["r", "/out/r", "completed", 3]
    assert value_of(run, "retriever.type") == "faiss"
    assert value_of(run, "algorithm") == "ctl"
    assert value_of(run, "model") == "minilm"
    assert value_of(run, "test/recall@1") == 0.5
    assert value_of(run, "gone") is None


def test_a_group_is_called_by_its_choice_or_by_what_identifies_it() -> None:
    run = made(choices={})
    assert group_value(run, "model") == "org/m"
    assert group_value(run, "retriever") == "faiss"
    assert group_value(run, "data") == "jsonl"
    assert group_value(run, "trainer") is None
    assert group_value(made(choices={"algorithm": "x"}), "algorithm") == "ctl", "the trained one, not the preset's name"
    assert group_value(made(config={}, choices={}), "algorithm") == "?"


@pytest.mark.parametrize(
    ("metric", "parts"),
    [
        ("zero_shot/test/recall@4", ("zero_shot/test", "recall@4")),
        ("baseline/bm25/test/recall@4", ("baseline/bm25/test", "recall@4")),
        ("zero_shot/dev/f1", ("zero_shot/dev", "f1")),
        ("test/seconds/x", ("test", "seconds/x")), ("dev/f1", ("dev", "f1")), ("train/loss", ("", "train/loss")),
        ("testing/x", ("", "testing/x")),
    ],
)  # fmt: skip
def test_a_metric_is_a_stage_and_a_name(metric: str, parts: tuple[str, str]) -> None:
    assert split_metric(metric) == parts
    assert bare(metric) == parts[1]


@pytest.mark.parametrize(
    ("metric", "high"),
    [
        ("test/f1", True), ("tokens_per_second", True), ("test/recall@1", True), ("seconds/train", False),
        ("dev/loss", False), ("peak_memory_mb", False), ("test/truncation/prompts", False),
        ("passages_dropped", False), ("latency", False), ("perplexity", False),
    ],
)  # fmt: skip
def test_costs_and_losses_are_better_low(metric: str, high: bool) -> None:
    assert higher_is_better(metric) is high


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (True, "true"), (False, "false"), (0.00012345, "0.0001234"), (3, "3"), ([1, None], "[1, –]"),
        ((1.0,), "[1]"), ({"a": {"b": 0.5}}, "{a: {b: 0.5}}"), ("plain/text", "plain/text"), ("/data/x/", "x"),
        ("./x/y", "y"), ("~/z", "z"), ("run://out/best/model", "best"), ("package://minilm/model/", "minilm"),
        ("/model", ""),
    ],
)  # fmt: skip
def test_a_value_as_it_stands_in_a_table(value: Any, text: str) -> None:
    assert short_value(value) == text


def test_a_key_is_called_by_its_shortest_ending_that_is_its_own() -> None:
    assert short_labels(["trainer.learning_rate", "model.path", "retriever.type", "seed"]) == {
        "trainer.learning_rate": "learning_rate", "model.path": "model", "retriever.type": "retriever", "seed": "seed",
    }  # fmt: skip
    assert short_labels(["model.depth", "retriever.depth"]) == {
        "model.depth": "model.depth", "retriever.depth": "retriever.depth",
    }  # fmt: skip
    assert short_labels(["a.model.path", "model.path"])["a.model.path"] == "a.model"
    assert short_labels(["name"]) == {"name": "name"}
    assert short_labels([]) == {}
