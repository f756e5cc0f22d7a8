"""Passages with one content under several ids, and rows that ask the same: one passage, one question."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rag_experiments.data import check
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import load_data
from rag_experiments.evaluation.ranking import gold_grades, one_of_each, ranking_metrics
from tests.data.conftest import write_jsonl


def twice(native, **files) -> Path:
    """Each passage stands under two ids, the second time in another spelling."""
    passages = [
        row
        for n in range(12)
        for row in (
            {"id": f"p{n}", "title": "T", "text": f"Text {n}."},
            {"id": f"c{n}", "title": "t", "text": f"text  {n}."},
        )
    ]
    return native(passages=passages, **files)


def load(folder: Path, tmp_path: Path, **keys):
    return load_data(JsonlConfig(path=str(folder), **keys), tmp_path / "cache")


def test_a_golds_copies_are_gold_not_negatives_and_that_is_said(native, tmp_path):
    train = [
        {"question": "a?", "positive_ids": ["p1"], "negative_ids": ["c1", "p2"]},
        {"question": "b?", "positive_ids": ["p2"], "relevance": {"c2": 3, "p2": 1, "p4": 0}},
        {"question": "c?", "positive_ids": ["c3", "p3"]},
        {"question": "d?"},
    ]
    data = load(twice(native, train=train), tmp_path)
    first, graded, both, bare = data.splits["train"]
    assert (first.positive_ids, first.negative_ids, first.distinct_golds) == (("p1", "c1"), ("p2",), ("p1",))
    assert graded.relevance == {"c2": 3, "p2": 3, "p4": 0}
    assert graded.positive_ids == ("p2", "c2")
    assert (both.positive_ids, both.distinct_golds) == (("c3", "p3"), ("c3",))
    assert not bare.positive_ids
    assert not bare.copies
    notes = " | ".join(data.notes)
    assert "12 passages have the title and text of another passage under another id" in notes
    assert "6 copies of gold passages are gold too" in notes
    assert "1 listed negatives are copies of a gold passage" in notes
    again = load(tmp_path / "native", tmp_path)
    assert [q.copies for q in again.splits["train"]] == [{"c1": "p1"}, {"c2": "p2"}, {"p3": "c3"}, {}]


def test_titles_decide_only_where_they_are_read(native, tmp_path):
    passages = [{"id": "a", "title": "One", "text": "Same."}, {"id": "b", "title": "Two", "text": "Same."}]
    rows = [{"question": f"{n}?", "positive_ids": ["a"]} for n in range(3)]
    folder = native(passages=passages, train=rows[:1], dev=rows[1:2], test=rows[2:])
    golds = {titles: load(folder, tmp_path, titles=titles).splits["train"][0].positive_ids for titles in (True, False)}
    assert golds == {True: ("a",), False: ("a", "b")}


def test_copies_are_one_in_every_ranking_metric():
    """As if the corpus held each gold text once, under the place where it is first found."""
    random.seed(0)
    for _ in range(200):
        texts = [random.randrange(6) for _ in range(12)]
        ids = [f"i{n}" for n in range(12)]
        first = {text: ids[texts.index(text)] for text in set(texts)}
        wanted = set(random.sample(sorted(first), min(len(first), random.randint(1, 3))))
        gold = {ids[n]: 1 for n in range(12) if texts[n] in wanted}
        copies = {ids[n]: first[texts[n]] for n in range(12) if texts[n] in wanted and first[texts[n]] != ids[n]}
        ranked = random.sample(ids, random.randint(0, 12))
        seen: set[int] = set()
        places = [
            0 if texts[ids.index(i)] in seen else (seen.add(t) or (t in wanted))
            for i in ranked
            if (t := texts[ids.index(i)]) is not None
        ]
        ((metrics),) = ranking_metrics(*([value] for value in one_of_each(gold, ranked, copies)), {1, 4})
        for k in (1, 4):
            assert metrics[f"recall@{k}"] == pytest.approx(sum(places[:k]) / len(wanted))
            assert metrics[f"hit@{k}"] == float(any(places[:k]))
        assert metrics["mrr@10"] == pytest.approx(next((1 / r for r, p in enumerate(places[:10], 1) if p), 0))


def test_rows_that_ask_the_same_pool_what_they_know(native, tmp_path, capsys):
    train = [
        {"question": "Where?", "answers": ["x"], "positive_ids": ["p1"], "negative_ids": ["p2", "p3"]},
        {"question": "where? ", "answers": ["y", "x"], "positive_ids": ["p2"], "candidate_ids": ["p5"]},
        {"question": "Where?", "positive_ids": ["p4"], "history": [{"role": "user", "content": "Hi"}]},
        {"id": "same", "question": "Who?", "positive_ids": ["p6"], "relevance": {"p6": 2}},
        {"id": "same", "question": "Who?", "positive_ids": ["p7"]},
    ]
    folder = native(train=train)
    data = load(folder, tmp_path)
    pooled, other, graded = data.splits["train"]
    assert (pooled.answers, pooled.positive_ids, pooled.negative_ids) == (("x", "y"), ("p1", "p2"), ("p3",))
    assert pooled.candidate_ids == ("p5",)
    assert other.positive_ids == ("p4",)
    assert graded.relevance == {"p6": 2, "p7": 1}
    assert any("rows ask the same question" in note and "2 times" in note for note in data.notes)
    # The set that `check --fix` writes has the pooled questions.
    status = check.start(
        ["data=jsonl", f"data.path={folder}", "--fix", str(tmp_path / "fixed"), f"paths.cache={tmp_path}"]
    )
    assert status == 0
    assert "no problem found" in capsys.readouterr().out
    fixed = [json.loads(line) for line in (tmp_path / "fixed" / "train.jsonl").read_text().splitlines()]
    assert [row["positive_ids"] for row in fixed] == [["p1", "p2"], ["p4"], ["p6", "p7"]]


def test_one_wording_about_two_articles_is_two_questions(tmp_path):
    articles = [
        {"title": f"T{n}", "paragraphs": [{"context": f"{n} was born in town{n}.", "qas": [
            {"id": f"{n}", "question": "Where was she born?", "answers": [{"text": f"town{n}", "answer_start": 14}]},
            {"id": f"{n}-2", "question": f"Who is {n}?", "answers": [{"text": f"{n}", "answer_start": 0}]}]}]}
        for n in range(3)
    ]  # fmt: skip
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": articles}))
    data = load_data(HubConfig(path=str(tmp_path), preset="squad"), tmp_path / "cache")
    assert len(data.splits["train"]) == 6
    rows = [{"question": "Where was she born?", "context": f"{n} was born.", "title": f"T{n}"} for n in range(3)]
    write_jsonl(
        tmp_path / "pairs" / "train.jsonl", [*rows, *({"question": f"{n}?", "context": f"c{n}"} for n in range(9))]
    )
    columns = HubColumns(id=None, answers=None)
    data = load_data(HubConfig(path=str(tmp_path / "pairs"), columns=columns), tmp_path / "cache")
    (pooled,) = [q for questions in data.splits.values() for q in questions if q.question == "Where was she born?"]
    assert len(pooled.positive_ids) == 3
    assert gold_grades(pooled) == dict.fromkeys(pooled.positive_ids, 1)


def test_a_gold_passage_below_its_copy_stays_what_it_is_called_in_the_list():
    """Its copy was found first and stands for it; no passage is in the list twice."""
    grades, ranked = one_of_each({"gold": 1}, ["copy", "other", "gold"], {"copy": "gold"})
    assert grades == {"gold": 1}
    assert ranked == ["gold", "other", "copy"]
    _, ranked = one_of_each({"gold": 1}, ["copy", "second", "gold"], {"copy": "gold", "second": "gold"})
    assert ranked == ["gold", "second", "copy"]
