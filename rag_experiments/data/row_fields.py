"""Read and check the fields of one row of a user's file; an error message quotes the wrong value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rag_experiments.core.digest import content_digest
from rag_experiments.data.bad_row import BadRow as BadRow
from rag_experiments.data.bad_row import shown as shown
from rag_experiments.data.cells import listed
from rag_experiments.data.records import Turn

_SPEAKERS = ("role", "from", "speaker", "author", "sender")
_SAYINGS = ("content", "value", "text", "message", "utterance")
_PAIRS = (("question", "answer"), ("query", "answer"), ("user", "assistant"), ("human", "ai"))
_ROLES = {
    **dict.fromkeys(("user", "human", "customer", "student", "seeker", "inquirer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "ai", "agent", "bot", "chatbot", "model", "teacher", "wizard"), "assistant"),
    "system": "system",
}


def check_text(name: str, value: str) -> None:
    """Raise `BadRow` if `value` cannot be written as UTF-8 (half a surrogate pair)."""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRow(
                f"{name!r} holds half a character ({value[error.start]!r}), which is not Unicode text"
            ) from None


def text_of(row: Mapping[str, object], name: str, *, required: bool = True) -> str:
    """A string field. Raises `BadRow` if it is missing, empty or of another type."""
    value = row.get(name)
    if value is None:
        if required:
            raise BadRow(f"{name!r} is empty" if name in row else f"there is no {name!r}{keys_of(row)}")
        return ""
    if not isinstance(value, str):
        raise BadRow(f"{name!r} must be a string, and is {shown(value)}")
    if required and not value.strip():
        raise BadRow(f"{name!r} is empty")
    return value


def reach(row: Mapping[str, Any], name: str | None, default: Any = None) -> Any:
    """The value of a column; a name with dots reaches inside other columns; `default` if there is no such column."""
    if name is None or name in row:
        return default if name is None else row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def id_of(row: Mapping[str, object], name: str) -> str:
    """An id: a string, or a whole number, which some formats use; empty if there is none."""
    value = row.get(name)
    number = whole_number(value)
    return text_of(row, name, required=False) if number is None else str(number)


def whole_number(value: object) -> int | None:
    """`value` as a whole number, else None. 7.0 counts: a column with missing numbers becomes a column of floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def texts_of(row: Mapping[str, object], name: str, *, example: str = '["an answer"]') -> tuple[str, ...]:
    """A list of strings, or a list written as text; a missing or null field is empty. Else raises `BadRow`."""
    value = listed(row.get(name), name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadRow(f"{name!r} must be a list of strings, such as {example}, and is {shown(value)}")
    return tuple(value)


def number_of(value: object, name: str) -> float:
    """A finite number. Raises `BadRow` for anything else; `name` is the field that holds it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRow(f"{name!r} must hold numbers, and one is {shown(value)}")
    return float(value)


def answers_of_row(row: Mapping[str, object], *names: str) -> tuple[str, ...]:
    """The answers in the first field of `names` that exists: a string or a list of strings. Else raises `BadRow`."""
    name = next((name for name in names if row.get(name) is not None), names[0])
    value = listed(row.get(name), name)
    values = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(values, list) or not all(isinstance(entry, str) for entry in values):
        raise BadRow(f"{name!r} must be a list of strings, and is {shown(row[name])}")
    return tuple(entry for entry in values if entry.strip())


def turns_of(row: Mapping[str, object], name: str = "history") -> tuple[Turn, ...]:
    """Earlier turns: objects with the fields of OpenAI, ShareGPT and others (`_SPEAKERS`, `_SAYINGS`), pairs of
    question and answer, or strings, beginning with the user's. Raises `BadRow` for anything else."""
    value = row.get(name)
    if isinstance(value, str):
        value = listed(value, name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRow(f'{name!r} must be a list of {{"role", "content"}}, and is {shown(value)}')
    turns: list[Turn] = []
    for number, turn in enumerate(value):
        if isinstance(turn, str):
            turns.append(Turn("user" if number % 2 == 0 else "assistant", turn))
        elif isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn):
            turns += [Turn("user", turn[0]), Turn("assistant", turn[1])]
        else:
            turns += _turn(turn, name)
    return tuple(turns)


def _turn(turn: object, name: str) -> list[Turn]:
    """The turn in an object, or the two turns of a question with its answer."""
    if not isinstance(turn, dict):
        raise BadRow(f'{name!r} must be a list of {{"role", "content"}}, and one entry is {shown(turn)}')
    for question_key, answer_key in _PAIRS:
        if isinstance(turn.get(question_key), str) and isinstance(turn.get(answer_key), str):
            return [Turn("user", turn[question_key]), Turn("assistant", turn[answer_key])]
    content = next((turn[key] for key in _SAYINGS if isinstance(turn.get(key), str)), None)
    speaker = next((turn[key] for key in _SPEAKERS if key in turn), None)
    if content is None:
        raise BadRow(f'{name!r} must be a list of {{"role", "content"}}, and one entry is {shown(turn)}')
    role = _ROLES.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        raise BadRow(f"a turn in {name!r} has the role {shown(speaker)}: it must be user or assistant")
    return [Turn(role, content)]


def content_id(text: str, title: str = "") -> str:
    """An id for a passage without one: equal for equal title and text."""
    return content_digest(f"{title}\x1f{text}")


def keys_of(row: Mapping[str, object]) -> str:
    """The keys that a row has, for the message that one is missing."""
    names = [repr(name) for name in row][:8]
    return f" (the keys here are {', '.join(names)})" if names else " (the object is empty)"
