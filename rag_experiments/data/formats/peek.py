"""The first rows of a file, for `data=auto`: few bytes, few rows, and the reader that will read the whole file."""

from __future__ import annotations

import json
import re
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.data.cells import listed
from rag_experiments.data.formats.lines import UTF_16, open_bytes
from rag_experiments.data.formats.tables import BINARY, kind_of, rows
from rag_experiments.data.records import Where
from rag_experiments.data.row_fields import BadRow, reach

MOST_BYTES = 1 << 20
"""Of a text file no more is read, unpacked."""
MOST_ROWS = 100
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*("|\Z)|[\[\]{},]', re.DOTALL)
_CLOSING = {"[": "]", "{": "}"}


@dataclass
class Peek:
    """What stands at the beginning of a file or data set."""

    place: str
    """The file or name, for messages."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    whole: dict[str, Any] | None = None
    """The object that a JSON file is, with its lists cut short; None for a file of rows."""

    @property
    def columns(self) -> list[str]:
        """Every key of the rows, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def values(self, column: str) -> list[Any]:
        """The values of a column that are there; a name with a dot reaches into a column."""
        return [value for row in self.rows if (value := reach(row, column)) not in (None, "")]


class HeadIntake:
    """Stands in for an intake: what is wrong with a row is said when the whole file is read."""

    def problem(self, where: Where, reason: str, kind: str = "bad row") -> None:
        """Ignore it."""

    def remark(self, what: str, where: Where | None = None) -> None:
        """Ignore it."""


def peek(path: Path) -> Peek:
    """The beginning of one file.

    Raises:
        RequestError: a pickle, a file that cannot be read, or a kind of file that is never read.
    """
    intake: Any = HeadIntake()
    if kind_of(path) in BINARY:
        return Peek(str(path), [row for _, row in islice(rows(path, intake), MOST_ROWS)])
    text, cut = _head(path)
    if kind_of(path) == ".json" and text.lstrip().startswith(("{", "[")):
        value = _json_value(text, cut)
        if isinstance(value, dict):
            return Peek(str(path), [value], whole=value)
        if isinstance(value, list):
            return Peek(str(path), [row for row in value[:MOST_ROWS] if isinstance(row, dict)])
    if cut:
        text = text[: text.rfind("\n") + 1] or text
    if text.lstrip().startswith("[") and kind_of(path) in (".jsonl", ".ndjson"):
        value = _json_value(text, cut)
        return Peek(str(path), [row for row in (value or [])[:MOST_ROWS] if isinstance(row, dict)])
    with tempfile.TemporaryDirectory(prefix="rag-peek-") as folder:
        suffix = ".jsonl" if kind_of(path) == ".json" else kind_of(path)
        head = Path(folder, f"head{suffix}")
        head.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        return Peek(str(path), [row for _, row in islice(rows(head, intake), MOST_ROWS)])


def peek_table(place: str, table: Iterable[Mapping[str, Any]]) -> Peek:
    """The beginning of a data set of the hub's library."""
    return Peek(place, [dict(row) for row in islice(table, MOST_ROWS)])


def _head(path: Path) -> tuple[str, bool]:
    """The first `MOST_BYTES` of a text file, and whether there are more."""
    try:
        with open_bytes(path) as file:
            raw = file.read(MOST_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise RequestError(f"{path} is cut short or damaged ({error})") from error
    cut = len(raw) > MOST_BYTES
    raw = raw[:MOST_BYTES]
    return raw.decode("utf-16" if raw[:2] in UTF_16 else "utf-8-sig", "ignore" if cut else "replace"), cut


def _json_value(text: str, cut: bool) -> Any:
    """The JSON value of `text`, which may end anywhere if `cut`; None if it is none."""
    try:
        return json.loads(_closed(text) if cut else text)
    except (ValueError, RecursionError):
        return None


def _closed(text: str) -> str:
    """Half a JSON text, cut at its last comma, with every bracket closed."""
    stack: list[str] = []
    end, closers = 0, ""
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in _CLOSING:
            stack.append(_CLOSING[mark])
        elif mark in ("]", "}"):
            if stack:
                stack.pop()
        elif mark == ",":
            end, closers = token.start(), "".join(reversed(stack))
        elif token.group(1) == "":  # the text ends inside a string
            break
    return text[:end] + closers


def texts(value: Any) -> list[str]:
    """The strings of a cell: itself, or those of its list, which may be written as text."""
    try:
        value = listed(value, "")
    except BadRow:
        return []
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if isinstance(entry, str) and entry.strip()]
