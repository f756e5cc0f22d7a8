"""Sweeps of a stub that takes milliseconds: everything is real but the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag_experiments import train
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.runs.identity import find_runs
from rag_experiments.sweeps import execute
from tests.conftest import write_small_data


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Relative paths end in the test's folder; jobs in processes of their own find the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))


class Sweeps:
    """Calls `train -m …` in this process, and remembers which jobs really ran."""

    def __init__(self, root: Path, model: Path):
        self.root = root
        self.model = model
        self.ran: list[str] = []
        self.action: Callable[[object, RunDirectory], dict[str, float]] = quadratic
        write_small_data(root / "data")
        self.common = [
            "-m",
            f"model.path={model}",
            "model.pooling=mean",
            "model.precision=fp32",
            "model.max_query_length=64",
            "model.max_passage_length=64",
            "data=jsonl",
            f"data.path={root}/data",
            "tracking=none",
            f"paths.cache={root}/cache",
            "trainer.use_cpu=true",
            "trainer.per_device_train_batch_size=8",
            "evaluation.bootstrap=0",
        ]

    def __call__(self, *overrides: str, name: str = "s", launcher: str = "serial") -> int:
        self.ran = []
        return train.start([*self.common, f"name={name}", f"hydra/launcher={launcher}", *overrides])

    def folder(self, name: str = "s") -> Path:
        return self.root / "multirun_sweeps" / name

    def jobs(self, name: str = "s") -> dict[str, str]:
        """Folder name to state."""
        return {run.path.name: run.state for run in find_runs(self.folder(name))}

    def values(self, name: str = "s") -> dict[str, dict]:
        return {run.path.name: run.read_final_metrics() for run in find_runs(self.folder(name))}

    def summary(self, name: str = "s") -> dict[str, dict]:
        return {job["job"]: job for job in json.loads((self.folder(name) / "sweep.json").read_text())["jobs"]}

    def run_stub(self, request, run: RunDirectory, resuming: bool = False) -> dict[str, float]:
        self.ran.append(run.path.name + (" again" if resuming else ""))
        metrics = self.action(request, run)
        run.write_metrics(metrics)
        return metrics


def quadratic(request, run) -> dict[str, float]:
    """Best at a temperature of 0.3."""
    return {"dev/ndcg@10": 1 - (request.config.algorithm.temperature - 0.3) ** 2 + 0.001 * request.config.seed}


@pytest.fixture
def sweep(tmp_path, tiny_bert, monkeypatch) -> Sweeps:
    """Sweeps whose jobs run a stub in this process."""
    sweeps = Sweeps(tmp_path, tiny_bert)
    monkeypatch.setattr(train, "train", sweeps.run_stub)
    monkeypatch.setattr(execute, "free_memory", lambda: None)  # a second or more each time, in a large process
    return sweeps


@pytest.fixture
def real_sweep(tmp_path, tiny_bert, monkeypatch) -> Iterator[Sweeps]:
    """Sweeps whose jobs train a tiny encoder, on one thread: here and in the processes they start.

    The variable alone does nothing here, where torch has read it already; and another number of threads
    rounds differently.
    """
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Sweeps(tmp_path, tiny_bert)
    torch.set_num_threads(before)
