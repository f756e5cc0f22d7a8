"""Every field of the installed `TrainingArguments`: it works, or it is refused with its reason. None is merely taken.

A field that a new transformers brings is in neither list, and the first test says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag_experiments import train
from rag_experiments.config.trainer_keys import ELSEWHERE, REFUSED, RENAMED, check_trainer_arguments, fields
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.directory import RunDirectory
from tests.training.test_run import request

STEPS = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "max_steps": 2}
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
WORKERS = {"dataloader_num_workers": 1}
# Field → a value that matters, and what it needs beside it.
WORKS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "num_train_epochs": (1.0, {"max_steps": -1}),
    "max_steps": 1,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": ({"num_cycles": 1}, {"lr_scheduler_type": "cosine_with_restarts"}),
    "warmup_steps": 0.5,
    "optim": "adafactor",
    "optim_args": ("momentum=0.5", {"optim": "sgd"}),
    "weight_decay": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-6,
    "gradient_accumulation_steps": 2,
    "average_tokens_across_devices": False,
    "max_grad_norm": 0.1,
    "bf16": True,
    "activation_checkpointing": True,
    "activation_checkpointing_kwargs": ({"use_reentrant": False}, {"activation_checkpointing": True}),
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": ({"use_reentrant": False}, {"gradient_checkpointing": True}),
    "neftune_noise_alpha": 5.0,
    "torch_empty_cache_steps": 1,
    "auto_find_batch_size": True,
    "logging_strategy": "epoch",
    "logging_steps": 1,
    "logging_first_step": True,
    "log_on_each_node": False,
    "logging_nan_inf_filter": False,
    "log_level": "error",
    "log_level_replica": "error",
    "disable_tqdm": True,
    "eval_strategy": ("epoch", {"max_steps": 1}),
    "eval_steps": (1, {"eval_strategy": "steps"}),
    "eval_delay": (1, {"eval_strategy": "steps", "eval_steps": 1}),
    "per_device_eval_batch_size": 2,
    "save_only_model": (True, {"save_strategy": "steps", "save_steps": 1}),
    "save_strategy": ("best", {"eval_strategy": "steps", "eval_steps": 1}),
    "save_steps": (1, {"save_strategy": "steps"}),
    "save_on_each_node": True,
    "save_total_limit": (1, {"save_strategy": "steps", "save_steps": 1}),
    "enable_jit_checkpoint": True,
    "load_best_model_at_end": (True, EVERY_STEP),
    "metric_for_best_model": ("dev/mrr@10", {**EVERY_STEP, "load_best_model_at_end": True}),
    "greater_is_better": (True, {**EVERY_STEP, "load_best_model_at_end": True}),
    "ignore_data_skip": True,
    "restore_callback_states_from_checkpoint": True,
    "full_determinism": True,
    "data_seed": 7,
    "use_cpu": True,
    "accelerator_config": {"even_batches": False},
    "dataloader_drop_last": True,
    "dataloader_num_workers": 1,
    "dataloader_pin_memory": False,
    "dataloader_persistent_workers": (True, WORKERS),
    "dataloader_prefetch_factor": (2, WORKERS),
    "dataloader_multiprocessing_context": ("fork", WORKERS),
    "dataloader_in_order": (False, WORKERS),
    "train_sampling_strategy": "sequential",
    "ddp_find_unused_parameters": False,
    "ddp_bucket_cap_mb": 1,
    "ddp_broadcast_buffers": True,
    "ddp_static_graph": True,
    "ddp_timeout": 60,
    "debug": "underflow_overflow",
    "skip_memory_metrics": False,
    "use_cache": True,
}
# Fields that a CPU, an encoder or this install cannot do: refused there with the reason, before weights are read.
NOT_HERE = {
    "fp16": (True, "needs a GPU"),
    "tf32": (True, "tf32"),
    "ddp_backend": ("gloo", "this run has one"),
    "label_smoothing_factor": (0.1, "has no smoothing"),
    "use_liger_kernel": (True, "not for an encoder"),
}
# Fields that a value of another field brings into play; that field is in a list above.
WITH_ANOTHER = {
    "liger_kernel_config": "use_liger_kernel",
    "optim_target_modules": "optim",  # of GaLore and APOLLO, which need their packages
    "torch_compile": "",  # minutes of compiling: tried by hand, on a machine with a compiler
    "torch_compile_backend": "torch_compile",
    "torch_compile_mode": "torch_compile",
}
LISTS = {"works": WORKS, "elsewhere": ELSEWHERE, "refused": REFUSED, "not here": NOT_HERE, "with another": WITH_ANOTHER}


def test_every_field_of_the_installed_transformers_is_in_one_list():
    places = {name: [word for word, names in LISTS.items() if name in names] for name in fields()}
    assert {name: found for name, found in places.items() if len(found) != 1} == {}


@pytest.mark.parametrize("name", sorted({*ELSEWHERE, *REFUSED} & set(fields())))
def test_what_is_not_done_is_refused_with_its_reason(name):
    with pytest.raises(RequestError) as refused:
        check_trainer_arguments({name: "x"})
    assert f"trainer.{name}" in str(refused.value)
    assert (ELSEWHERE | REFUSED)[name] in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("fsdp", ""), ("deepspeed", None), ("include_for_metrics", [])])
def test_a_refused_field_may_state_that_it_asks_for_nothing(name, value):
    assert name in check_trainer_arguments({name: value})


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_field_is_one_setting_under_either_name(old, new):
    values = {"gradient_checkpointing": True}.get(old, {"use_reentrant": False})
    assert check_trainer_arguments({old: values}) == check_trainer_arguments({new: values})
    with pytest.raises(RequestError, match="one setting"):
        check_trainer_arguments({old: values, new: values})


def in_hydra(value: Any) -> str:
    """JSON, but for a mapping's keys, which stand there without quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{json.dumps(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def run_with(trainer: dict[str, Any], model: Path, data: Path, root: Path) -> list[str]:
    """The command line of a small CTL run with these of Trainer's arguments."""
    given = [f"++trainer.{name}={in_hydra(value)}" for name, value in trainer.items()]
    sparse = ["evaluation.zero_shot=false", "evaluation.splits=[dev]", "evaluation.bootstrap=0"]
    return [*request(model, data, root, *sparse), *given, f"hydra.run.dir={root}/run"]


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_cannot_be_done_here_is_refused_before_weights_are_read(
    name, tiny_bert, small_data, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it started"))
    value, reason = NOT_HERE[name]
    with pytest.raises(RequestError, match=reason):
        train.start(run_with({**STEPS, name: value}, tiny_bert, small_data, tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(WORKS) & {*fields(), *RENAMED, *RENAMED.values()}))
def test_a_field_that_works_reaches_trainer_and_the_run_completes(name, tiny_bert, small_data, tmp_path, monkeypatch):
    from rag_experiments.training import build

    value, beside = WORKS[name] if isinstance(WORKS[name], tuple) else (WORKS[name], {})
    made: list[Any] = []
    whole = build.build_trainer
    monkeypatch.setattr(build, "build_trainer", lambda *given: made.append(whole(*given)) or made[0])
    assert train.start(run_with({**STEPS, **beside, name: value}, tiny_bert, small_data, tmp_path)) == 0
    run = RunDirectory.open(tmp_path / "run")
    assert run.state == "completed"
    (trainer,) = made
    known = next(word for word in (name, RENAMED.get(name, name)) if word in fields())
    got = getattr(trainer.args, known)
    assert (
        (got.to_dict()[next(iter(value))] == next(iter(value.values())))
        if known == "accelerator_config"
        else (getattr(got, "value", got) == value or (known == "debug" and [one.value for one in got] == [value]))
    )
    assert trainer.state.global_step >= 1
