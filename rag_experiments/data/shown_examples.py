"""The first questions in a line each, so that a wrong mapping of columns is seen before anything is trained."""

from __future__ import annotations

from rag_experiments.data.load import RagData
from rag_experiments.data.records import Question

EXAMPLES = 3
LONGEST = 70
"""Characters of a text that are shown."""


def example_lines(data: RagData, count: int = EXAMPLES) -> list[str]:
    """`count` questions of the first split that has any, each with an answer and the beginning of a gold passage."""
    questions = next((some for some in data.splits.values() if some), [])
    return [_line(data, question) for question in questions[:count]]


def _line(data: RagData, question: Question) -> str:
    parts = [f"question {_beginning(question.question)}"]
    if question.answers:
        parts.append(f"answer {_beginning(question.answers[0])}")
    if question.positive_ids:
        (row,) = data.passages.rows(question.positive_ids[:1])
        parts.append(f"passage {_beginning(data.passages[int(row)].full_text)}")
    return " | ".join(parts)


def _beginning(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= LONGEST else f"{flat[: LONGEST - 1]}…")
