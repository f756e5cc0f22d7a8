"""A finished run's parts, opened by the tools they are for."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rag_experiments import ask, export
from rag_experiments.config import command_line
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training.reopen import reopen
from tests.conftest import write_small_data
from tests.numeric import assert_near
from tests.training.test_run import request, run_at

QUESTION = "where is the red cat one"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> RunDirectory:
    root = tmp_path_factory.mktemp("export")
    more = ("trainer.max_steps=1", "evaluation.zero_shot=false", "model.query_prefix='the '")
    return run_at(root / "run", request(tiny_bert, write_small_data(root / "data"), root, *more))


@pytest.mark.parametrize("retriever", ["faiss_flat", "faiss_hnsw", "hybrid"])
def test_the_readme_works_and_finds_what_ask_finds(
    run: RunDirectory, retriever: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    changes = [f"retriever={retriever}", "model.precision=fp32"]
    assert export.start([f"run={run.path}", str(target), *changes]) == 0
    monkeypatch.chdir(target)
    blocks = re.findall(r"```python\n(.*?)```", (target / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == (2 if retriever == "hybrid" else 1)
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(re.sub(r'\["where .*?"\]', f'["{QUESTION}"]', block), {})
        if retriever != "hybrid":
            found = ask.reply(ask.open_parts(run.path, changes), QUESTION).passages
            shown = [line.split()[:2] for line in printed.getvalue().splitlines()]
            assert_near([float(s) for s, _ in shown], [float(score) for score, _ in found])
            assert {name for _, name in shown} == {passage.id for _, passage in found}


def test_passages_are_in_the_rows_of_the_index(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PARQUET_BLOCK", 7)  # 40 passages: whole blocks and a part of one
    assert export.start([f"run={run.path}", str(tmp_path / "out")]) == 0
    table = pq.read_table(tmp_path / "out" / "passages.parquet")
    assert table.column_names == ["id", "title", "text"]
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


def test_a_retriever_from_outside_is_told_who_wrote_its_index(run: RunDirectory) -> None:
    opened = reopen(run.path, [])
    opened.request.config.retriever.type = "letters"
    text = export.readme(opened, LettersRetriever(), "encoder")  # type: ignore[arg-type]
    assert f"`{__name__}.LettersRetriever.save` wrote" in text
    assert "```python" not in text
    assert "passages.parquet" in text
