"""From a request to `TrainingArguments`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainingArguments

from rag_experiments import build


def made(**trainer: object) -> TrainingArguments:
    config = SimpleNamespace(
        seed=3, model=SimpleNamespace(precision="fp32"), trainer={"use_cpu": True, "eval_strategy": "no", **trainer}
    )
    return build.training_arguments(config, Path("checkpoints"))


def test_a_process_uses_one_of_the_gpus_it_sees(monkeypatch):
    class FourGpus(TrainingArguments):
        def __post_init__(self):
            super().__post_init__()
            self._n_gpu = 4

    monkeypatch.setattr(build, "TrainingArguments", FourGpus)
    args = made(per_device_train_batch_size=8)
    assert (args.n_gpu, args.train_batch_size) == (1, 8)


@pytest.mark.parametrize(("given", "kept"), [({}, False), ({"ddp_broadcast_buffers": True}, True)])
def test_buffers_are_not_broadcast_unless_asked(given, kept):
    assert made(**given).ddp_broadcast_buffers is kept


def test_precision_and_seed_are_the_runs():
    args = made()
    assert (args.bf16, args.fp16, args.seed) == (False, False, 3)
    assert made(bf16=True).bf16
