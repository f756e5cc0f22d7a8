"""Import cache, splits, limits, hashes."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import import_data, load_data
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage


def config(folder: Path, **keys: object) -> JsonlConfig:
    return JsonlConfig(path=str(folder), **keys)


def test_imported_once_and_again_when_it_changes(native, tmp_path):
    folder, cache = native(), tmp_path / "cache"
    first = import_data(config(folder), cache)
    stamp = (first / "passages.arrow").stat().st_mtime_ns
    assert import_data(config(folder, dev_fraction=0.2), cache) == first
    copied = shutil.copytree(folder, tmp_path / "elsewhere")
    assert import_data(config(copied), cache) == first, "keyed by content, not by place"
    assert (first / "passages.arrow").stat().st_mtime_ns == stamp
    text = (folder / "passages.jsonl").read_text()
    (folder / "passages.jsonl").write_text(text.replace("text 3", "text three"))
    assert import_data(config(folder), cache) != first


def test_titles_false(native, tmp_path):
    folder, cache = native(), tmp_path / "cache"
    with_titles, without = load_data(config(folder), cache), load_data(config(folder, titles=False), cache)
    assert with_titles.passages[0].title == "Title 0"
    assert without.passages[0].title == ""
    assert with_titles.corpus_hash != without.corpus_hash
    assert without.passages.full_texts([0]) == ["This is text 0."]


def _load(arguments: tuple[Path, Path]) -> str:
    return load_data(config(arguments[0]), arguments[1]).content_hash


def test_many_processes_import_at_once(native, tmp_path):
    folder, cache = native(), tmp_path / "cache"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        hashes = pool.map(_load, [(folder, cache)] * 6)
        pool.close()
        pool.join()  # ended by themselves: one that handles SIGTERM, as under coverage, can miss that of `terminate`
    assert len(set(hashes)) == 1
    assert len(list((cache / "data").glob("*/manifest.json"))) == 1


def test_missing_splits_are_cut_by_gold_passage(native, tmp_path):
    passages = [{"id": f"p{n}", "text": f"text {n % 30}"} for n in range(60)]  # p0 and p30 are one text
    train = [{"question": f"question {n}", "positive_ids": [f"p{n % 60}"]} for n in range(240)]
    data = load_data(config(native(passages=passages, train=train, dev=None, test=None)), tmp_path / "cache")
    sizes = {name: len(questions) for name, questions in data.splits.items()}
    assert sum(sizes.values()) == 240
    assert sizes["dev"] == 24
    assert sizes["test"] == 24
    texts = {
        name: {data.passages[int(row)].text for q in questions for row in data.passages.rows(q.positive_ids)}
        for name, questions in data.splits.items()
    }
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]
    assert not texts["dev"] & texts["test"]
    assert "240 copies of gold passages are gold too" in data.notes[1]
    assert len(data.notes) == 4
    assert "no dev split was given: 24 of 240 questions" in data.notes[-2]
    again = load_data(config(tmp_path / "native"), tmp_path / "cache")
    assert again.content_hash == data.content_hash
    other = load_data(config(tmp_path / "native", split_seed=1), tmp_path / "cache")
    assert other.content_hash != data.content_hash
    assert other.corpus_hash == data.corpus_hash


def test_given_splits_stay(native, tmp_path):
    data = load_data(config(native(test=None)), tmp_path / "cache")
    assert [q.id for q in data.splits["dev"]] == ["q8", "q9"]
    assert len(data.splits["train"]) + len(data.splits["test"]) == 8
    assert len(data.splits["test"]) == 1


def test_no_split_can_be_cut(native, tmp_path):
    train = [{"question": f"question {n}", "positive_ids": ["p0"]} for n in range(9)]
    with pytest.raises(RequestError, match="no dev and no test split, and none can be cut"):
        load_data(config(native(train=train, dev=None, test=None)), tmp_path / "cache")


def test_one_large_group_does_not_become_dev(native, tmp_path):
    train = [{"question": f"question {n}", "positive_ids": ["p0" if n < 30 else f"p{n % 11 + 1}"]} for n in range(60)]
    for seed in range(5):
        data = load_data(config(native(train=train, dev=None, test=None), split_seed=seed), tmp_path / "cache")
        assert len(data.splits["train"]) > 40


def test_same_question_twice_stays_on_one_side(native, tmp_path):
    train = [{"question": f"Question {n % 20}", "answers": ["x"]} for n in range(40)]
    data = load_data(config(native(train=train, dev=None, test=None)), tmp_path / "cache")
    sides = [{q.question for q in questions} for questions in data.splits.values()]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_overlap_of_given_splits_is_said(native, tmp_path):
    data = load_data(config(native(test=[{"question": "what is  0?"}])), tmp_path / "cache")
    assert data.notes == ["1 of the 1 test questions are asked in train as well"]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_limit_is_another_data_set(split, native, tmp_path):
    """How a limit chooses is in test_load_rules.py."""
    folder = native()
    data = load_data(config(folder, **{f"max_{split}": 1}), tmp_path / "cache")
    assert len(data.splits[split]) == 1
    assert data.content_hash != load_data(config(folder), tmp_path / "cache").content_hash


def test_only_dev_can_be_loaded(native, tmp_path):
    data = load_data(config(native(train=None, test=None)), tmp_path / "cache")
    assert data.splits["train"] == []
    assert len(data.splits["dev"]) == 2


def test_same_ids_in_two_splits_are_two_questions(native, tmp_path):
    rows = [{"id": "1", "question": "one?", "positive_ids": ["p1"]}]
    other = [{"id": "1", "question": "two?", "positive_ids": ["p2"]}]
    data = load_data(config(native(train=rows, dev=other)), tmp_path / "cache")
    assert data.splits["train"][0].question == "one?"
    assert data.splits["dev"][0].question == "two?"
    assert data.places["train"]["1"] == "train.jsonl:1"
    assert data.places["dev"]["1"] == "dev.jsonl:1"


def test_unwritable_cache(native, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RequestError, match=r"paths\.cache="):
        load_data(config(native()), tmp_path / "cache")


def test_store_finds_rows_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("rag_experiments.data.passage_store.BLOCK", 7)
    passages = [Passage(f"id {n}", f"text {n}", "" if n % 2 else f"title {n}") for n in range(100)]
    assert write_passages(tmp_path, iter(passages)) == 100
    store = pickle.loads(pickle.dumps(PassageStore(tmp_path)))
    assert list(store) == passages
    assert [store[n] for n in range(100)] == passages
    rows = np.random.default_rng(0).permutation(100)
    assert (store.rows([f"id {n}" for n in rows]) == rows).all()
    assert store.ids(rows) == [f"id {n}" for n in rows]
    assert store.full_texts(slice(0, 2)) == ["title 0\ntext 0", "text 1"]
    assert store[-1] == passages[-1]
    assert "id 5" in store
    assert "id 100" not in store
    with pytest.raises(KeyError, match="nobody"):
        store.rows(["id 1", "nobody"])
    with pytest.raises(IndexError):
        store[100]


def test_ids_with_the_same_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("rag_experiments.data.passage_store.hash_id", lambda value: 7)
    write_passages(tmp_path, [Passage("a", "1"), Passage("b", "2"), Passage("c", "3"), Passage("b", "4")])
    store = PassageStore(tmp_path)
    assert store.rows(["c", "a"]).tolist() == [2, 0]
    assert store.missing(["a", "d"]) == ["d"]
    assert store.repeated_rows() == [(1, 3)]


def test_content_hash_sees_every_field(tmp_path):
    hashes = set()
    for number, passage in enumerate(
        [
            Passage("a", "b", "c"),
            Passage("x", "b", "c"),
            Passage("a", "x", "c"),
            Passage("a", "b", "x"),
            Passage("a", "bc"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_passages(folder, [passage])
        hashes.add(PassageStore(folder).content_hash)
    assert len(hashes) == 5
