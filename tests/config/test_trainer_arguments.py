"""`trainer.*` is `transformers.TrainingArguments`, checked without importing it."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from typing import Any, Literal

import pytest

from rag_experiments.config import trainer_keys
from rag_experiments.config.trainer_keys import ELSEWHERE, FORMER, check_trainer_arguments, fields
from rag_experiments.core.errors import RequestError


def test_the_fields_are_those_of_the_class():
    from transformers import TrainingArguments

    theirs = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert theirs <= set(fields())
    assert not {name for name in fields() if name.startswith("_")}


def test_no_torch_is_imported():
    code = (
        "from rag_experiments.config.trainer_keys import fields; fields(); import sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="transformers is not installed: pip install"):
        fields.__wrapped__()


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_what_the_run_decides_is_refused_and_where_it_is_said(name):
    assert name in fields(), "no longer a field: it needs no refusal"
    with pytest.raises(RequestError) as caught:
        check_trainer_arguments({name: None})
    assert str(caught.value) == f"trainer.{name} cannot be set: {ELSEWHERE[name]}"


@pytest.mark.parametrize("name", sorted(FORMER))
def test_a_former_name_is_refused_with_its_successor(name):
    if name in fields():
        pytest.skip("this version of transformers still has it")
    with pytest.raises(RequestError) as caught:
        check_trainer_arguments({name: 1})
    assert f"trainer.{name} is no longer an argument of transformers.TrainingArguments: use {FORMER[name]}" == str(
        caught.value
    )


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(RequestError, match=r"trainer\.learning_rat is not an argument .*'learning_rate'"):
        check_trainer_arguments({"max_steps": 3, "learning_rat": 1})


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("learning_rate", "1e-5", 1e-5),
        ("max_steps", "30", 30),
        ("max_steps", -1, -1),
        ("max_steps", 1, 1),
        ("num_train_epochs", 0.5, 0.5),
        ("dataloader_pin_memory", "true", True),
        ("eval_strategy", False, "no"),  # a bare `no` is False in YAML
        ("save_strategy", "best", "best"),
        ("lr_scheduler_type", "cosine", "cosine"),
        ("save_total_limit", None, None),
        ("eval_steps", None, None),
        ("warmup_steps", 0.1, 0.1),
        ("warmup_steps", 0, 0.0),
        ("eval_delay", 0, 0.0),
        ("dataloader_num_workers", 0, 0),
        ("save_total_limit", 1, 1),
        ("per_device_train_batch_size", 1, 1),
        ("optim", "adamw_torch", "adamw_torch"),
        ("bf16", True, True),
        ("lr_scheduler_kwargs", {"a": 1}, {"a": 1}),
    ],
)
def test_right_values_are_converted(name, given, taken):
    found = check_trainer_arguments({name: given})
    assert found == {name: taken}
    assert type(found[name]) is type(taken)


STRICT = sorted(trainer_keys._STRICTLY_POSITIVE)
LENIENT = sorted(trainer_keys._NOT_NEGATIVE)


@pytest.mark.parametrize("name", STRICT)
def test_counts_are_at_least_one(name):
    assert name in fields()
    for wrong in (0, -4):
        with pytest.raises(RequestError, match=rf"trainer\.{name}={wrong}(\.0)? must be greater than 0"):
            check_trainer_arguments({name: wrong})
    check_trainer_arguments({name: 1})


@pytest.mark.parametrize("name", LENIENT)
def test_sizes_are_not_negative(name):
    assert name in fields()
    with pytest.raises(RequestError, match=rf"trainer\.{name}=-1(\.0)? must not be negative"):
        check_trainer_arguments({name: -1})
    check_trainer_arguments({name: 0})


def test_which_counts_and_sizes():
    """Trainer itself accepts a batch of -4 examples."""
    assert {"per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "save_steps"} <= set(
        STRICT
    )
    assert {"weight_decay", "warmup_steps", "max_grad_norm"} <= set(LENIENT)


@pytest.mark.parametrize("steps", [0, -2])
def test_steps_are_given_or_left_to_the_epochs(steps):
    with pytest.raises(RequestError, match=rf"trainer\.max_steps={steps} must be at least 1, or -1"):
        check_trainer_arguments({"max_steps": steps})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", "fast", r"trainer\.learning_rate='fast' has the wrong type: float is wanted"),
        ("max_steps", 1.5, r"trainer\.max_steps=1\.5 has the wrong type: int is wanted"),
        ("bf16", "maybe", r"trainer\.bf16='maybe' has the wrong type: bool is wanted"),
        ("save_total_limit", "x", r"trainer\.save_total_limit='x' has the wrong type: int is wanted"),
        ("eval_strategy", True, "has the wrong type|is not a choice"),
        ("eval_strategy", "epochs", r"trainer\.eval_strategy='epochs' is not a choice \(did you mean 'epoch'"),
        ("lr_scheduler_type", "cosin", r"is not a choice .*'cosine'"),
        ("train_sampling_strategy", "sorted", r"is not a choice"),
    ],
)
def test_wrong_values_are_named(name, value, message):
    with pytest.raises(RequestError, match=message):
        check_trainer_arguments({name: value})


def test_choices_are_those_of_the_enumerations():
    from transformers.trainer_utils import SaveStrategy, SchedulerType
    from transformers.training_args import IntervalStrategy

    choices = trainer_keys._CHOICES
    assert set(choices["save_strategy"]) == {each.value for each in SaveStrategy}
    assert {each.value for each in SchedulerType} <= set(choices["lr_scheduler_type"])
    for name in ("eval_strategy", "logging_strategy"):
        assert set(choices[name]) == {each.value for each in IntervalStrategy}


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("int", int),
        ("float | None", float | None),
        ("str | list[str]", str | list[str]),
        ("dict[str, Any] | None", dict[str, Any] | None),
        ("Literal['a', 'b']", Literal["a", "b"]),
        ("IntervalStrategy | str", str),
        ("SchedulerType", str),
        ("parallel[3]", Any),
    ],
)
def test_annotations_without_their_classes(text, type_):
    assert trainer_keys._annotation(text) == type_


def test_all_are_checked_and_kept_in_their_order():
    given = {"max_steps": 3, "learning_rate": 1e-3, "eval_strategy": "epoch"}
    assert list(check_trainer_arguments(given).items()) == list(given.items())
    assert check_trainer_arguments({}) == {}
