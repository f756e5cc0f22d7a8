"""A run resumed from any checkpoint is the undisturbed run: weights, figures, predictions and log, line for line.

`python -m benchmarks.storm` does the same with real kills, for all eight algorithms.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.storm import differences, is_time
from rag_experiments import train
from rag_experiments.algorithms.resumable import TOTALS
from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
from rag_experiments.runs.directory import RunDirectory
from tests.conftest import write_small_data
from tests.training import test_run

VARIANTS = {
    # Saves, evaluations and logging lines fall on different steps.
    "best": ["trainer.max_steps=9", "trainer.save_steps=2", "trainer.eval_steps=2", "trainer.logging_steps=4"],
    "last": [
        "trainer.max_steps=7",
        "trainer.save_steps=1",
        "trainer.logging_steps=3",
        "trainer.eval_strategy=no",
        "trainer.load_best_model_at_end=false",
    ],
    # Negatives are searched after other steps than those with a checkpoint; a guide and a teacher are asked about them.
    "mined": [
        "model@algorithm.guide=minilm",
        "algorithm.guide.path={model}",
        "algorithm.guide.pooling=mean",
        "algorithm.guide_margin=0.001",
        "model@algorithm.teacher=minilm_reranker_msmarco",
        "algorithm.teacher.path={reranker}",
        "algorithm.teacher_temperature=0.1",
        "trainer.max_steps=7",
        "trainer.save_steps=2",
        "trainer.save_total_limit=5",
        "trainer.eval_steps=2",
        "trainer.logging_steps=4",
        "algorithm.negatives=both",
        "algorithm.hard_negatives=2",
        "algorithm.refresh_every=3",
        "algorithm.last_rank=9",
        "algorithm.margin=0",
    ],
    "stopped": [
        "trainer.max_steps=40",
        "trainer.save_steps=2",
        "trainer.save_total_limit=5",
        "trainer.eval_steps=2",
        "trainer.logging_steps=4",
        "trainer.learning_rate=1e-30",  # nothing gets better, so patience ends the run
        "early_stopping=2",
    ],
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def whole(request, tmp_path_factory, tiny_bert) -> RunDirectory:
    root = tmp_path_factory.mktemp(request.param)
    more = ["trainer.save_strategy=steps", "trainer.eval_strategy=steps", "evaluation.bootstrap=20"]
    arguments = test_run.request(tiny_bert, write_small_data(root / "data"), root, *more, *VARIANTS[request.param])
    model = CrossEncoderConfig(path=str(tiny_bert), precision="fp32")
    CrossEncoder.load(model, device="cpu").save(root / "reranker")
    places = {"model": tiny_bert, "reranker": root / "reranker"}
    return test_run.run_at(root / "run", [argument.format(**places) for argument in arguments])


def steps(run: RunDirectory) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in run.checkpoints_dir.iterdir())


def killed_after(run: RunDirectory, step: int, to: Path) -> RunDirectory:
    """`run` as a kill would have left it with `step` its last whole checkpoint, and everything later half done."""
    shutil.copytree(run.path / ".hydra", to / ".hydra")
    for name in (run.history_path.name, "config.yaml", "predictions", "model"):
        source = run.path / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, to / name)
    for saved in steps(run):
        if saved <= step:
            shutil.copytree(run.checkpoints_dir / f"checkpoint-{saved}", to / "checkpoints" / f"checkpoint-{saved}")
    (to / "checkpoints" / f"checkpoint-{step + 1000}").mkdir()
    (to / ".partial-model-1-abcd").mkdir()
    (to / "status.json").write_text(json.dumps({**run.read_status(), "state": "interrupted"}))
    return RunDirectory.open(to)


def test_resumed_from_any_checkpoint_equals_undisturbed(whole, tmp_path):
    *earlier, last = steps(whole)
    for step in (earlier[len(earlier) // 2], last):
        cut = killed_after(whole, step, tmp_path / str(step))
        assert train.start([f"resume={cut.path}"]) == 0
        assert list(differences(whole.path, cut.path)) == []
        expected, found = (
            json.loads((run.checkpoints_dir / f"checkpoint-{last}" / TOTALS).read_text()) for run in (whole, cut)
        )
        for totals in (expected, found):
            totals["seconds"] = 0
            totals["recorded"] = {name: values for name, values in totals["recorded"].items() if not is_time(name)}
        assert found == expected


@pytest.mark.parametrize("whole", ["stopped"], indirect=True)
def test_early_stopping_had_stopped(whole):
    """Or the variant would show nothing."""
    assert steps(whole)[-1] == 6


@pytest.mark.parametrize("whole", ["last"], indirect=True)
def test_cost_counts_every_segment(whole, tmp_path):
    cut = killed_after(whole, steps(whole)[-1], tmp_path / "cut")
    file = cut.last_checkpoint() / TOTALS
    file.write_text(json.dumps({**json.loads(file.read_text()), "seconds": 5000.0, "tokens": 10_000_000}))
    (cut.path / "cost.json").write_text(json.dumps({"prepare": 3000.0, "train": 5000.0}))
    assert train.start([f"resume={cut.path}"]) == 0
    metrics = cut.read_final_metrics()
    assert 5000.0 <= metrics["seconds/train"] < 5600.0
    assert 3000.0 <= metrics["seconds/prepare"] < 3600.0
    assert metrics["tokens_per_second"] == pytest.approx(10_000_000 / metrics["seconds/train"], rel=0.01)


@pytest.mark.parametrize("whole", ["last"], indirect=True)
def test_a_checkpoint_without_sums_is_resumed_and_said(whole, tmp_path):
    """Of an earlier version of this package."""
    cut = killed_after(whole, steps(whole)[-1], tmp_path / "cut")
    (cut.last_checkpoint() / TOTALS).unlink()
    assert train.start([f"resume={cut.path}"]) == 0
    assert "totals begin anew" in (cut.path / "train.log").read_text()
