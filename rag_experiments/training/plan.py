"""`plan=true`: what a run would do, from configuration and data alone; no weights are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.config import roles
from rag_experiments.config.kinds import MODEL_KINDS, RETRIEVER_KINDS
from rag_experiments.core.text import word_count
from rag_experiments.core.visible import visible
from rag_experiments.data.cut_length import shorter
from rag_experiments.data.shown_examples import example_lines
from rag_experiments.models.shared.precision import default_device
from rag_experiments.models.sizes import hidden_size, sizes, token_counts
from rag_experiments.training.request import Request

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from rag_experiments.config.schema import RunConfig
    from rag_experiments.data.load import RagData

TEXTS_SAMPLED = 200


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run would do. As text it is what `plan=true` prints."""

    rows: list[tuple[str, str]]
    """`(what, how much)`, in reading order."""

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        return visible("\n".join(f"{name:<{width}}  {value}" for name, value in self.rows))


def make_plan(request: Request, directory: Path) -> Plan:
    """The plan of a checked request that would run in `directory`."""
    return Plan(plan_rows(request, directory))


def plan_rows(request: Request, directory: Path) -> list[tuple[str, str]]:
    """`(what, how much)` pairs, in reading order."""
    from rag_experiments.training.training_arguments import training_arguments

    config, data = request.config, request.data
    args = training_arguments(config, directory / "checkpoints")
    examples = request.trainer_class.count_examples(config, data)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * max(1, args.world_size)
    unit = "questions" if examples == len(data.splits["train"]) else f"of {examples:,} examples"
    per_epoch = max(1, math.ceil(examples / batch))
    steps = args.max_steps if args.max_steps > 0 else math.ceil(per_epoch * args.num_train_epochs)
    rows = [
        ("run", f"{config.algorithm.name}: {config.model.kind} {config.model.path}"),
        ("run directory", str(directory)),
        ("cache", str(request.cache)),
        ("config hash", request.config_hash),
        ("data", f"{config.data.format}, content {data.content_hash}"),
        ("passages", f"{len(data.passages):,} ({_lengths(config, data)})"),
        *[(f"{split} questions", f"{len(questions):,}") for split, questions in data.splits.items()],
        ("batch", f"{batch} {unit} per step ({per_epoch} steps per epoch)"),
        *_contrast(request.trainer_class, args, getattr(config.algorithm, "negatives", "listed")),
        ("steps", f"{steps:,} ({steps / per_epoch:.1f} epochs)"),
        ("precision", "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"),
    ]
    rows += _models(request)
    if MODEL_KINDS[config.model.kind].role == "encoder":
        size = hidden_size(config.model)
        if size:
            rows.append(("index", f"{len(data.passages) * size * 4 / 2**20:.0f} MiB of vectors"))
    rows.append(("evaluation", f"{', '.join(config.evaluation.splits)}; zero shot: {config.evaluation.zero_shot}"))
    rows.append(("trainer", ", ".join(f"{key}={value}" for key, value in sorted(config.trainer.items()))))
    rows += [("note", note) for note in data.notes]
    rows += [("example", line) for line in example_lines(data)]
    return rows


def _contrast(trainer_class: Any, args: TrainingArguments, hard: str) -> list[tuple[str, str]]:
    """How many questions a question is contrasted with: accumulation adds to the step, not to the negatives."""
    if not trainer_class.contrasts_in_batch:
        return []
    together = args.per_device_train_batch_size * max(1, args.world_size)
    text = (
        f"from the {together} questions of a forward pass, and those {hard if hard != 'both' else 'listed and mined'}"
    )
    if args.gradient_accumulation_steps > 1:
        text += "; trainer.gradient_accumulation_steps adds none, algorithm.mini_batch_size saves memory"
    return [("negatives", text)]


def _models(request: Request) -> list[tuple[str, str]]:
    """A line for each model that is in memory, and one for all: weights and optimiser."""
    rows, memory = [], 0.0
    device = default_device()
    for model in roles.models_of(request.config, request.trainer_class):
        size = sizes(model.config, model.trained, device)
        if size is None:
            continue
        memory += size.memory
        learning = f", {size.trained:,} of them trained" if size.trained else ", frozen"
        rows.append((f"{model.role} parameters", f"{size.parameters:,}{learning} ({model.config.path})"))
    if rows:
        rows.append(("memory", f"{memory / 2**30:.2f} GiB for weights and optimiser, plus activations"))
    return rows


def _lengths(config: RunConfig, data: RagData) -> str:
    """How long a passage is, from a sample spread over the corpus; in words where there is no tokenizer to ask.

    Tokens are those of the encoder that searches, which cuts a passage that is too long; else of the reader.
    """
    model = config.model
    if model.kind != "encoder" and RETRIEVER_KINDS[config.retriever.type].needs_encoder:
        model = config.retriever.encoder or model
    prefix = getattr(model, "passage_prefix", None) or ""
    count = len(data.passages)
    texts = data.passages.full_texts(list(range(0, count, max(1, count // TEXTS_SAMPLED))))
    tokens = token_counts(model, [prefix + text for text in texts])
    if tokens is None:
        return f"about {sum(map(word_count, texts)) / len(texts):.0f} words each, from a sample"
    line = f"about {sum(tokens) / len(tokens):.0f} tokens each"
    limit = getattr(model, "max_passage_length", None)
    if limit is not None:
        longer = sum(length > limit for length in tokens)
        line += f", {longer / len(tokens):.0%} longer than {limit}{' and cut when they are read' if longer else ''}"
        if advice := shorter(config.data, tokens, limit):
            line += f" ({advice} makes 99 % fit)"
    return f"{line}, from a sample"
