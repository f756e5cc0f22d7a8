"""Passages inside question rows, as in the files of DPR, FiD, Tevatron and LocalRQA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.cells import is_missing, listed
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.row_fields import BadRow, content_id, id_of, shown, text_of

ID_KEYS = ("passage_id", "psg_id", "docid", "doc_id", "_id", "id", "pid")


def entries(row: Mapping[str, Any], name: str) -> list[Any]:
    """A field that is a list, or a list written as text; a missing or null field is empty. Else raises `BadRow`."""
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
    part: str = "",
    *,
    text: str = "text",
    title: str = "title",
    ids: Sequence[str] = ID_KEYS,
    store: bool = True,
) -> str:
    """The id of one passage of the field `name`. The passage is added to the intake unless `store` is False.

    A passage without an id gets a hash of its content as id, and is shown by its place: that of the row, and `part`,
    which is its place in the row (`[3]`: in the list `name`; empty: the field itself).
    Raises `BadRow` if `context` is not a passage.
    """
    if isinstance(context, str):
        context = {text: context}
    if not isinstance(context, dict):
        raise BadRow(f"{name!r} must hold objects with a {text!r}, and one is {shown(context)}")
    try:
        own_id = next((value for key in ids if (value := id_of(context, key))), "")
        if not store and own_id:
            return own_id
        body, head = text_of(context, text), text_of(context, title, required=False)
        passage_id = own_id or content_id(body, head)
        place = "" if own_id else intake.place(f".{name}{part}")
        intake.passage(passage_id, body, head, repeatable=True, place=place)
    except BadRow as error:
        raise BadRow(f"in {name!r}: {error}") from None
    return passage_id


def only_negatives(
    listed: Sequence[str], positives: Sequence[str], intake: Intake, what: str = "passage"
) -> tuple[str, ...]:
    """The ids in `listed` that are not positives. A note counts the others; `what` names them in the note."""
    negatives = tuple(value for value in listed if value not in positives)
    if len(negatives) < len(listed):
        intake.remark(f"a gold {what} is listed as a hard negative too, and is not used as one")
    return negatives


# -- the file of passages ----------------------------------------------------------------------------------


def passages_file(folder: Path, key: str, name: str | None) -> Path | None:
    """The file in `folder` that `data.<key>` names as the corpus; None if the rows hold their passages.

    Raises:
        RequestError: there is no such file.
    """
    path = folder / Path(name).expanduser() if name else None
    if path is not None and not path.is_file():
        raise RequestError(f"data.{key}={name}: there is no such file in {folder}")
    return path


def fingerprint_of(passages: Path | None, files: Mapping[str, Sequence[Path]]) -> str:
    """A hash of the file of passages and of every split's files. Raises what `files_fingerprint` raises."""
    return files_fingerprint([*([passages] if passages else []), *(path for paths in files.values() for path in paths)])
