"""Which config keys and metrics are worth a column, and which runs are seeds of one config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_experiments.comparison.analysis.table_columns import (
    config_columns,
    default_metric,
    default_metrics,
    group_key,
    metric_label,
)
from rag_experiments.comparison.records.run_records import RunRecord


def made(config: dict[str, Any] | None = None, metrics: dict[str, float] | None = None, name: str = "r") -> RunRecord:
    nested: dict[str, Any] = {}
    for key, value in (config or {}).items():
        node = nested
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return RunRecord(Path(name), name, "completed", {}, nested, metrics or {}, {}, {})


def columns(*configs: dict[str, Any]):
    return config_columns([made(config) for config in configs])


def test_what_is_no_setting_is_no_column() -> None:
    for key in ("name", "paths.x", "tracking.x", "plan", "resume", "sweep.x", "hydra.x", "seed", "algorithm._target_"):
        assert columns({key: 1}, {key: 2}).shown == (), key
    assert columns({"named": 1}, {"named": 2}).shown == ("named",)


def test_a_key_that_a_run_lacks_differs_and_equal_lists_do_not() -> None:
    assert columns({"trainer.a": 1}, {}).shown == ("trainer.a",)
    assert columns({"data.x": [1, 2]}, {"data.x": [1, 2]}).shown == ()
    assert columns({"data.x": [1, 2]}, {"data.x": [2, 1]}).shown == ("data.x",)
    assert columns({"trainer.a": 1}, {"trainer.a": "1"}).shown == ("trainer.a",)
    assert columns({"trainer.a": True}, {"trainer.a": False}).shown == ("trainer.a",)
    assert columns({"trainer.a": None}, {"trainer.a": None}).shown == ()


def test_what_says_most_comes_first() -> None:
    keys = (
        "trainer.a",
        "data.titles",
        "retriever.k",
        "model.pooling",
        "algorithm.temperature",
        "retriever.type",
        "data.format",
    )
    one, other = (dict.fromkeys(keys, side) for side in (1, 2))
    one["model.path"], other["model.path"] = "a", "b"
    third = dict.fromkeys(keys, 3) | {"model.path": "a"}  # so that no key follows its selector
    mixed = dict(other) | {"retriever.type": 1, "data.format": 1}
    found = columns(one, other, third, mixed)
    assert found.shown[:3] == ("model.path", "retriever.type", "data.format")  # selectors, by their group
    assert found.shown[3:] == ("algorithm.temperature", "model.pooling", "retriever.k", "data.titles", "trainer.a")


@pytest.mark.parametrize(
    ("key", "selector"),
    [
        ("algorithm.teacher.pooling", "algorithm.teacher.path"),
        ("retriever.encoder.pooling", "retriever.encoder.path"),
        ("algorithm.temperature", "algorithm.name"),
        ("model.fid.layers", "algorithm.name"),
        ("model.pooling", "model.path"),
        ("retriever.index", "retriever.type"),
        ("data.titles", "data.format"),
        *(
            (f"trainer.{name}", "algorithm.name")
            for name in (
                "eval_steps", "save_steps", "logging_steps", "dataloader_drop_last", "load_best_model_at_end",
                "greater_is_better", "metric_for_best_model", "disable_tqdm",
            )
        ),
    ],
)  # fmt: skip
def test_a_key_that_follows_what_it_belongs_to_is_hidden_and_one_that_does_not_is_shown(
    key: str, selector: str
) -> None:
    follows = columns({key: 1, selector: "a"}, {key: 2, selector: "b"}, {key: 2, selector: "c"})
    assert follows.hidden == {key: selector}
    assert follows.shown == (selector,)
    own = columns({key: 1, selector: "a"}, {key: 2, selector: "a"}, {key: 2, selector: "b"})
    assert own.hidden == {}
    assert set(own.shown) == {key, selector}
    alone = columns({key: 1, selector: "a"}, {key: 2, selector: "a"})
    assert (alone.shown, alone.hidden) == ((key,), {})


def test_how_to_train_follows_nothing() -> None:
    found = columns(
        {"trainer.learning_rate": 1, "algorithm.name": "a"}, {"trainer.learning_rate": 2, "algorithm.name": "b"}
    )
    assert found.shown == ("algorithm.name", "trainer.learning_rate")


def test_runs_of_one_group_differ_in_seed_name_and_place_alone() -> None:
    base = {"trainer.a": 1.0, "model.path": "m", "data.x": [1]}
    for key in ("seed", "name", "paths.outputs", "tracking.project", "plan", "resume", "sweep.job", "hydra.x"):
        assert group_key(made(base | {key: 1})) == group_key(made(base | {key: 2})), key
    for change in ({"trainer.a": 2.0}, {"model.path": "n"}, {"data.x": [2]}, {"trainer.b": None}, {"trainer.a": "1.0"}):
        assert group_key(made(base | change)) != group_key(made(base)), change
    swapped = dict(reversed(base.items()))
    assert group_key(made(swapped)) == group_key(made(base))
    assert group_key(made({}, name="a")) != group_key(made({}, name="b")), "runs that cannot be read are no seeds"


@pytest.mark.parametrize(
    ("runs", "metric"),
    [
        ([{"test/f1": 1, "test/recall@4": 1}], "test/f1"),
        ([{"test/recall@4": 1, "test/exact_match": 1}], "test/recall@4"),
        ([{"test/mrr@10": 1}], "test/mrr@10"),
        ([{"dev/f1": 1, "test/mrr@10": 1}], "test/mrr@10"),  # test where there is one
        ([{"dev/f1": 1}, {"dev/f1": 1, "test/f1": 1}], "dev/f1"),  # but what most runs have
        ([{"test/f1": 1}, {"test/recall@1": 1}, {"test/recall@1": 1}], "test/recall@1"),
        ([{"seconds/train": 1, "zero_shot/test/x": 1}], "zero_shot/test/x"),
        ([{"seconds/train": 1, "loss": 1}], "loss"),
        ([{}], None),
        ([], None),
    ],
)
def test_the_primary_metric_is_the_one_that_most_runs_have(runs: list[dict[str, float]], metric: str | None) -> None:
    assert default_metric([made(metrics=figures) for figures in runs]) == metric


@pytest.mark.parametrize(
    ("have", "primary", "found"),
    [
        (
            ["test/f1", "test/exact_match", "test/recall@1", "test/recall@4", "test/mrr@10", "seconds/train"],
            "test/f1",
            ["test/f1", "test/exact_match", "test/recall@1", "test/recall@4", "seconds/train"],
        ),
        (
            ["dev/recall@1", "dev/mrr@10", "dev/ndcg@10", "test/recall@1"],
            "dev/mrr@10",
            ["dev/mrr@10", "dev/recall@1", "dev/ndcg@10"],
        ),
        (["test/f1", "seconds/train"], "seconds/train", ["seconds/train"]),
    ],
)
def test_the_columns_are_the_primary_metric_its_stages_others_and_the_seconds(have, primary, found) -> None:
    assert default_metrics([made(metrics=dict.fromkeys(have, 1.0))], primary) == found


def test_a_metrics_heading_leaves_out_the_stage_of_the_whole_table() -> None:
    assert metric_label("test/f1", "test") == "f1"
    assert metric_label("dev/f1", "test") == "dev f1"
    assert metric_label("zero_shot/test/f1", "test") == "zero_shot/test f1"
    assert metric_label("seconds/train", "test") == "seconds/train"
