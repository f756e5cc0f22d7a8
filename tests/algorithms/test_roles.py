"""Several roles in one run: their modules under one wrapper, a rate each, and kinds of models from outside."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from rag_experiments.algorithms.base import AlgorithmTrainer, RoleModules, RunComponents
from rag_experiments.config import kinds, roles
from rag_experiments.config.schema import EncoderConfig, ReaderConfig, RetrieverConfig
from rag_experiments.core.errors import RequestError


class Scaled(nn.Module):
    """One matrix, a norm, and a weight that does not learn."""

    def __init__(self, factor: float):
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 2), nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.factor * values


class Component:
    def __init__(self, factor: float):
        self.module = Scaled(factor)


def components(*names: str) -> RunComponents:
    models = {name: Component(float(place)) for place, name in enumerate(names, 1)}
    nothing: Any = None
    return RunComponents(
        config=nothing, data=nothing, models=models, retriever=nothing, evaluator=nothing, cache=nothing
    )


# -- modules -------------------------------------------------------------------------------------------


def test_modules_of_several_roles_are_one_and_each_is_called_by_its_role():
    parts = components("encoder", "reader")
    module = parts.module()
    assert isinstance(module, RoleModules)
    values = torch.tensor([1.0, 2.0])
    assert module("encoder", values=values).tolist() == [1, 2]
    assert module("reader", values=values).tolist() == [2, 4]
    assert module["reader"] is parts.models["reader"].module
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"encoder", "reader"}
    with pytest.raises(KeyError):
        module("teacher", values=values)


def test_the_module_of_one_role_is_itself():
    parts = components("encoder")
    assert parts.module() is parts.model.module


# -- an optimiser --------------------------------------------------------------------------------------


def optimizer_of(rates: dict[str, float] | None, *names: str, tmp_path: Any) -> tuple[torch.optim.Optimizer, nn.Module]:
    trainer: Any = AlgorithmTrainer.__new__(AlgorithmTrainer)
    trainer.components = components(*names)
    trainer.model, trainer.optimizer = trainer.components.module(), None
    trainer.config = SimpleNamespace() if rates is None else SimpleNamespace(learning_rates=rates)
    trainer.args = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, use_cpu=True, report_to=[]
    )
    return trainer.create_optimizer(), trainer.model


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"reader": 1e-5}, {"encoder": 1e-3, "reader": 1e-5}),
        ({"reader": 1e-5, "encoder": 0.5}, {"encoder": 0.5, "reader": 1e-5}),
        ({}, {"encoder": 1e-3, "reader": 1e-3}),
        (None, {"encoder": 1e-3, "reader": 1e-3}),
    ],
)
def test_each_role_has_its_rate_and_matrices_alone_decay(rates, expected, tmp_path):
    optimizer, module = optimizer_of(rates, "encoder", "reader", tmp_path=tmp_path)
    seen = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    learning = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert len(seen) == len(learning) == 8
    for name, parameter in learning.items():
        role = name.split(".")[0]
        assert seen[id(parameter)] == (expected[role], 0.1 if name == f"{role}.linear.weight" else 0.0), name


def test_a_role_whose_name_begins_as_anothers_keeps_its_own(tmp_path):
    optimizer, module = optimizer_of({"reader": 1e-5}, "reader", "reader2", tmp_path=tmp_path)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 8
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for n, p in module.named_parameters() if n.startswith("reader2.") and p.requires_grad} == {
        1e-3
    }


# -- the role of `model` -------------------------------------------------------------------------------


@dataclass(kw_only=True)
class OneReader:
    reader: ReaderConfig


@pytest.mark.parametrize("trains", [frozenset(), frozenset({"reader"}), frozenset({"encoder", "judge"})])
def test_an_algorithm_without_one_role_for_model_is_written_wrong(trains):
    class Wrong:
        Config = OneReader

    Wrong.trains = trains  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Wrong\.trains=.*exactly one of these roles must be no field of OneReader"):
        roles.primary_role(Wrong)


@pytest.mark.parametrize("trains", ["encoder", frozenset({"encoder"}), frozenset({"encoder", "reader"})])
def test_the_role_of_model_is_the_one_left_over(trains):
    assert roles.primary_role(SimpleNamespace(Config=OneReader, trains=trains, __name__="Right")) == "encoder"


# -- kinds from outside --------------------------------------------------------------------------------


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of kinds; the registries are as before afterwards."""
    monkeypatch.setattr(kinds, "MODEL_KINDS", dict(kinds.MODEL_KINDS))
    monkeypatch.setattr(kinds, "RETRIEVER_KINDS", dict(kinds.RETRIEVER_KINDS))
    made: Any = ModuleType("kinds_from_outside")
    made.MINE = kinds.ModelKind(name="mine", config=EncoderConfig, role="encoder", load="a:b", evaluator="a:c")
    made.SAME = replace(made.MINE)
    made.OTHER = replace(made.MINE, load="a:other")
    made.DECODER = replace(made.MINE, name="decoder")
    made.FOUND = kinds.RetrieverKind(name="found", build="a:b")
    made.FOUND_ELSEWHERE = replace(made.FOUND, build="a:other")
    made.BM25 = replace(made.FOUND, name="bm25")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def model(name: str) -> kinds.ModelKind:
    return kinds.model_kind({"_target_": f"kinds_from_outside.{name}", "path": "x"}, "model")


def retriever(name: str) -> kinds.RetrieverKind:
    return kinds.retriever_kind({"_target_": f"kinds_from_outside.{name}"})


def test_a_kind_from_outside_may_be_named_often(outside):
    assert model("MINE") is model("MINE") is outside.MINE
    assert model("SAME") is outside.MINE
    assert retriever("FOUND") is retriever("FOUND") is outside.FOUND


@pytest.mark.parametrize("clash", ["OTHER", "DECODER"])
def test_another_model_of_the_same_name_is_refused(outside, clash):
    model("MINE")
    known = dict(kinds.MODEL_KINDS)
    name = getattr(outside, clash).name
    with pytest.raises(RequestError, match=f"model._target_=kinds_from_outside.{clash}: .*another kind .* '{name}'"):
        model(clash)
    assert known == kinds.MODEL_KINDS, "the first one stays"


@pytest.mark.parametrize("clash", ["FOUND_ELSEWHERE", "BM25"])
def test_another_retriever_of_the_same_name_is_refused(outside, clash):
    retriever("FOUND")
    known = dict(kinds.RETRIEVER_KINDS)
    with pytest.raises(RequestError, match=f"retriever._target_=kinds_from_outside.{clash}: .*another kind"):
        retriever(clash)
    assert known == kinds.RETRIEVER_KINDS


def test_a_kind_that_is_said_twice_must_be_one(outside):
    node = {"_target_": "kinds_from_outside.MINE", "kind": "decoder"}
    with pytest.raises(RequestError, match=r"model.kind='decoder': the kind that model._target_ names is 'mine'"):
        kinds.model_kind(node, "model")
    with pytest.raises(RequestError, match="is no RetrieverKind"):
        retriever("MINE")


def test_an_encoder_that_the_retriever_does_not_use_is_no_model_of_the_run():
    """BM25 beside the default encoder: it is not opened, and a plan does not count it."""
    config = SimpleNamespace(
        model=ReaderConfig(path="x"),
        algorithm=SimpleNamespace(),
        retriever=RetrieverConfig(type="bm25", encoder=EncoderConfig(path="y")),
    )
    trainer_class = SimpleNamespace(trains=frozenset({"reader"}), Config=SimpleNamespace)
    assert [model.role for model in roles.models_of(config, trainer_class)] == ["reader"]
    config.retriever.type = "faiss"
    assert [model.role for model in roles.models_of(config, trainer_class)] == ["reader", "retriever"]
