"""Every key of every format does what it says: read with it and without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.config import data_formats
from rag_experiments.data.builder import Asked, Intake
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.keyvalue import KeyvalueConfig
from rag_experiments.data.formats.localrqa import LocalrqaConfig
from rag_experiments.data.formats.tevatron import TevatronColumns, TevatronConfig
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.records import Turn
from tests.data.conftest import write_jsonl

Read = Callable[..., tuple[dict[str, list[Asked]], PassageStore, list[str]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """What a format hands in, before splits are cut; a problem is an error."""

    def reading(config: Any):
        folder = tmp_path / f"intake{len(list(tmp_path.glob('intake*')))}"
        folder.mkdir()
        intake = Intake(folder, titles=config.titles)
        data_formats.reader(config.format).read(config, intake)
        store = intake.finish()
        return intake.splits, store, intake.notes

    return reading


def only(splits: dict[str, list[Asked]]):
    """The one question of train."""
    (one,) = splits["train"]
    return one.question


# -- DPR and FiD ---------------------------------------------------------------------------------------


def fid_row(**marks: list) -> dict:
    contexts = [
        {"id": f"c{n}", "text": f"text {n}", **{name: values[n] for name, values in marks.items()}} for n in range(3)
    ]
    return {"question": "a?", "answers": ["x"], "ctxs": contexts}


BOTH = {"isgold": [False, True, False], "hasanswer": [False, True, True]}


@pytest.mark.parametrize(
    ("gold", "row", "wanted"),
    [
        ("auto", fid_row(**BOTH), ("c1",)),
        ("auto", fid_row(isgold=[False] * 3, hasanswer=[True] * 3), ()),
        ("auto", fid_row(hasanswer=[True, False, True]), ("c0", "c2")),
        ("auto", fid_row(hasanswer=[1, "true", True]), ("c0", "c1", "c2")),
        ("auto", fid_row(hasanswer=[0, "False", None]), ()),
        ("auto", {**fid_row(**BOTH), "positive_ctxs": [{"id": "p", "text": "p"}]}, ("p",)),
        ("isgold", fid_row(**BOTH), ("c1",)),
        ("isgold", fid_row(hasanswer=[True] * 3), ()),
        ("hasanswer", fid_row(**BOTH), ("c1", "c2")),
        ("first", fid_row(**BOTH), ("c0",)),
        ("first", {**fid_row(**BOTH), "positive_ctxs": [{"id": "p", "text": "p"}]}, ("p", "c0")),
        ("first", {"question": "a?", "ctxs": [], "positive_ctxs": [{"id": "p", "text": "p"}]}, ("p",)),
        ("none", fid_row(**BOTH), ()),
        ("none", {**fid_row(**BOTH), "positive_ctxs": [{"id": "p", "text": "p"}]}, ("p",)),
    ],
)
def test_which_of_fids_contexts_are_gold(gold, row, wanted, read, tmp_path):
    splits, _, _ = read(DprConfig(path=str(write_jsonl(tmp_path / "a.jsonl", [row])), gold=gold))
    assert only(splits).positive_ids == wanted
    assert only(splits).candidate_ids == tuple(context["id"] for context in row["ctxs"])


def test_easy_negatives_are_taken_where_asked(read, tmp_path):
    def context(name):
        return [{"psg_id": name, "text": name}]

    row = {"question": "a?", "positive_ctxs": context("p"), "hard_negative_ctxs": context("h")}
    path = write_jsonl(tmp_path / "a.jsonl", [{**row, "negative_ctxs": context("e")}])
    assert only(read(DprConfig(path=str(path)))[0]).negative_ids == ("h",)
    splits, store, _ = read(DprConfig(path=str(path), easy_negatives=True))
    assert only(splits).negative_ids == ("h", "e")
    assert "e" in store


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({"answers": ["x", " ", "y"]}, ("x", "y")),
        ({"answers": "x"}, ("x",)),
        ({"answer": "x"}, ("x",)),
        ({"target": "x"}, ("x",)),
        ({"answers": ["x"], "target": "y"}, ("x",)),
        ({}, ()),
    ],
)
def test_answers_of_every_shape(answers, wanted, read, tmp_path):
    row = {"question": "a?", "positive_ctxs": ["p"], **answers}
    assert only(read(DprConfig(path=str(write_jsonl(tmp_path / "a.jsonl", [row]))))[0]).answers == wanted


def test_ids_of_questions_and_history(read, tmp_path):
    history = [{"role": "user", "content": "Hm"}]
    rows = [
        {"id": "a", "question_id": "b", "question": "1?", "positive_ctxs": ["p"]},
        {"question_id": 7, "question": "2?", "positive_ctxs": ["p"], "history": history},
        {"question": "3?", "positive_ctxs": ["p"]},
    ]
    splits, store, _ = read(DprConfig(path=str(write_jsonl(tmp_path / "a.jsonl", rows))))
    assert [one.question.id for one in splits["train"]] == ["a", "7", "train-3"]
    assert splits["train"][1].question.history == (Turn("user", "Hm"),)
    assert len(store) == 1, "a passage that comes again is one"


def test_files_say_which_are_splits(read, tmp_path):
    for name in ("one", "two", "train"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"question": f"{name}?", "positive_ctxs": ["p"]}])
    for config in (DprConfig, TevatronConfig):
        keys = (
            {} if config is DprConfig else {"columns": TevatronColumns(question="question", positives="positive_ctxs")}
        )
        splits, _, _ = read(config(path=str(tmp_path), files={"dev": "one.jsonl", "test": "two.jsonl"}, **keys))
        asked = {name: [one.question.question for one in found] for name, found in splits.items()}
        assert asked == {"dev": ["one?"], "test": ["two?"], "train": ["train?"]}
        splits, _, _ = read(config(path=str(tmp_path), files={"train": None, "test": "two.jsonl"}, **keys))
        assert list(splits) == ["test"]


# -- Tevatron ------------------------------------------------------------------------------------------


def tevatron_files(folder: Path, **names: str) -> Path:
    def called(name: str) -> str:
        return names.get(name, getattr(TevatronColumns(), name))

    def passage(number: int) -> dict:
        return {
            called("passage_id"): f"d{number}",
            called("passage_title"): f"title {number}",
            called("passage_text"): f"text {number}",
            called("passage_score"): -1.0,
        }

    write_jsonl(folder / "corpus.jsonl", [passage(n) for n in range(6)])
    row = {
        called("id"): "q",
        called("question"): "a?",
        called("answers"): ["x", " "],
        called("positives"): [passage(0)],
        called("negatives"): [passage(1), passage(0)],
        called("positive_ids"): ["d2"],
        called("negative_ids"): ["d3", 4],
        called("positive_scores"): [9, 7.5],
        called("negative_scores"): [1, 8, None, 0],
    }
    if called("negative_ids") in row:
        row[called("negative_ids")] = ["d3", "d4"]
    return write_jsonl(folder / "train.jsonl", [row])


@pytest.mark.parametrize("name", [None, *(entry.name for entry in fields(TevatronColumns))])
def test_every_column_of_tevatron_can_be_renamed(name, read, tmp_path):
    names = {} if name is None else {name: "other"}
    path = tevatron_files(tmp_path, **names)
    columns = TevatronColumns(**names)
    splits, store, notes = read(TevatronConfig(path=str(path), corpus="corpus.jsonl", columns=columns))
    question = only(splits)
    assert (question.id, question.question, question.answers) == ("q", "a?", ("x",))
    assert question.positive_ids == ("d0", "d2")
    assert question.negative_ids == ("d1", "d3", "d4")
    assert question.scores == {"d0": 9.0, "d1": 1.0, "d2": 7.5, "d4": 0.0}
    assert len(store) == 6
    assert store[5].full_text == "title 5\ntext 5"
    assert any("gold passage is listed as a hard negative" in note for note in notes)


# -- LocalRQA ------------------------------------------------------------------------------------------


def test_localrqa_splits_documents_and_title(read, tmp_path):
    def document(number):
        return {"page_content": f"text {number}", "metadata": {"title": f"t{number}", "source": f"s{number}"}}

    for number, name in enumerate(("train", "eval", "extra")):
        write_jsonl(tmp_path / f"{name}_w_q.jsonl", [{"questions": [f"{name}?"], "gold_docs": [document(number)]}])
    write_jsonl(tmp_path / "all.jsonl", [document(n) for n in range(5)])

    def texts(**keys):
        splits, store, _ = read(LocalrqaConfig(path=str(tmp_path), **keys))
        asked = {
            name: [(one.question.question, *store.full_texts(store.rows(one.question.positive_ids))) for one in found]
            for name, found in splits.items()
        }
        return asked, len(store)

    train, dev, extra = ("train?", "t0\ntext 0"), ("eval?", "t1\ntext 1"), ("extra?", "t2\ntext 2")
    assert texts() == ({"train": [train], "dev": [dev]}, 2)
    assert texts(splits={"train": "eval", "dev": None, "test": "extra"}) == ({"train": [dev], "test": [extra]}, 2)
    assert texts(documents="all.jsonl") == ({"train": [train], "dev": [dev]}, 5)
    assert texts(title="source")[0]["train"] == [("train?", "s0\ntext 0")]
    assert texts(title=None)[0]["train"] == [("train?", "text 0")]
    assert texts(titles=False)[0]["train"] == [("train?", "text 0")]


@pytest.mark.parametrize(
    "turns",
    [
        ["Hello", "Hm"],
        [["Hello", "Hm"]],
        [{"role": "human", "content": "Hello"}, {"role": "ai", "content": "Hm"}],
    ],
)
def test_localrqa_turns(turns, read, tmp_path):
    row = {"question": "a?", "gold_answer": "x", "gold_docs": [{"page_content": "p"}], "chat_history": turns}
    write_jsonl(tmp_path / "train_w_qa.jsonl", [row])
    question = only(read(LocalrqaConfig(path=str(tmp_path)))[0])
    assert question.history == (Turn("user", "Hello"), Turn("assistant", "Hm"))
    assert (question.answers, question.id) == (("x",), "train-qa-1")


# -- any table -----------------------------------------------------------------------------------------

HUB_ROW = {
    "question": "a?",
    "id": "i",
    "answers": {"text": ["two", "two", "three"], "answer_start": [4, 4, 8]},
    "context": "one two three",
    "title": "t",
    "bad": ["other text", "one two three"],
    "turns": [{"role": "user", "content": "Hm"}],
    "part": 7,
}


def hub(tmp_path: Path, read: Read, row: dict[str, Any] | None = None, columns: Any = None, **keys):
    path = write_jsonl(tmp_path / "a.jsonl", [row or HUB_ROW])
    splits, store, _ = read(HubConfig(path=str(path), columns=HubColumns(**(columns or {})), **keys))
    (one,) = splits["train"]
    return one, store


def test_hub_columns_as_they_are(read, tmp_path):
    one, store = hub(tmp_path, read)
    question = one.question
    assert (question.id, question.question, question.answers) == ("i", "a?", ("two", "three"))
    assert store.full_texts(store.rows(question.positive_ids)) == ["t\none two three"]
    assert (question.negative_ids, question.history, one.group) == ((), (), "t")
    one, store = hub(tmp_path, read, columns={"negatives": "bad", "history": "turns", "group": "part"})
    assert store.full_texts(store.rows(one.question.negative_ids)) == ["other text", "one two three"]
    assert (one.question.history, one.group) == ((Turn("user", "Hm"),), "7")


@pytest.mark.parametrize("name", ["question", "id", "answers", "context", "title"])
@pytest.mark.parametrize("other", ["other", "in.side"])
def test_every_hub_column_can_be_renamed(name, other, read, tmp_path):
    plain, store = hub(tmp_path, read)
    row = {key: value for key, value in HUB_ROW.items() if key != name}
    row |= {"other": HUB_ROW[name]} if other == "other" else {"in": {"side": HUB_ROW[name]}}
    renamed, again = hub(tmp_path, read, row, {name: other})
    assert (renamed.question, renamed.group) == (plain.question, plain.group)
    assert list(again) == list(store)


def test_hub_columns_that_are_none(read, tmp_path):
    assert hub(tmp_path, read, columns={"id": None})[0].question.id == "train-1"
    assert hub(tmp_path, read, columns={"answers": None})[0].question.answers == ()
    one, store = hub(tmp_path, read, columns={"title": None})
    assert store[0].title == ""
    assert one.group
    assert one.group != "t", "without a title the context stays together"


WORDS = " ".join(f"w{n}" for n in range(50))


@pytest.mark.parametrize(
    ("keys", "texts"),
    [
        ({"passage_words": None}, [(0, 50)]),
        ({"passage_words": 20}, [(0, 20), (20, 40), (40, 50)]),
        ({"passage_words": 20, "passage_overlap": 5}, [(0, 20), (15, 35), (30, 50)]),
        ({"passage_words": 49}, [(0, 50)]),
        ({}, [(0, 50)]),
    ],
)
def test_hub_passages_are_cut_as_asked(keys, texts, read, tmp_path):
    row = {"question": "a?", "context": WORDS, "answers": "w33"}
    one, store = hub(tmp_path, read, row, **keys)
    words = WORDS.split()
    assert [passage.text for passage in store] == [" ".join(words[first:last]) for first, last in texts]
    (gold,) = store.rows(one.question.positive_ids)
    assert gold == max(n for n, (first, _) in enumerate(texts) if first <= 33), "where the answer begins"


def test_hub_splits_by_article_or_by_passage(read, tmp_path):
    assert hub(tmp_path, read, split_by="article")[0].group == "t"
    assert hub(tmp_path, read, split_by="passage")[0].group is None
    paragraph = {"context": "one two", "qas": [{"question": "a?", "answers": [{"text": "two", "answer_start": 4}]}]}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"title": "T", "paragraphs": [paragraph]}]}))
    for split_by, group in (("article", "T"), ("passage", None)):
        config = HubConfig(path=str(tmp_path / "squad.json"), preset="squad", split_by=split_by)
        ((one,),) = read(config)[0].values()
        assert one.group == group


def test_overlap_is_smaller_than_a_passage():
    assert HubConfig(passage_words=10, passage_overlap=9).passage_overlap == 9
    with pytest.raises(ValueError, match=r"passage_overlap \(10\) must be smaller"):
        HubConfig(passage_words=10, passage_overlap=10)


# -- made on the spot ----------------------------------------------------------------------------------


def test_keyvalue_is_as_large_and_divided_as_asked(read):
    splits, store, _ = read(KeyvalueConfig(size=200, dev_fraction=0.25, test_fraction=0.05))
    assert {name: len(found) for name, found in splits.items()} == {"train": 140, "dev": 50, "test": 10}
    assert len(store) == 200
    assert len({passage.text.rpartition(" keeps ")[0] for passage in store}) == 200, "no key comes twice"


def test_pydocs_methods_and_words(monkeypatch, read):
    from rag_experiments.data.formats import pydocs
    from rag_experiments.data.formats.pydocs import Documented, PydocsConfig

    rest = " ".join(f"word{n}" for n in range(70))
    objects = [
        Documented("a.b", "function", "()", ("Return quite another thing.", rest)),
        Documented("a.C.d", "method", "(self)", ("Return some other thing here.", rest)),
    ]
    monkeypatch.setattr(pydocs, "collect", lambda packages: objects)

    def made(**keys):
        _, store, _ = read(PydocsConfig(**keys))
        return {passage.id: passage.text for passage in store}

    assert made() == {"a.b": f"function b()\n{' '.join(rest.split()[:50])}"}
    assert set(made(methods=True)) == {"a.b", "a.C.d"}
    assert made(max_words=20)["a.b"] == f"function b()\n{' '.join(rest.split()[:20])}"
