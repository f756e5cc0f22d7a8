"""Write any data set in the native format; `data=jsonl` reads it back as the same data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_experiments.core.files import atomic_directory, atomic_write_jsonl
from rag_experiments.data.records import Passage, Question


def write_native(folder: Path, passages: Iterable[Passage], splits: Mapping[str, Iterable[Question]]) -> None:
    """Write `passages.jsonl` and one file for each split with questions; all of them or none is written."""
    with atomic_directory(folder) as making:
        atomic_write_jsonl(making / "passages.jsonl", map(passage_row, passages))
        for split, questions in splits.items():
            rows = [question_row(question) for question in questions]
            if rows:
                atomic_write_jsonl(making / f"{split}.jsonl", rows)


def passage_row(passage: Passage) -> dict[str, Any]:
    """A line of `passages.jsonl`."""
    title = {"title": passage.title} if passage.title else {}
    return {"id": passage.id, **title, "text": passage.text}


def question_row(question: Question) -> dict[str, Any]:
    """A line of `train.jsonl`: the fields of the question that are not empty."""
    return {"id": question.id, "question": question.question, **dict(_fields(question))}


def _fields(question: Question) -> Iterator[tuple[str, Any]]:
    for name in ("answers", "positive_ids", "negative_ids", "candidate_ids"):
        if getattr(question, name):
            yield name, list(getattr(question, name))
    if question.history:
        yield "history", [{"role": turn.role, "content": turn.content} for turn in question.history]
    if question.relevance is not None:
        yield "relevance", dict(question.relevance)
    if question.scores:
        yield "scores", dict(question.scores)
