"""`trainer.*` of a run → `transformers.TrainingArguments`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments

from rag_experiments.algorithms.shared.gathering import on_one_device
from rag_experiments.config.schema import RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.models.shared.precision import resolve_precision


def process_state(trainer: Mapping[str, Any]) -> PartialState:
    """This process among the others. The first call makes their group: with `ddp_backend` and `ddp_timeout`, then."""
    timeout = timedelta(seconds=trainer.get("ddp_timeout") or TrainingArguments.ddp_timeout)
    return PartialState(backend=trainer.get("ddp_backend"), timeout=timeout)


def training_arguments(config: RunConfig, checkpoints: Path) -> TrainingArguments:
    """`trainer.*`, completed by what the run decides: directory, seed, precision."""
    fields: dict[str, Any] = dict(config.trainer)
    device = torch.device("cpu") if fields.get("use_cpu") else process_state(fields).device
    fields["use_cpu"] = device.type == "cpu"  # TrainingArguments refuses bf16 on a CPU that it was not told of
    if "bf16" not in fields and "fp16" not in fields:
        dtype = resolve_precision(config.model.precision, device)
        fields["bf16"], fields["fp16"] = dtype is torch.bfloat16, dtype is torch.float16
    if fields.get("fp16") and device.type == "cpu":
        raise RequestError("trainer.fp16=true needs a GPU, and this run is on the CPU: trainer.bf16=true, or neither")
    # Processes may hold different numbers of texts, so their encoders run different numbers of times: a broadcast of
    # buffers before each (the wrapper's default) would wait for ever. The buffers of these models are constants.
    fields.setdefault("ddp_broadcast_buffers", False)
    # Or early stopping would count its patience anew from where a run is resumed.
    fields.setdefault("restore_callback_states_from_checkpoint", True)
    args = TrainingArguments(
        output_dir=str(checkpoints),
        seed=config.seed,
        report_to=[],
        remove_unused_columns=False,
        **fields,
    )
    return on_one_device(args)
