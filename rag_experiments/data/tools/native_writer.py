"""Write any data set in the native format; `data=jsonl` reads it back as the same data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_experiments.core.files import atomic_directory, atomic_write_jsonl
from rag_experiments.data.records import Passage, Question
from rag_experiments.data.shown_ids import HASHED_AS


def write_native(folder: Path, passages: Iterable[Passage], splits: Mapping[str, Iterable[Question]]) -> None:
    """Write `passages.jsonl` and one file for each split with questions; all of them or none is written."""
    with atomic_directory(folder) as making:
        write_files(making, passages, splits)


def write_files(folder: Path, passages: Iterable[Passage], splits: Mapping[str, Iterable[Question]]) -> None:
    """As `write_native`, each file by itself, into a folder that may hold other files."""
    names: dict[str, str] = {}

    def passage_rows() -> Iterator[dict[str, Any]]:
        for passage in passages:
            if passage.place:
                names[passage.id] = passage.place
            yield passage_row(passage)

    atomic_write_jsonl(folder / "passages.jsonl", passage_rows())
    for split, questions in splits.items():
        rows = [question_row(question, names) for question in questions]
        if rows:
            atomic_write_jsonl(folder / f"{split}.jsonl", rows)


def passage_row(passage: Passage) -> dict[str, Any]:
    """A line of `passages.jsonl`."""
    title = {"title": passage.title} if passage.title else {}
    hashed = {HASHED_AS: passage.id} if passage.place else {}
    return {"id": passage.shown_id, **title, "text": passage.text, **hashed}


def question_row(question: Question, names: Mapping[str, str]) -> dict[str, Any]:
    """A line of `train.jsonl`: the fields of the question that are not empty.

    Args:
        names: what people see in place of the id, for those passages that are not shown by their id.
    """
    return {"id": question.id, "question": question.question, **dict(_fields(question, names))}


def _fields(question: Question, names: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    if question.answers:
        yield "answers", list(question.answers)
    for name in ("positive_ids", "negative_ids", "candidate_ids"):
        if getattr(question, name):
            yield name, [names.get(value, value) for value in getattr(question, name)]
    if question.history:
        yield "history", [{"role": turn.role, "content": turn.content} for turn in question.history]
    if question.relevance is not None:
        yield "relevance", {names.get(value, value): grade for value, grade in question.relevance.items()}
    if question.scores:
        yield "scores", {names.get(value, value): score for value, score in question.scores.items()}
