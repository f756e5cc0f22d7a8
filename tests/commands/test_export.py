"""A finished run's parts, opened by the tools they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from rag_experiments import ask, export
from rag_experiments.config import command_line
from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training.reopen import reopen
from tests.conftest import write_small_data
from tests.models.test_cross_encoder import spread
from tests.numeric import assert_near
from tests.tiny_readers import write_tiny_llama
from tests.training.test_model_usage import blocks, executed
from tests.training.test_run import request, run_at

QUESTION = "where is the red cat one"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> RunDirectory:
    root = tmp_path_factory.mktemp("export")
    more = ("trainer.max_steps=1", "evaluation.zero_shot=false", "model.query_prefix='the '")
    return run_at(root / "run", request(tiny_bert, write_small_data(root / "data"), root, *more))


@pytest.mark.parametrize(
    "retriever", ["faiss_flat", "faiss_hnsw", "bm25", "hybrid", "hybrid retriever.fusion=weighted"]
)
def test_the_readmes_search_finds_what_ask_finds(
    run: RunDirectory, retriever: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    changes = [*f"retriever={retriever}".split(), "model.precision=fp32"]
    if retriever == "bm25":
        run = reader_run(run, tmp_path / "reader")
        changes = changes[:1]
    assert export.start([f"run={run.path}", str(target), *changes]) == 0
    names = executed(blocks(target)["Search"], target, monkeypatch)
    found = ask.search(ask.open_parts(run.path, changes), ask.asked(QUESTION), 4)
    shown = [(names["passages"][row]["id"], score) for row, score in names["search"](QUESTION, 4)]
    assert_near([score for _, score in shown], [score for score, _ in found])
    assert {name for name, _ in shown} == {passage.id for _, passage in found}


def reader_run(encoder_run: RunDirectory, root: Path, *more: str) -> RunDirectory:
    """A reader of random weights that was trained for a step behind the retriever of `encoder_run`."""
    arguments = [
        "algorithm=swr", f"model.path={write_tiny_llama(root / 'llama')}", "model.precision=fp32",
        "model.max_new_tokens=6", "data=jsonl", f"data.path={write_small_data(root / 'data')}", "retriever.k=2",
        "tracking=none", f"paths.outputs={root}/outputs", f"paths.cache={root}/cache", "trainer.use_cpu=true",
        "trainer.max_steps=1",
        "trainer.per_device_train_batch_size=4", "evaluation.zero_shot=false", "evaluation.splits=[test]",
        "model@retriever.encoder=run", f"retriever.encoder.path=run://{encoder_run.path}",
        "retriever.encoder.precision=fp32",
    ]  # fmt: skip
    return run_at(root / "run", [*arguments, *more])


def test_the_readmes_script_answers_as_the_run_did(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, target = reader_run(run, tmp_path), tmp_path / "out"
    (reader.model_dir / "README.md").unlink()  # as in a run of an earlier version
    assert export.start([f"run={reader.path}", str(target)]) == 0
    for place in ("model", "encoder"):
        assert f"`{place}/README.md`" in (target / "README.md").read_text(encoding="utf-8")
        assert blocks(target / place)
    said = {place: (target / place / "README.md").read_text(encoding="utf-8") for place in ("encoder", "model")}
    assert "searched with and did not train" in said["encoder"]
    assert "trained with `" in said["model"]
    names = executed(blocks(target)["Ask"], target, monkeypatch)
    rows = reader.read_predictions("test")
    assert [names["ask"](row["question"]) for row in rows] == [row["answer"] for row in rows]
    assert {"LangChain", "LlamaIndex", "Haystack"} < set(blocks(target))


def write_reranker(tiny_bert: Path, folder: Path) -> Path:
    """A cross-encoder whose scores differ by more than rounding."""
    torch.manual_seed(0)
    made = CrossEncoder.load(CrossEncoderConfig(path=str(tiny_bert), precision="fp32"))
    spread(made.backbone)
    made.save(folder)
    return folder


def checked_search(run: RunDirectory, target: Path, changes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's search gives the passages and scores of `ask`, and the first stage another order."""
    names = executed(blocks(target)["Search"], target, monkeypatch)
    for k in (4, 9):  # fewer than are reranked, and more
        found = ask.search(ask.open_parts(run.path, changes), ask.asked(QUESTION), k)
        shown = [(names["passages"][row]["id"], score) for row, score in names["search"](QUESTION, k)]
        assert [name for name, _ in shown] == [passage.id for _, passage in found]
        assert_near([score for _, score in shown], [score for score, _ in found], 1e-4)
    first = [names["passages"][row]["id"] for row, _ in names["search_first"](QUESTION, 9)]
    assert first != [name for name, _ in shown]


@pytest.mark.parametrize("retriever", ["faiss_flat", "bm25", "hybrid"])
def test_the_readmes_search_reranks_as_the_run_does(
    run: RunDirectory, retriever: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, target = reader_run(run, tmp_path / "reader"), tmp_path / "out"
    changes = [
        f"retriever={retriever}", "retriever.k=2", "model@retriever.reranker=run", "retriever.rerank_depth=6",
        f"retriever.reranker.path={write_reranker(tiny_bert, tmp_path / 'judge')}", "retriever.reranker.precision=fp32",
    ]  # fmt: skip
    assert export.start([f"run={reader.path}", str(target), *changes]) == 0
    text = (target / "README.md").read_text(encoding="utf-8")
    assert "`reranker/`: the retriever's reranker, opens with `sentence_transformers.CrossEncoder`" in text
    assert (target / "reranker" / "model.safetensors").is_file()
    assert not (target / "index" / "reranker").exists()
    assert ("vector" in pq.read_table(target / "passages.parquet").column_names) == (retriever != "bm25")
    checked_search(reader, target, changes, monkeypatch)
    names = executed(blocks(target)["Ask"], target, monkeypatch)
    parts = ask.open_parts(reader.path, changes)
    given = [passage for _, passage in ask.search(parts, ask.asked(QUESTION), 2)]
    assert names["ask"](QUESTION) == parts.models["reader"].answer([ask.asked(QUESTION)], [given])[0][0]


def test_an_export_of_a_trained_reranker_has_its_first_stage(
    run: RunDirectory, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [word for word in request(tiny_bert, write_small_data(tmp_path / "data"), tmp_path)
                 if "pooling" not in word]  # fmt: skip
    more = [
        "algorithm=rerank", "model=run", "model.kind=cross_encoder", "trainer.max_steps=2",
        "evaluation.zero_shot=false", "model@retriever.encoder=run", f"retriever.encoder.path=run://{run.path}",
        "retriever.encoder.precision=fp32", "retriever.rerank_depth=6", "retriever.k=2",
    ]  # fmt: skip
    reranker, target = run_at(tmp_path / "run", [*arguments, *more]), tmp_path / "out"
    assert export.start([f"run={reranker.path}", str(target)]) == 0
    assert {entry.name for entry in target.iterdir()} >= {"model", "encoder", "index"}
    assert not (target / "reranker").exists()
    text = (target / "README.md").read_text(encoding="utf-8")
    assert "the trained cross_encoder, safetensors; opens with `sentence_transformers.CrossEncoder`" in text
    checked_search(reranker, target, [], monkeypatch)


def test_passages_are_in_the_rows_of_the_index(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PARQUET_BLOCK", 7)  # 40 passages: whole blocks and a part of one
    assert export.start([f"run={run.path}", str(tmp_path / "out")]) == 0
    table = pq.read_table(tmp_path / "out" / "passages.parquet")
    assert table.column_names == ["id", "title", "text", "vector"]
    encoder = ask.open_parts(run.path, ["model.precision=fp32"]).models["encoder"]
    texts = [f"{row['title']}\n{row['text']}" for row in table.to_pylist()]
    assert_near(np.array(table["vector"].to_pylist()), encoder.embed_passages(texts))
    assert table["id"].to_pylist() == [f"p{i}" for i in range(40)]
    assert not [file for file in (tmp_path / "out").rglob("*") if file.suffix in {".bin", ".pt", ".pkl"}]


def test_what_the_run_retrieved_is_a_trec_run_file(run: RunDirectory, tmp_path: Path) -> None:
    assert export.start([f"run={run.path}", str(tmp_path / "out")]) == 0
    for split, name in export.RUN_FILES.items():
        rows = run.read_predictions(split)
        assert (tmp_path / "out" / name).is_file() == bool(rows)
        if rows:
            found = [line.split() for line in (tmp_path / "out" / name).read_text(encoding="utf-8").splitlines()]
            assert [(one[0], one[2]) for one in found] == [(row["id"], i) for row in rows for i in row["retrieved_ids"]]
            assert f"`{name}`" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["no folder", "not empty", "no run"])
def test_wrong_requests_write_nothing(
    run: RunDirectory, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    arguments = {
        "no folder": [f"run={run.path}"],
        "not empty": [f"run={run.path}", str(tmp_path / "full")],
        "no run": [f"run={tmp_path / 'nothing'}", str(tmp_path / "out")],
    }[kind]
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(export.start, arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


class LettersRetriever:
    """One of somebody's own: no vectors, no words."""


def test_a_retriever_from_outside_is_told_who_wrote_its_index(run: RunDirectory, tmp_path: Path) -> None:
    opened = reopen(run.path, [])
    opened.request.config.retriever.type = "letters"
    text = export.readme(opened, LettersRetriever(), tmp_path, "encoder")  # type: ignore[arg-type]
    assert f"`{__name__}.LettersRetriever.save` wrote" in text
    assert "```python" not in text
    assert "passages.parquet" in text
