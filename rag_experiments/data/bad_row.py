"""A row that cannot be used, and how its values are quoted."""

from __future__ import annotations


class BadRow(Exception):
    """What is wrong with the row being read; `Intake.row` adds its file and line."""


class MissingColumn(BadRow):
    """A row has no such column, perhaps because the column has another name."""


def shown(value: object, limit: int = 60) -> str:
    """`value` as an error message quotes it."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
