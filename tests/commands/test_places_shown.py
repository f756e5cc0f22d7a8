"""Runs over passages without ids: what people see of them, and that nothing that is measured depends on it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import rag_experiments as rag
from rag_experiments import ask, export
from rag_experiments.comparison.records.run_records import load_runs
from rag_experiments.data import check, mine
from rag_experiments.data.tools.native_writer import question_row
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training.reopen import reopen
from tests.conftest import write_jsonl, write_small_data
from tests.training.test_run import request, run_at, weights

FIRST = "train.jsonl:1.positive_passages[0]"


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def without_ids(native: Path, folder: Path) -> Path:
    """The native data set as rows of `data=tevatron` that hold texts and no passage's id."""
    folder.mkdir()
    texts = {row["id"]: {"title": row["title"], "text": row["text"]} for row in lines(native / "passages.jsonl")}
    for split in ("train", "dev", "test"):
        rows = [
            {
                "query_id": row["id"],
                "query": row["question"],
                "answers": row["answers"],
                "positive_passages": [texts[value] for value in row["positive_ids"]],
                "negative_passages": [texts[value] for value in row["negative_ids"]],
            }
            for row in lines(native / f"{split}.jsonl")
        ]
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def rows_of_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rows_of_texts")
    return without_ids(write_small_data(root / "native"), root / "data")


@pytest.fixture(scope="module")
def run(rows_of_texts: Path, tiny_bert: Path) -> RunDirectory:
    root = rows_of_texts.parent
    return run_at(root / "places", request(tiny_bert, rows_of_texts, root, "data=tevatron", "trainer.max_steps=4"))


@pytest.fixture(scope="module")
def by_hash(run: RunDirectory, tiny_bert: Path) -> RunDirectory:
    """A run over files of an earlier version, in which ids are the hashes."""
    root = run.path.parent
    data = reopen(run.path, []).request.data
    folder = root / "hashes"
    folder.mkdir()
    write_jsonl(folder / "passages.jsonl", [{"id": p.id, "title": p.title, "text": p.text} for p in data.passages])
    for split, questions in data.splits.items():
        write_jsonl(folder / f"{split}.jsonl", [question_row(question, {}) for question in questions])
    return run_at(root / "hashed", request(tiny_bert, folder, root, "trainer.max_steps=4"))


def test_weights_and_figures_do_not_depend_on_what_is_shown(run, by_hash):
    first, second = weights(run), weights(by_hash)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    figures = [
        {name: value for name, value in one.read_final_metrics().items() if "@" in name} for one in (run, by_hash)
    ]
    assert figures[0] == figures[1]
    assert len(figures[0]) > 20
    statuses = [one.read_status() for one in (run, by_hash)]
    assert [status["data_hash"] for status in statuses] == [statuses[0]["data_hash"]] * 2


def test_both_runs_compare_and_were_asked_the_same(run, by_hash):
    records = load_runs([run.path, by_hash.path])
    for stage in ("zero_shot/dev", "test", "baseline/bm25/test"):
        first, second = (record.comparable_key(stage) for record in records)
        assert first == second
        assert not first[1].startswith("unknown")


def test_predictions_hold_places_and_their_hashes(run, by_hash):
    for stage in ("zero_shot/dev", "dev", "test", "baseline/bm25/test"):
        for row, other in zip(run.read_predictions(stage), by_hash.read_predictions(stage), strict=True):
            assert all(".jsonl:" in value for value in row["retrieved_ids"] + row["gold_ids"])
            for name in ("retrieved_ids", "gold_ids"):
                assert [row["hashed_as"][value] for value in row[name]] == other[name]
            assert "hashed_as" not in other
            assert row["metrics"] == other["metrics"]


def test_ask_and_python_show_places(run, capsys):
    assert ask.start([f"run={run.path}", "where is the red cat one"]) == 0
    said = [line.split()[2] for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    opened = rag.open_run(run.path)
    assert list(opened.search("where is the red cat one")["id"]) == said
    assert all(one.startswith(("train.jsonl:", "dev.jsonl:", "test.jsonl:")) for one in said)
    assert opened.predictions("dev")["gold_ids"].iloc[0] == [FIRST]


@pytest.mark.parametrize("name", ["run", "by_hash"])
def test_an_exports_passages_and_its_ranked_list_have_one_kind_of_id(name, run, by_hash, tmp_path):
    """Also that of a run of an earlier version, over data that are read again."""
    directory = {"run": run, "by_hash": by_hash}[name]
    changes = ["data=tevatron", f"data.path={run.path.parent / 'data'}"] if name == "by_hash" else []
    assert export.start([f"run={directory.path}", str(tmp_path / "out"), *changes]) == 0
    ids = pq.read_table(tmp_path / "out" / "passages.parquet").column("id").to_pylist()
    assert ids[0] == FIRST
    ranked = (tmp_path / "out" / "run.trec").read_text().splitlines()
    assert {line.split()[2] for line in ranked} <= set(ids)


def test_mined_negatives_are_named_as_the_passages_are(rows_of_texts, tmp_path):
    words = ["data=tevatron", f"data.path={rows_of_texts}", f"paths.cache={tmp_path / 'cache'}", str(tmp_path / "out")]
    assert mine.start([*words, "mine.retrievers=[bm25]", "mine.margin=null", "mine.keep_listed=false"]) == 0
    ids = {row["id"] for row in lines(tmp_path / "out" / "passages.jsonl")}
    rows = lines(tmp_path / "out" / "train.jsonl")
    assert rows[0]["positive_ids"] == [FIRST]
    assert {value for row in rows for value in row["negative_ids"]} <= ids
    assert sum(len(row["negative_ids"]) for row in rows) > 10


def test_check_shows_the_place_of_a_passage_as_it_was_cut(tmp_path, capsys):
    text = " ".join(f"word{number}" for number in range(40))
    write_jsonl(
        tmp_path / "t.jsonl", [{"question": f"{n}?", "context": f"{n} {text}", "answers": "word3"} for n in "abc"]
    )
    words = [str(tmp_path / "t.jsonl"), "data=hub", "data.passage_words=20", f"paths.cache={tmp_path / 'cache'}"]
    check.start(words)
    said = capsys.readouterr().out
    assert "\n  t.jsonl:1#0  " in said
    assert "\n  t.jsonl:1#1  " in said
