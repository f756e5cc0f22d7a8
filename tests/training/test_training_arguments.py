"""From a request to `TrainingArguments`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments

from rag_experiments.core.errors import RequestError
from rag_experiments.training import training_arguments


def made(**trainer: object) -> TrainingArguments:
    config = SimpleNamespace(
        seed=3, model=SimpleNamespace(precision="fp32"), trainer={"use_cpu": True, "eval_strategy": "no", **trainer}
    )
    return training_arguments.training_arguments(config, Path("checkpoints"))


def test_a_process_uses_one_of_the_gpus_it_sees(monkeypatch):
    class FourGpus(TrainingArguments):
        def __post_init__(self):
            super().__post_init__()
            self._n_gpu = 4

    monkeypatch.setattr(training_arguments, "TrainingArguments", FourGpus)
    args = made(per_device_train_batch_size=8)
    assert (args.n_gpu, args.train_batch_size) == (1, 8)


def test_the_group_of_processes_is_made_with_the_users_backend_and_timeout(monkeypatch):
    """accelerate makes it at the first call, and a later one changes nothing."""
    calls = []

    def state(**given):
        calls.append(given)
        return SimpleNamespace(device=torch.device("cpu"))

    monkeypatch.setattr(training_arguments, "PartialState", state)
    monkeypatch.setattr(training_arguments, "on_one_device", lambda args: args)
    monkeypatch.setattr(
        training_arguments, "TrainingArguments", type("Arguments", (SimpleNamespace,), {"ddp_timeout": 1800})
    )
    made(use_cpu=False, ddp_timeout=77, ddp_backend="gloo")
    made(use_cpu=False)
    assert calls == [
        {"backend": "gloo", "timeout": timedelta(seconds=77)},
        {"backend": None, "timeout": timedelta(seconds=1800)},
    ]


def test_fp16_on_a_cpu_is_refused_with_what_to_use():
    with pytest.raises(RequestError, match=r"trainer\.fp16=true needs a GPU.*bf16"):
        made(fp16=True)


@pytest.mark.parametrize(("given", "kept"), [({}, False), ({"ddp_broadcast_buffers": True}, True)])
def test_buffers_are_not_broadcast_unless_asked(given, kept):
    assert made(**given).ddp_broadcast_buffers is kept


def test_precision_and_seed_are_the_runs():
    args = made()
    assert (args.bf16, args.fp16, args.seed) == (False, False, 3)
    assert made(bf16=True).bf16
