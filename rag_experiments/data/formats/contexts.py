"""Passages that stand inside question rows, as DPR, FiD, Tevatron and LocalRQA files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rag_experiments.data.builder import Intake
from rag_experiments.data.cells import is_missing, listed
from rag_experiments.data.row_fields import BadRow, content_id, id_of, shown, text_of

ID_KEYS = ("passage_id", "psg_id", "docid", "doc_id", "_id", "id", "pid")


def entries(row: Mapping[str, Any], name: str) -> list[Any]:
    """A list field, or the text of one; missing or null is empty. Raises `BadRow` for anything else."""
    value = listed(row.get(name), name)
    if is_missing(value):
        return []
    if not isinstance(value, list):
        raise BadRow(f"{name!r} must be a list, and is {shown(value)}")
    return value


def take_in(
    intake: Intake,
    name: str,
    context: Any,
    *,
    text: str = "text",
    title: str = "title",
    ids: Sequence[str] = ID_KEYS,
    store: bool = True,
) -> str:
    """The id of one passage of field `name`, which is handed to the intake unless `store` is False.

    A passage without an id gets one that is made of its content. Raises `BadRow` for what is no passage.
    """
    if isinstance(context, str):
        context = {text: context}
    if not isinstance(context, dict):
        raise BadRow(f"{name!r} must hold objects with a {text!r}, and one is {shown(context)}")
    try:
        found = next((value for key in ids if (value := id_of(context, key))), "")
        if not store and found:
            return found
        body, head = text_of(context, text), text_of(context, title, required=False)
        passage_id = found or content_id(body, head)
        intake.passage(passage_id, body, head, repeatable=True)
    except BadRow as error:
        raise BadRow(f"in {name!r}: {error}") from None
    return passage_id
