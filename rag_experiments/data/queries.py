"""How a retrieval query is made from a question, and when two questions are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag_experiments.core.text import identity
from rag_experiments.data.records import Question


class Query(str):
    """A retrieval query that knows its parts, so that shortening it drops earlier turns and not the question.

    Attributes:
        question: the last line(s).
        turns: the earlier turns before the question, oldest first.
    """

    question: str
    turns: tuple[str, ...]

    def __new__(cls, question: str, turns: Sequence[str] = ()) -> Query:
        query = super().__new__(cls, "\n".join([*turns, question]))
        query.question, query.turns = question, tuple(turns)
        return query

    def __getnewargs__(self) -> tuple[str, tuple[str, ...]]:  # type: ignore[override]
        return self.question, self.turns

    def without_oldest(self) -> Query:
        """The query without its oldest turn."""
        return Query(self.question, self.turns[1:])


def query_parts(query: str) -> list[str]:
    """The earlier turns and the question: queries that read alike may be cut differently, and are not the same."""
    return [*query.turns, query.question] if isinstance(query, Query) else [query]


def shortened(queries: Sequence[str], too_long: Callable[[list[str]], list[bool]]) -> list[str]:
    """Shorten queries until they fit: the oldest turns are dropped one by one, but never the question.

    Args:
        too_long: returns, for each query, whether it is too long.

    A question that is too long without any turn is returned as it is; the tokenizer later cuts its end.
    """
    fitting = list(queries)
    pending = {number: query for number, query in enumerate(fitting) if isinstance(query, Query) and query.turns}
    while pending:
        long = too_long(list(pending.values()))
        pending = {
            number: query.without_oldest() for (number, query), one in zip(pending.items(), long, strict=True) if one
        }
        fitting = [pending.get(number, query) for number, query in enumerate(fitting)]
        pending = {number: query for number, query in pending.items() if query.turns}
    return fitting


def retrieval_query(question: Question, mode: str) -> str:
    """The question with the turns before it, one line per turn.

    Args:
        mode: `data.query_history`: `none` (the question alone), `user` (what the user said before), `all`.
    """
    if mode == "none" or not question.history:
        return question.question
    turns = [turn.content for turn in question.history if mode == "all" or turn.role == "user"]
    return Query(question.question, turns)


def question_key(question: Question) -> str:
    """A key that is equal for two questions with the same text and history, ignoring spelling variants and spaces."""
    turns = [turn.content for turn in question.history]
    return "\n".join(identity(text) for text in [*turns, question.question])
