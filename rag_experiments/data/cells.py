"""Parse a cell that holds several values as text. Every format uses this parser.

CSV has no lists, so programs write a list as text, each in its own way:

    ["red", "green"]    ['red', 'green']    ('red', 'green')    {'red', 'green'}      JSON and Python
    ['red' 'green']     [list(['red'])]     ['red', nan]                              numpy and pandas
    {'text': array(['red'], dtype=object), 'answer_start': array([24], dtype=int32)}  SQuAD's answers, out of Parquet

Python would join `'red' 'green'` to one word. A text that begins like a list but cannot be parsed is refused, because
it would be a useless answer. Prose in brackets (`[Applause]`, `(born 1911)`) stays prose.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from rag_experiments.data.bad_row import BadRow, shown

_BEGINS = re.compile(
    r"""\s*(?: \[\s*(?: \] | [ubr]?['"] | [\[({] | -?\d+(?:\.\d*)?\s*[,\]\s] | (?:nan|None|null|true|false)\b
               | (?:(?:np|numpy)\.\w+|array|list|tuple|set|frozenset)\( )
          | \(\s* [ub]?['"] | \{\s* (?: \} | [ub]?['"] ) | array\(\s*\[ )""",
    re.X | re.I,
)
_NUMBERS = re.compile(r"\s*\[[\d\s.,+-]*\d[\d\s.,+-]*\]\s*")
_PARTS = re.compile(
    r"""\s+ | (?P<open>[\[({]) | (?P<close>[\])}]) | (?P<comma>,) | (?P<colon>:)
      | (?P<text>[ubr]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")) | (?P<dots>\.\.\.) | (?P<keyword>dtype\s*=)
      | (?P<call>[a-z_][\w.]*(?=\()) | (?P<word>[\w.+<>-]+)""",
    re.X | re.S | re.I,
)
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_MISSING = {"nan", "none", "null", "nat", "<na>"}
_DEEPEST = 20


class _Unreadable(Exception):
    """The reason why a text cannot be parsed as a list."""


def listed(value: Any, name: str) -> Any:
    """Parse `value`, and each entry if it is a list, if it holds a list or mapping as text. Numbers become their text.
    Missing values (nan) are dropped, nested lists are flattened.

    Raises:
        BadRow: a text begins like a list but cannot be parsed.
    """
    if isinstance(value, str):
        value = _read(value, name)
    if isinstance(value, dict):
        return {key: list(entry) if isinstance(entry, tuple) else entry for key, entry in value.items()}
    return list(_flat(value, name)) if isinstance(value, list | tuple | set | frozenset) else value


def is_missing(value: Any) -> bool:
    """Whether the value is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _flat(values: Any, name: str) -> Iterator[Any]:
    for value in values:
        read = _read(value, name) if isinstance(value, str) else value
        if isinstance(read, list | tuple | set | frozenset):
            yield from _flat(read, name)
        elif not is_missing(read):
            yield read


def _read(text: str, name: str) -> Any:
    # Numbers alone in brackets are a citation (`[3]`) or the answer itself.
    if not _BEGINS.match(text) or _NUMBERS.fullmatch(text):
        return text
    stripped = text.strip()
    opened = stripped[:1]
    try:
        return json.loads(stripped, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        pass
    try:
        value, end = _value(stripped, 0, 0)
    except _Unreadable as error:
        if opened == "(" or _goes_on(stripped):
            return text
        raise BadRow(f"{name!r} begins as a list and cannot be read as one ({error}): {shown(text)}") from None
    if end < len(stripped) and stripped[-1] in "])}" and opened != "(":
        raise BadRow(f"{name!r} begins as a list and cannot be read as one (it goes on after its end): {shown(text)}")
    return text if end < len(stripped) or (opened == "(" and not _is_tuple(stripped)) else value


def _goes_on(text: str) -> bool:
    """Whether `text` is prose that begins with a bracket: the bracket is closed before the end, and words follow."""
    return text[-1] not in "])}" and any(mark in text for mark in "])}")


def _is_tuple(text: str) -> bool:
    """`('a', 'b')` and `('a',)`; not `("a word")`, which is prose."""
    try:
        return isinstance(ast.literal_eval(text), tuple)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return "," in text


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends."""
    part, at = _next(text, at)
    kind = part.lastgroup
    if kind == "text":
        try:
            return ast.literal_eval(part.group().lstrip("uUrRbB").replace("\n", "\\n")), at
        except (ValueError, SyntaxError):
            raise _Unreadable("a quote is not closed") from None
    if kind == "word":
        return _word(part.group()), at
    if kind == "call":
        return _call(text, at, depth)
    if kind == "dots":
        raise _Unreadable("numpy left entries out where it prints '...'")
    if kind != "open":
        raise _Unreadable(f"{part.group()!r} is out of place")
    if depth >= _DEEPEST:
        raise _Unreadable("lists in lists without an end")
    return _entries(text, at, part.group(), depth)


def _entries(text: str, at: int, opened: str, depth: int) -> tuple[Any, int]:
    values: list[Any] = []
    keys: list[Any] = []
    while True:
        part, after = _next(text, at)
        if part.lastgroup == "close":
            if part.group() != _CLOSES[opened]:
                raise _Unreadable(f"{opened!r} is closed by {part.group()!r}")
            if len(keys) not in (0, len(values)):
                raise _Unreadable("a key has no value")
            empty = opened == "{" and not values
            return ({} if empty else dict(zip(map(str, keys), values, strict=True)) if keys else values), after
        if part.lastgroup == "comma":
            at = after
        elif part.lastgroup == "keyword":  # array([…], dtype=object)
            _, at = _next(text, after)
        elif part.lastgroup == "colon" and opened == "{" and values:
            keys.append(values.pop())
            value, at = _value(text, after, depth + 1)
            values.append(value)
        else:
            value, at = _value(text, at, depth + 1)
            values.append(value)


def _call(text: str, at: int, depth: int) -> tuple[Any, int]:
    """The value inside `array([…], dtype=…)`, `list([…])` or `np.str_('…')`."""
    part, after = _next(text, at)
    if part.group() != "(":
        raise _Unreadable(f"{part.group()!r} is out of place")
    values, end = _entries(text, after, "(", depth + 1)
    if not values:
        return [], end
    return values[0], end


def _word(word: str) -> Any:
    if word.lower() in _MISSING:
        return None
    try:
        float(word if word not in ("True", "False", "true", "false") else "1")
    except ValueError:
        raise _Unreadable(f"{word!r} has no quotes around it") from None
    return word


def _next(text: str, at: int) -> tuple[re.Match[str], int]:
    """The next part that is not white space."""
    while at < len(text):
        part = _PARTS.match(text, at)
        if part is None:
            raise _Unreadable("a quote is not closed" if text[at] in "'\"" else f"{text[at]!r} is out of place")
        if part.lastgroup is not None:
            return part, part.end()
        at = part.end()
    raise _Unreadable("it is not closed")
