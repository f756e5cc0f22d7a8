"""Conversations about a text, and sets in one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.load import RagData, load_data
from rag_experiments.data.records import Question, Turn
from tests.data.conftest import write_jsonl

TEXT = "{who} had a red boat. One day it sank. "


def read(tmp_path: Path, values: list[Any], preset: str, suffix: str = "json", **keys: Any) -> RagData:
    for name, value in zip(("train", "dev", "test"), values, strict=True):
        write_jsonl(tmp_path / "set" / f"{name}.{suffix}", [value])
    return load_data(HubConfig(path=str(tmp_path / "set"), preset=preset, **keys), tmp_path / "cache")  # type: ignore[arg-type]


TURNS = [("What had she?", "a red boat"), ("What became of it?", "sank"), ("Why?", None), ("When?", "One day")]


def quac(who: str, nested: bool) -> dict[str, Any]:
    text = TEXT.format(who=who)
    answers = [answer or "CANNOTANSWER" for _, answer in TURNS]
    context = f"{text}CANNOTANSWER"
    entries = [{"text": answer, "answer_start": float(context.index(answer))} for answer in answers]
    if not nested:
        listed = {"texts": [[a, a] for a in answers], "answer_starts": [[e["answer_start"]] * 2 for e in entries]}
        said = {"texts": answers, "answer_starts": [e["answer_start"] for e in entries]}
        row = {"dialogue_id": who, "wikipedia_page_title": who, "context": context}
        return {**row, "questions": [question for question, _ in TURNS], "answers": listed, "orig_answers": said}
    questions = [
        {"id": f"{who}_{n}", "question": question, "answers": [entry], "orig_answer": entry, "followup": "y"}
        for n, ((question, _), entry) in enumerate(zip(TURNS, entries, strict=True))
    ]
    return {"data": [{"title": who, "paragraphs": [{"id": who, "context": context, "qas": questions}]}]}


def coqa(who: str, nested: bool) -> dict[str, Any]:
    text = TEXT.format(who=who)
    said = [answer and answer.upper() for _, answer in TURNS]
    spans = [-1 if answer is None else text.index(answer) for _, answer in TURNS]
    questions = [question for question, _ in TURNS]
    if not nested:
        answers = {"input_text": [a or "unknown" for a in said], "answer_start": spans, "answer_end": spans}
        return {"source": "own", "story": text, "questions": questions, "answers": answers}
    listed = [{"input_text": a or "unknown", "span_start": s, "turn_id": 1} for a, s in zip(said, spans, strict=True)]
    more = [{"input_text": f"more {n}", "span_start": 0} for n in range(4)]
    story = {"id": who, "story": text, "questions": [{"input_text": q} for q in questions], "answers": listed}
    return {"version": "1.0", "data": [{**story, "additional_answers": {"0": more}}]}


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("kind", ["quac", "coqa"])
def test_a_conversation_gives_each_question_the_turns_before_it(kind, nested, tmp_path):
    values = [{"quac": quac, "coqa": coqa}[kind](who, nested) for who in ("Ann", "Bea", "Cleo")]
    data = read(tmp_path, values, kind, "json" if nested else "jsonl", passage_words=10)
    words = [answer.upper() if kind == "coqa" and answer else answer for _, answer in TURNS]
    asked = data.splits["train"]
    assert [q.question for q in asked] == ["What had she?", "What became of it?", "When?"]
    assert [q.answers[0] for q in asked] == [word for word in words if word]
    assert asked[0].history == ()
    assert asked[2].history == (
        *(Turn("user", TURNS[0][0]), Turn("assistant", words[0])),
        *(Turn("user", TURNS[1][0]), Turn("assistant", words[1])),
        Turn("user", "Why?"),
    )
    if kind == "coqa" and nested:
        assert asked[0].answers == ("A RED BOAT", "more 0")
    assert not any("CANNOTANSWER" in text for text in data.passages.full_texts(slice(None)))
    assert any("a question has no answer in its context, and is left out (3 times" in note for note in data.notes)


def test_coqa_finds_gold_where_the_span_stands(tmp_path):
    """Its answers are said in other words than the text's."""
    stories = [coqa(" ".join(f"{who}{n}" for n in range(31)), True) for who in ("Ann", "Bea", "Cleo")]
    data = read(tmp_path, stories, "coqa", passage_words=20)
    (late,) = [q for q in data.splits["train"] if q.question == "When?"]
    (text,) = data.passages.full_texts(data.passages.rows(late.positive_ids))
    assert "One day" in text


def test_quac_is_recognised_where_squad_is_said_and_coqa_named(tmp_path):
    data = read(tmp_path, [quac(who, True) for who in ("Ann", "Bea", "Cleo")], "squad")
    assert len(data.splits["train"][2].history) == 5
    with pytest.raises(RequestError, match=r"data\.preset=coqa"):
        read(tmp_path, [coqa(who, True) for who in ("Ann", "Bea", "Cleo")], "squad")
    path = write_jsonl(tmp_path / "train.jsonl", [coqa("Ann", False)])
    columns = HubColumns(question="questions", context="story", answers=None, id=None)
    with pytest.raises(RequestError, match=r"train.jsonl:1: 'questions' is a list .* data.preset=coqa"):
        load_data(HubConfig(path=str(path), columns=columns), tmp_path)


@pytest.mark.parametrize(
    ("preset", "row", "why"),
    [
        ("coqa", {"story": "A b."}, "there is no list 'questions'"),
        ("coqa", {"story": "A b.", "questions": ["x?"], "answers": []}, "'answers' must hold as many as there are"),
        ("coqa", {"story": "A b.", "questions": ["x?"], "answers": ["a"]}, "an answer is an object with 'input_text'"),
        ("coqa", {"story": "A b.", "questions": [3], "answers": [{}]}, "and one is 3"),
        (
            "quac",
            {"context": "A b.", "questions": ["x?"], "answers": {"texts": []}},
            "'answers.texts' must be a list of 1",
        ),
        ("quac", {"context": "A b.", "questions": "x?"}, "'questions' must be a list"),
    ],
)
def test_a_conversation_that_is_none_is_refused(preset, row, why, tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [row])
    with pytest.raises(RequestError, match=r"train\.jsonl:1: ") as refused:
        load_data(HubConfig(path=str(path), preset=preset), tmp_path / "cache")
    assert why in str(refused.value)


def test_squads_question_ids_may_begin_anew_and_offsets_be_text(tmp_path):
    articles = [
        {"title": f"T{n}", "paragraphs": [{"context": f"It is {n}, and more.", "qas": [
            {"id": "q1", "question": f"What is {n}?", "answers": [{"text": str(n), "answer_start": start}]}]}]}
        for n, start in enumerate(["6", 6.0, " 6.0 ", None, float("nan"), 6] * 2)
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({"data": articles}))
    data = load_data(HubConfig(path=str(tmp_path / "a.json"), preset="squad"), tmp_path / "cache")
    ids = {q.id for questions in data.splits.values() for q in questions}
    assert ids == {"q1", *(f"{n}-q1" for n in range(1, 12))}
    assert any("a question has the id of a question in another article" in note for note in data.notes)
    assert not any("offset" in note for note in data.notes)


# -- sets in one object --------------------------------------------------------------------------------


def question_set(**more: Any) -> dict[str, Any]:
    corpus = {f"d{n}": f"Text {n}." for n in range(4)}
    return {
        "queries": {"q1": "One?", "q2": "Two?", "q3": "Nothing?"},
        "corpus": {**corpus, "d4": {"title": "T", "text": "x"}},
        "relevant_docs": {"q1": ["d1"], "q2": ["d2", "d4"], "q3": []},
        **more,
    }


def test_question_sets_of_llamaindex_and_sentence_transformers_are_read(tmp_path):
    data = read(tmp_path, [question_set(mode="text")] * 3, "columns")
    assert data.splits["train"] == [
        Question("q1", "One?", positive_ids=("d1",)),
        Question("q2", "Two?", positive_ids=("d2", "d4")),
    ]
    assert len(data.passages) == 5
    assert any("a query has no passage that is judged above 0" in note for note in data.notes)
    graded = question_set(relevant_docs={"q1": {"d1": 2, "d2": 0}}, answers={"q1": "yes"})
    (one,) = read(tmp_path, [graded] * 3, "columns").splits["train"]
    assert (one.relevance, one.positive_ids, one.answers) == ({"d1": 2, "d2": 0}, ("d1",), ("yes",))
    lists = {"anchors": ["a?", "b?"], "positives": ["A", ["B", "BB"]], "negatives": ["C", "A"]}
    first, second = read(tmp_path, [lists] * 3, "columns").splits["dev"]
    assert (len(first.positive_ids), len(second.positive_ids)) == (1, 2)
    assert second.negative_ids == first.positive_ids


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (question_set(relevant_docs={"q1": ["nowhere"]}), "and no passage has that id"),
        (question_set(relevant_docs={"q1": 3}), "its judgements must be a list of ids"),
        (question_set(relevant_docs=None), "no object 'relevant_docs' with their judgements"),
        (question_set(corpus={"d1": 5}), "a passage is a text, or an object with 'text'"),
        ({"anchors": ["a?"], "positives": []}, "the lists differ in length"),
    ],
)
def test_a_question_set_that_is_wrong_is_refused(value, why, tmp_path):
    with pytest.raises(RequestError, match=why):
        read(tmp_path, [value] * 3, "columns")
