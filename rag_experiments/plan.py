"""`plan=true`: what a run would do, from configuration and data alone; no weights are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from rag_experiments.models import source
from rag_experiments.request import Request

BYTES_TRAINED = 16
"""fp32 weight, gradient and AdamW's two moments."""


def print_plan(request: Request, directory: Path) -> None:
    """Print the plan."""
    rows = plan_rows(request, directory)
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def plan_rows(request: Request, directory: Path) -> list[tuple[str, str]]:
    """`(what, how much)` pairs, in reading order."""
    from rag_experiments.build import training_arguments

    config, data = request.config, request.data
    args = training_arguments(config, directory / "checkpoints")
    train = data.splits["train"]
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * max(1, args.world_size)
    per_epoch = max(1, math.ceil(len(train) / batch))
    steps = args.max_steps if args.max_steps > 0 else math.ceil(per_epoch * args.num_train_epochs)
    parameters = parameter_count(config.model)
    words = _mean_words(data)
    rows = [
        ("run", f"{config.algorithm.name}: {config.model.kind} {config.model.path}"),
        ("run directory", str(directory)),
        ("cache", str(request.cache)),
        ("config hash", request.config_hash),
        ("data", f"{config.data.format}, content {data.content_hash}"),
        ("passages", f"{len(data.passages):,} (about {words:.0f} words each, from a sample)"),
        *[(f"{split} questions", f"{len(questions):,}") for split, questions in data.splits.items()],
        ("batch", f"{batch} questions a step ({per_epoch} steps an epoch)"),
        ("steps", f"{steps:,} ({steps / per_epoch:.1f} epochs)"),
        ("precision", "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"),
    ]
    if parameters is not None:
        rows.append(("parameters", f"{parameters:,}"))
        rows.append(
            ("memory", f"{parameters * BYTES_TRAINED / 2**30:.2f} GiB for weights and optimiser, plus activations")
        )
    if config.model.kind == "encoder":
        size = hidden_size(config.model)
        if size:
            rows.append(("index", f"{len(data.passages) * size * 4 / 2**20:.0f} MiB of vectors"))
    rows.append(("evaluation", f"{', '.join(config.evaluation.splits)}; zero shot: {config.evaluation.zero_shot}"))
    rows.append(("trainer", ", ".join(f"{key}={value}" for key, value in sorted(config.trainer.items()))))
    rows += [("note", note) for note in data.notes]
    return rows


def parameter_count(model: Any) -> int | None:
    """Parameters of the architecture, counted on the meta device; None where its config is not on this disk."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = _hf_config(model)
    if config is None:
        return None
    family = {"encoder": AutoModel, "decoder": AutoModelForCausalLM, "encoder_decoder": AutoModelForSeq2SeqLM}
    with torch.device("meta"):
        made = family[model.kind].from_config(config)
    return sum(parameter.numel() for parameter in made.parameters())


def hidden_size(model: Any) -> int | None:
    """Width of the vectors, where the architecture's config says it."""
    config = _hf_config(model)
    return getattr(config, "hidden_size", None) or getattr(config, "d_model", None)


def _hf_config(model: Any) -> Any:
    from transformers import AutoConfig

    if model.architecture is not None:
        fields = dict(model.architecture)
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    found = source.resolve(model.path, model.revision)
    if found.local is None:
        return None
    if found.local.is_file():
        return AutoConfig.from_pretrained(found.local.parent, gguf_file=found.local.name)
    return AutoConfig.from_pretrained(found.local)


def _mean_words(data: Any) -> float:
    count = len(data.passages)
    texts = data.passages.full_texts(list(range(0, count, max(1, count // 200))))
    return sum(len(text.split()) for text in texts) / len(texts)
