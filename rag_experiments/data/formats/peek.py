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
from rag_experiments.data.column_report import ColumnReport
from rag_experiments.data.formats.json_objects import is_columns
from rag_experiments.data.formats.lines import UTF_16, decoded, not_in, open_bytes
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

    encoding = "utf-8"

    def __init__(self) -> None:
        self.column_report = ColumnReport()

    def problem(self, where: Where, reason: str, kind: str = "bad row") -> None:
        """Ignore it."""

    def remark(self, what: str, where: Where | None = None) -> None:
        """Ignore it."""


def peek(path: Path, encoding: str = "utf-8", columns: Mapping[str, Any] | None = None) -> Peek:
    """The beginning of one file.

    Args:
        encoding: of a text file without a mark of its own.
        columns: those that were typed, which tell the sheet of an Excel file.

    Raises:
        RequestError: a pickle, a file that cannot be read, or a kind of file that is never read; or no text at all.
    """
    intake: Any = HeadIntake()
    intake.column_report.expect(columns or {}, {})
    if kind_of(path) in BINARY:
        return Peek(str(path), [row for _, row in islice(rows(path, intake), MOST_ROWS)])
    text, cut = _head(path, encoding)
    if kind_of(path) == ".json" and text.lstrip().startswith(("{", "[")):
        value = _json_value(text, cut)
        if cut and isinstance(value, dict) and is_columns(value):
            value = _json_value(_all_text(path, encoding), False)
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


_NO_TEXT = {
    b"%PDF": "a PDF: as a document, it belongs into a folder of documents, under a name that ends in .pdf",
    b"PK\x03\x04": "an Excel file or a zip: an Excel file's name must end in .xlsx, and a zip must be unpacked",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file: save it as .xlsx or .csv",
    b"PAR1": "a Parquet file: its name must end in .parquet",
    b"ARROW1": "an Arrow file: its name must end in .arrow",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
}
"""The first bytes of files that are no text, whatever their name says, and what they are."""


def _refuse_binary(path: Path, raw: bytes, encoding: str) -> None:
    """Raise `RequestError` for what is no text, or is written in another encoding throughout."""
    kind = next((words for start, words in _NO_TEXT.items() if raw.startswith(start)), None)
    if kind is not None or (b"\0" in raw[:4096] and raw[:2] not in UTF_16):
        raise RequestError(f"{path} is no text file{f', it begins like {kind}' if kind else ''}")
    if raw[:2] in UTF_16:
        return
    wrong, first = 0, ""
    for number, line in enumerate(raw.splitlines(keepends=True)[:-1] or [raw], 1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as error:
            wrong += 1
            first = first or not_in(encoding, f"byte {line[error.start]:#04x} in line {number}")
        else:
            if not line.isascii():
                return  # some lines are right: the wrong ones are reported one by one
    if wrong > 1:
        raise RequestError(f"{path} is {first}")


def _all_text(path: Path, encoding: str) -> str:
    with open_bytes(path) as file:
        return decoded(file.read(), encoding, "replace")


def _head(path: Path, encoding: str) -> tuple[str, bool]:
    """The first `MOST_BYTES` of a text file, and whether there are more."""
    try:
        with open_bytes(path) as file:
            raw = file.read(MOST_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise RequestError(f"{path} is cut short or damaged ({error})") from error
    cut = len(raw) > MOST_BYTES
    raw = raw[:MOST_BYTES]
    _refuse_binary(path, raw, encoding)
    return decoded(raw, encoding, "ignore" if cut else "replace"), cut


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
