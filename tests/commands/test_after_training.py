"""What a run leaves for the commands that follow it at once."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from rag_experiments import ask
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.retrieval import embedding
from rag_experiments.retrieval.index import FaissIndex
from tests.conftest import write_small_data
from tests.training.test_run import request, run_at


@pytest.mark.parametrize("retriever", ["faiss_flat", "faiss_hnsw", "hybrid"])
@pytest.mark.parametrize("evaluated", ["epoch", "no"])
def test_ask_straight_after_training_embeds_no_passage(
    retriever: str, evaluated: str, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during = [f"trainer.eval_strategy={evaluated}", f"trainer.save_strategy={evaluated}", f"retriever={retriever}"]
    during += ["trainer.load_best_model_at_end=false"] if evaluated == "no" else []
    few = ("trainer.num_train_epochs=1", "evaluation.zero_shot=false", "evaluation.baselines=[]", *during)
    run = run_at(tmp_path / "run", request(tiny_bert, write_small_data(tmp_path / "data"), tmp_path, *few))
    embedded: list[object] = []
    monkeypatch.setattr(Encoder, "embed_passages", lambda *given, **_: embedded.append(given))
    built: list[object] = []
    if retriever == "faiss_hnsw":  # a graph takes longest
        monkeypatch.setattr(FaissIndex, "build", lambda *given: built.append(given))
    assert len(ask.reply(ask.open_parts(run.path, []), "where is the red cat one").passages) == 4
    assert (embedded, built) == ([], [])


def test_a_disk_without_room_for_the_vectors_fails_no_run_that_has_its_figures(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: Path, shape: tuple[int, int], block: int) -> None:
        folder.mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedding, "_prepare", full)
    few = ("trainer.num_train_epochs=1", "evaluation.zero_shot=false", "evaluation.baselines=[]")
    run = run_at(tmp_path / "run", request(tiny_bert, write_small_data(tmp_path / "data"), tmp_path, *few))
    assert run.read_status()["state"] == "completed"
    shown = capsys.readouterr().err
    assert shown.count("not kept for later commands: [Errno 28] No space left on device (paths.cache=") == 1
    assert [path for path in (tmp_path / "cache" / "vectors").iterdir() if path.is_dir()] == []


def test_libraries_say_nothing_on_a_good_day(tmp_path: Path) -> None:
    code = """
import logging
logging.basicConfig(level=logging.DEBUG)
import numpy as np
from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.retrieval.index import FaissIndex
FaissIndex.build(np.eye(4, dtype=np.float32), RetrieverConfig(type="faiss"))
import bm25s
index = bm25s.BM25()
index.index(bm25s.tokenization.Tokenized(ids=[[0], [1]], vocab={"a": 0, "b": 1}), show_progress=False)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert (ran.stdout, ran.stderr) == ("", "")
