"""Run directories with figures that follow from their predictions, as real ones' do."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

CONFIG: dict[str, Any] = {
    "seed": 0,
    "name": "run",
    "algorithm": {"_target_": "x.CTL", "name": "ctl", "temperature": 0.05},
    "model": {"path": "package://minilm/model", "kind": "encoder", "pooling": "mean"},
    "data": {"format": "jsonl", "path": "/data/one"},
    "retriever": {"type": "faiss", "k": 4, "encoder": None},
    "trainer": {"learning_rate": 1e-4, "num_train_epochs": 1},
    "tracking": {"backend": "none", "project": "p", "entity": None},
    "paths": {"outputs": "outputs"},
}


def ranked_row(key: str, rank: int, gold: Sequence[str] = ("gold",), **more: Any) -> dict[str, Any]:
    """A predictions row whose first gold passage stands at `rank` (1 is best; 0: not found)."""
    retrieved = [f"other-{i}" for i in range(10)]
    if rank:
        retrieved[rank - 1] = gold[0]
    metrics = {f"recall@{k}": float(0 < rank <= k) / len(gold) for k in (1, 4)}
    metrics["mrr@10"] = 1 / rank if rank else 0.0
    return {
        "id": key,
        "question": f"question {key}",
        "retrieved_ids": retrieved,
        "retrieved_scores": [float(-i) for i in range(10)],
        "gold_ids": list(gold),
        "answer": None,
        "references": ["right"],
        "metrics": metrics,
    } | more


def write_run(
    path: Path,
    stages: Mapping[str, Sequence[dict[str, Any]]],
    changes: Mapping[str, Any] | None = None,
    state: str = "completed",
    status: Mapping[str, Any] | None = None,
    figures: Mapping[str, float] | None = None,
    choices: Mapping[str, str] | None = None,
) -> Path:
    """A run directory. `changes`: dotted config keys. `figures` are added to those the predictions give."""
    path.mkdir(parents=True)
    config = copy.deepcopy(CONFIG)
    for key, value in (changes or {}).items():
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node[parent] = node.get(parent) or {}
            node = node[parent]
        node[last] = value
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    about = {"state": state, "started": "2026-01-01T00:00:00+00:00", "data_hash": "d", "corpus_hash": "c"}
    about |= {
        "algorithm": config["algorithm"]["name"],
        "data": {"format": "jsonl", "path": "/data/one", "passages": 99},
    }
    (path / "status.json").write_text(json.dumps({**about, **(status or {})}), encoding="utf-8")
    metrics: dict[str, float] = dict(figures or {})
    for stage, rows in stages.items():
        file = path / "predictions" / f"{stage}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for name in {name for row in rows for name in row["metrics"]}:
            metrics[f"{stage}/{name}"] = float(np.mean([r["metrics"][name] for r in rows if name in r["metrics"]]))
    if state == "completed":
        (path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    if choices:
        (path / ".hydra").mkdir()
        body = yaml.safe_dump({"hydra": {"runtime": {"choices": dict(choices), "cwd": "/"}, "verbose": False}})
        (path / ".hydra" / "hydra.yaml").write_text(body, encoding="utf-8")
    return path


def rows_with(share: float, questions: int = 100, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Rows of which `share` have their gold passage first, each with a gold passage of its own."""
    rng = np.random.default_rng(seed)
    right = rng.permutation(questions) < round(share * questions)
    return [ranked_row(f"q{i}", 1 if right[i] else 6, (f"gold-{i}",), **more) for i in range(questions)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test its own record cache."""
    monkeypatch.setenv("RAG_EXPERIMENTS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """`base` is right for 40 of 100 questions, `better` for 80."""
    base = write_run(tmp_path / "base", {"test": rows_with(0.4, seed=1)}, figures={"seconds/train": 10.0})
    better = write_run(
        tmp_path / "better",
        {"test": rows_with(0.8, seed=2)},
        {"trainer.learning_rate": 3e-4},
        figures={"seconds/train": 30.0},
    )
    return base, better


RunMaker = Callable[..., Path]
