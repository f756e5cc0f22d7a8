"""A JSON file that is one object and holds rows: what programs write around them, and what pandas makes of a table.

{"data": [{…}, …], "version": 3}                    rows under a usual name; {"rows": [{"row": {…}}, …]} of the hub
{"question": {"0": …}, "context": {"0": …}}         a column each, as pandas' `to_json` writes them
{"question": [..], "context": [..]}                 a column each, as lists
{"q1": {"question": …, "context": …}, "q2": {…}}    rows by their ids
{"columns": [..], "index": [..], "data": [[..], …]} pandas' `orient="split"`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_experiments.data.column_names import role_of

WRAPPERS = ("data", "rows", "items", "examples", "records", "results", "samples", "entries", "instances")
"""Usual names of the list of rows in an object."""
_OTHER_SETS = ("paragraphs", "story", "qas")
"""Keys of entries that are no rows but articles, as SQuAD's and CoQA's."""


def rows_inside(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows of an object that holds several; None where it is a row itself or another thing."""
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        names, cells = value["columns"], value["data"]
        if all(isinstance(row, list) and len(row) == len(names) for row in cells):
            return [dict(zip(map(str, names), row, strict=True)) for row in cells]
    if any(role_of(name) == "question" for name in value):
        return _of_columns(value)
    for name in WRAPPERS:
        rows = value.get(name)
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            if any(key in rows[0] for key in _OTHER_SETS):
                return None
            return [row["row"] if isinstance(row.get("row"), dict) else row for row in rows]
    return _of_columns(value)


def is_columns(value: Mapping[str, Any]) -> bool:
    """Whether an object begins like columns: then its first values say nothing about the later ones."""
    first = next(iter(value.values()), None)
    return isinstance(first, list | dict) and bool(first) and not isinstance(next(iter(first)), dict)


def _of_columns(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    columns = list(value.values())
    if len(columns) < 2:
        return None
    if all(isinstance(column, dict) for column in columns):
        keys = list(columns[0])
        if any(role_of(key) == "question" for key in keys):
            return [{"id": name, **row} for name, row in value.items()]
        if not keys or any(list(column) != keys for column in columns) or any(map(role_of, keys)):
            return None
        return [{name: column[key] for name, column in value.items()} for key in keys]
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns) or not columns[0]:
        return None
    if all(isinstance(column[0], dict) for column in columns):
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
