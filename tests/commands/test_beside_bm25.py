"""An encoder's run evaluated with a retriever that has no encoder: before and after training stand beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_experiments import ask, evaluate
from rag_experiments.retrieval.bm25 import BM25Retriever
from tests.conftest import write_small_data
from tests.numeric import assert_near
from tests.training.test_run import request, run_at


def test_bm25_is_measured_on_the_run_s_questions(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("trainer.max_steps=2", "evaluation.splits=[test]", "evaluation.max_questions=8")
    run = run_at(tmp_path / "run", request(tiny_bert, write_small_data(tmp_path / "data"), tmp_path, *few))
    capsys.readouterr()
    assert evaluate.start([f"run={run.path}", "name=words", "retriever=bm25"]) == 0
    shown = capsys.readouterr().out
    metrics = json.loads((run.path / "evaluations" / "words" / "metrics.json").read_text(encoding="utf-8"))
    final = run.read_final_metrics()
    assert_near(metrics["test/recall@1"], final["baseline/bm25/test/recall@1"])  # the same code, and the same questions
    assert not any(name.startswith("baseline/bm25") for name in metrics)
    line = next(line.split() for line in shown.splitlines() if line.startswith("test/recall@1"))
    wanted = (final["zero_shot/test/recall@1"], final["test/recall@1"], metrics["test/recall@1"])
    assert line[1:] == [f"{value:.4f}" for value in wanted]
    assert "before and after training" in shown
    assert "beside bm25" in shown
    capsys.readouterr()
    assert evaluate.start([f"run={run.path}", "name=vectors", "retriever=faiss_hnsw"]) == 0
    assert "beside" not in capsys.readouterr().out
    found = ask.open_parts(run.path, ["retriever=bm25"])
    assert isinstance(found.retriever, BM25Retriever)
    assert ask.reply(found, "where is the red cat one").passages
