"""Which column of a table holds what: the table of usual names, and a look at the values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_experiments.config.overrides import typed as typed_word
from rag_experiments.core.errors import RequestError
from rag_experiments.data.cells import listed
from rag_experiments.data.column_names import LABELS, candidates, normalized, preferred, suggested, words_of
from rag_experiments.data.formats.cut import find_answer
from rag_experiments.data.formats.peek import Peek, texts
from rag_experiments.data.row_fields import BadRow, reach, shown

_INNER = ("text", "content", "page_content", "passage", "contents", "body")
"""Keys of an object that is a passage, under which its text stands."""


def mapped_columns(peek: Peek, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `data.columns`: those that were `typed`, and for the others the columns found by their names.

    Raises:
        RequestError: no column, or two, could be the question or the context; the sentence names the key to type.
    """
    columns = peek.columns
    if {"instruction", "input", "output"} <= {normalized(name) for name in columns}:  # Alpaca's rows
        named = {normalized(name): name for name in columns}
        typed = {"question": named["instruction"], "context": named["input"], "answers": named["output"], **typed}
    free = [name for name in columns if name not in typed.values()]
    mapping = dict(typed)
    for key in ("question", "context"):
        if key not in mapping:
            mapping[key] = _only(key, _plausible(key, free, peek), peek, mapping.get("question"))
            free = [name for name in free if name != mapping[key]]
        elif mapping[key] is not None and not any(_has(row, mapping[key]) for row in peek.rows):
            raise RequestError(
                f"data.columns.{key}={mapping[key]}: {_listing(peek)}, and none is called {mapping[key]!r}"
            )
    _refuse_judged_pairs(peek, mapping)
    mapping["context"] = _inner(peek, mapping["context"])
    for key in ("answers", "id", "title", "negatives", "history"):
        column = preferred(key, free)
        if key in mapping or column is None:
            continue
        mapping[key] = column if key != "id" or _identifies(peek.values(column)) else None
        free.remove(column)
    return mapping


def cuts_lose_questions(peek: Peek, columns: Mapping[str, Any], words: int) -> bool:
    """Whether contexts longer than `words` must stay whole: a cut one needs the place where an answer begins."""
    lost = placed = 0
    for row in peek.rows:
        for context in texts(reach(row, columns["context"])):
            if len(context.split()) > words:
                answers = answer_texts(reach(row, columns.get("answers")))
                inside = any(find_answer(context, answer, None)[0] is not None for answer in answers)
                lost, placed = lost + (not inside), placed + inside
    return lost > placed or not columns.get("answers")


def answer_texts(value: Any) -> list[str]:
    """The answers of a cell in any form that is read."""
    try:
        value = listed(value, "")
    except BadRow:
        return []
    if isinstance(value, Mapping):
        value = value.get("text")
    return texts(value)


def has_offsets(peek: Peek, column: str | None) -> bool:
    """Whether a column holds SQuAD's answers, with the place where they begin."""
    for value in peek.values(column) if column else ():
        try:
            value = listed(value, "")
        except BadRow:
            continue
        if isinstance(value, list):
            value = next(iter(value), None)
        if isinstance(value, Mapping) and {"text", "answer_start"} <= value.keys():
            return True
    return False


def _plausible(key: str, columns: list[str], peek: Peek) -> list[str]:
    """The candidates whose values can be texts: not numbers, and not names of files where another column has words."""
    named = [name for name in columns if _holds_texts(peek.values(name))]
    spoken = [name for name in named if any(" " in text.strip() for text in _texts_of(peek, name)[:50])]
    return candidates(key, spoken) or candidates(key, named)


def _holds_texts(values: list[Any]) -> bool:
    return not values or any(isinstance(value, str | list | Mapping) for value in values)


def _texts_of(peek: Peek, column: str) -> list[str]:
    """The texts of a column, or of the objects in it."""
    strings: list[str] = []
    for value in peek.values(column):
        entries = value if isinstance(value, list) else [value]
        strings += [text for entry in entries for text in
                  (texts(entry) if not isinstance(entry, Mapping) else map(str, entry.values()))]  # fmt: skip
    return strings


def _only(key: str, named: list[str], peek: Peek, question: str | None) -> str:
    """The one candidate. Raises `RequestError` for none and for several."""
    if len(named) == 1:
        return named[0]
    if named:
        words = " or ".join(f"data.columns.{key}={name}" for name in named)
        both = " and ".join(map(repr, named))
        raise RequestError(
            f"{peek.place}: {both} could {'both' if len(named) == 2 else 'all'} be the {key}: type {words}"
        )
    if key == "question":
        raise RequestError(
            f"{peek.place}: no column has a usual name for the question ({_listing(peek)}){_without_header(peek)}: "
            f"type {_keys_to_type(peek)}"
        )
    raise RequestError(
        f"{peek.place}: the question is in {question!r}, and no column has a usual name for the text that answers it "
        f"({_listing(peek)}), and these texts are what is searched: type data.columns.context=<column>, or if they are "
        f"documents in a folder, data=documents data.path=FOLDER data.questions={peek.place}"
    )


def _keys_to_type(peek: Peek) -> str:
    """The keys to type where the question has no usual name: that, and those of the other columns without one."""
    words = []
    for key in ("question", "context", "answers"):
        if key == "question" or not candidates(key, peek.columns):
            column = suggested(key, peek.columns)
            words.append(typed_word(f"data.columns.{key}", column) if column else f"data.columns.{key}=<column>")
    return ", and so ".join([words[0], " and ".join(words[1:])]) if words[1:] else words[0]


def _without_header(peek: Peek) -> str:
    """What to say where the first line of a table seems to be a row."""
    if Path(peek.place).suffix not in (".csv", ".tsv") or not any(len(words_of(name)) > 8 for name in peek.columns):
        return ""
    return ", which look like a row: a table needs a first line of names, such as question,answer,context. If they are"


def _refuse_judged_pairs(peek: Peek, mapping: Mapping[str, Any]) -> None:
    """Raise `RequestError` for pairs of sentences with a label: only some rows are a question with its passage."""
    label = next((name for name in peek.columns if normalized(name) in map(normalized, LABELS)), None)
    pair = {normalized(str(mapping[key])) for key in ("question", "context")}
    if label and pair <= {"sentence1", "sentence2", "texta", "textb"} and len(set(map(str, peek.values(label)))) > 1:
        raise RequestError(
            f"{peek.place}: {label!r} judges each pair of {mapping['question']!r} and {mapping['context']!r}, and "
            "every row here is taken for a question with a passage that answers it: keep the rows that match in a file"
        )


def _inner(peek: Peek, column: str | None) -> str | None:
    """`column.text` where the column holds objects with a text."""
    first = next(iter(peek.values(column)), None) if column else None
    if isinstance(first, Mapping):
        key = next((name for name in _INNER if isinstance(first.get(name), str)), None)
        return f"{column}.{key}" if key else column
    return column


def _identifies(values: list[Any]) -> bool:
    """Whether ids are whole: strings or numbers, each once."""
    return len(set(map(str, values))) == len(values) and not any(isinstance(value, list | Mapping) for value in values)


def _has(row: Mapping[str, Any], name: str) -> bool:
    return name in row or reach(row, name) is not None


def _listing(peek: Peek) -> str:
    return f"the columns are {', '.join(shown(name) for name in peek.columns[:20])}"
