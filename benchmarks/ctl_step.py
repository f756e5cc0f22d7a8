"""Compare a contrastive training step with sentence-transformers: same model and batches, in one process.

    python -m benchmarks.ctl_step [--batch 64] [--steps 5] [--output FILE] [key=val …]

A step is the forward pass of questions and gold passages, the loss with in-batch negatives (scale 20), the backward
pass and AdamW, with dropout, on another batch of `data=pydocs` each step. In each step the contestants take turns in a
rotating order. The result is the ratio within a step, as median and range, in processor time (on a GPU: wall time).
First, the losses of all contestants on one batch are compared, in full precision and without dropout.

- `ours auto`: as `algorithm=ctl` computes (bf16 autocast where the hardware has it)
- `ours fp32`: the same in full precision
- `peer fp32`: `MultipleNegativesRankingLoss(SentenceTransformer(model))`, as its trainer computes by default
- `peer bf16`: the same under bf16 autocast, as with its trainer's `bf16=True`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from rag_experiments.config import command_line
from rag_experiments.model_files.sources import fetch, resolve
from rag_experiments.training import build
from rag_experiments.training.request import check_request

Step = Callable[[list[int]], float]
PAIRS = [("ours auto", "peer fp32"), ("ours fp32", "peer fp32"), ("ours auto", "peer bf16")]
"""Pairs: default settings on both sides; the same arithmetic; the fastest setting of the peer."""


def main() -> None:
    """Compare, print a table, and write the figures if `--output` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the run's configuration, such as data.max_words=200")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours = {name: _trainer(Path(folder) / name, args, name.split()[1]) for name in ("ours auto", "ours fp32")}
        peer = _peer(ours["ours auto"])
        texts = _Texts(ours["ours auto"])
        losses = {name: _loss_without_dropout(name, ours.get(name), peer, texts, args.batch) for name in
                  ("ours fp32", "peer fp32")}  # fmt: skip
        steps: dict[str, Step] = {name: _our_step(trainer) for name, trainer in ours.items()}
        steps |= {name: _peer_step(peer, texts, name.endswith("bf16")) for name in ("peer fp32", "peer bf16")}
        seconds = _race(steps, texts, args)
    figures = {
        "batch": args.batch,
        "tokens_a_passage": texts.tokens_a_passage(ours["ours auto"].components.model),
        "device": str(ours["ours auto"].components.model.device),
        "threads": torch.get_num_threads(),
        "loss_without_dropout": losses,
        "seconds": seconds,
        "ratios": {f"{one} / {two}": _ratio(seconds[two], seconds[one]) for one, two in PAIRS},
    }
    print(_table(figures))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


class _Texts:
    """The text and the gold passage of each training question."""

    def __init__(self, trainer: Any) -> None:
        store = trainer.components.data.passages
        asked = trainer.components.data.splits["train"]
        # Each passage once: the peer takes a repeated passage for a negative, and the losses would differ.
        once = {int(store.rows(question.positive_ids)[0]): number for number, question in enumerate(asked)}
        self.numbers = sorted(once.values())
        self.queries = [question.question for question in asked]
        self.passages = [store.full_texts(store.rows(question.positive_ids)[:1].tolist())[0] for question in asked]

    def batch(self, step: int, size: int) -> list[int]:
        start = step * size % max(1, len(self.numbers) - size)
        return self.numbers[start : start + size]

    def tokens_a_passage(self, encoder: Any) -> float:
        return statistics.mean(len(row) for row in encoder.tokenize_passages(self.passages))


def _trainer(folder: Path, args: argparse.Namespace, precision: str) -> Any:
    overrides = ["algorithm=ctl", "tracking=none", f"trainer.per_device_train_batch_size={args.batch}"]
    if precision == "fp32":
        overrides += ["model.precision=fp32", "trainer.bf16=false"]
    request = check_request(command_line.compose([*overrides, *args.overrides], None))
    trainer = build.build_trainer(request, build.build_components(request), folder, [])
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # what train() would set
    trainer.accelerator.prepare_model(trainer.model)  # and the autocast it would put around the encoder
    trainer.components.model.train()
    return trainer


def _peer(trainer: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    encoder = trainer.components.model
    folder = str(fetch(resolve(trainer.components.config.model.path)))
    peer = SentenceTransformer(folder, device=str(encoder.device), model_kwargs={"dtype": "float32"})
    peer.max_seq_length = encoder.config.max_passage_length
    return peer.train()


def _our_step(trainer: Any) -> Step:
    def step(numbers: list[int]) -> float:
        loss = trainer.training_step(trainer.model, trainer.collate([trainer.train_dataset[n] for n in numbers]))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return float(loss.detach())

    return step


def _peer_step(peer: Any, texts: _Texts, bf16: bool) -> Step:
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    loss_of = MultipleNegativesRankingLoss(peer, scale=20.0)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=5e-5, fused=True)

    def step(numbers: list[int]) -> float:
        loss = _peer_loss(peer, loss_of, texts, numbers, bf16)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _peer_loss(peer: Any, loss_of: Any, texts: _Texts, numbers: list[int], bf16: bool) -> torch.Tensor:
    columns = ([texts.queries[n] for n in numbers], [texts.passages[n] for n in numbers])
    features = []
    for column in columns:
        tokens = peer.preprocess(column) if hasattr(peer, "preprocess") else peer.tokenize(column)
        features.append({name: value.to(peer.device) for name, value in tokens.items() if torch.is_tensor(value)})
    with torch.autocast(peer.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
        return loss_of(features, None)


def _loss_without_dropout(name: str, trainer: Any, peer: Any, texts: _Texts, size: int) -> float:
    """The loss on the first batch before training."""
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    numbers = texts.batch(0, size)
    with torch.no_grad():
        if trainer is None:
            peer.eval()
            loss = _peer_loss(peer, MultipleNegativesRankingLoss(peer, scale=20.0), texts, numbers, False)
            peer.train()
        else:
            trainer.components.model.eval()
            loss = trainer.compute_loss(trainer.model, trainer.collate([trainer.train_dataset[n] for n in numbers]))
            trainer.components.model.train()
    return float(loss)


def _race(steps: dict[str, Step], texts: _Texts, args: argparse.Namespace) -> dict[str, list[float]]:
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    for number in range(args.steps + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            set_seed(number)
            started = clock()
            steps[name](texts.batch(number, args.batch))
            if number:  # the first step is warm-up
                seconds[name].append(clock() - started)
    return seconds


def _ratio(slower: list[float], faster: list[float]) -> dict[str, float]:
    """How many times faster, as median and range over steps."""
    by_step = [a / b for a, b in zip(slower, faster, strict=True)]
    return {"median": statistics.median(by_step), "low": min(by_step), "high": max(by_step)}


def _table(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['batch']} questions per step, passages of {figures['tokens_a_passage']:.0f} tokens, "
        f"{figures['device']}, {figures['threads']} threads",
        "loss without dropout  " + "   ".join(f"{k} {v:.6f}" for k, v in figures["loss_without_dropout"].items()),
        *(f"  {name:<10} {statistics.median(times):7.3f} s per step" for name, times in figures["seconds"].items()),
        *(
            f"  {name:<22} {ratio['median']:.2f} times as fast ({ratio['low']:.2f} to {ratio['high']:.2f})"
            for name, ratio in figures["ratios"].items()
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
