"""The one place a retrieval query is made, and what makes two questions the same."""

from __future__ import annotations

from rag_experiments.data.schema import Question
from rag_experiments.text import identity


def retrieval_query(question: Question, mode: str) -> str:
    """The question with the turns before it, a line each.

    Args:
        mode: `data.query_history`: `none` (the question alone), `user` (what the user said before), `all`.
    """
    if mode == "none" or not question.history:
        return question.question
    turns = [turn.content for turn in question.history if mode == "all" or turn.role == "user"]
    return "\n".join([*turns, question.question])


def question_key(question: Question) -> str:
    """What two questions that ask the same have in common: text and history, spelling and spaces aside."""
    turns = [turn.content for turn in question.history]
    return "\n".join(identity(text) for text in [*turns, question.question])
