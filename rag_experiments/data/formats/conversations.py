"""Rows that hold a question as the last turns of a conversation: chats beside the text that answers them.

{"messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", …}], "context": "…"}
{"prompt": [{"role": "user", …}], "completion": [{"role": "assistant", …}], "context": "…"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag_experiments.data.bad_row import BadRow
from rag_experiments.data.records import Turn
from rag_experiments.data.row_fields import turns_of


@dataclass(frozen=True)
class Exchange:
    """The last question of a conversation."""

    question: str
    answer: str
    """What was answered; empty where the conversation ends with the question."""
    history: tuple[Turn, ...]
    """The turns before the question, without instructions to the system."""


def is_conversation(value: Any) -> bool:
    """Whether a cell holds turns: a list of objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def last_exchange(value: Any, name: str) -> Exchange:
    """The last question in the conversation of the column `name`.

    Raises:
        BadRow: a turn has no role or no text, or no turn is the user's.
    """
    turns = [turn for turn in turns_of({name: value}, name) if turn.role != "system"]
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        raise BadRow(f"{name!r} is a conversation without a turn of the user, so nothing is asked")
    answer = "\n".join(turn.content for turn in turns[last + 1 :])
    return Exchange(turns[last].content, answer, tuple(turns[:last]))


def reply(value: Any, name: str) -> str:
    """The text of the turns of a cell. Raises `BadRow` as `turns_of` does."""
    return "\n".join(turn.content for turn in turns_of({name: value}, name))
