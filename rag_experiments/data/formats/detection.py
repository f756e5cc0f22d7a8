"""`data=auto`: a file, a folder or a name on the hub is looked at, and becomes one of the other formats with its keys.

That happens where a configuration is composed, before it is checked, hashed and written: a run holds what was found,
and is opened again without another look. `data.path=…` without `data=` means the same.

    python -m rag_experiments.data.check my_questions.csv
    python -m rag_experiments.train algorithm=ctl data.path=my_questions.csv plan=true

Columns are found by the usual names in `rag_experiments/data/column_names.py`. What could be two things is asked about,
with the key to type; keys that are typed stay as they are.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rag_experiments.config.schema import DataConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.column_names import candidates, preferred
from rag_experiments.data.formats import dialogues, hub, question_sets
from rag_experiments.data.formats.column_mapping import cuts_lose_questions, has_offsets, mapped_columns
from rag_experiments.data.formats.document_parsing import PARSERS
from rag_experiments.data.formats.folder_kinds import document_files, folder_format, row_files
from rag_experiments.data.formats.json_objects import rows_inside
from rag_experiments.data.formats.lines import refuse_pickle
from rag_experiments.data.formats.peek import MOST_ROWS, Peek, peek, peek_table
from rag_experiments.data.formats.tables import SUFFIXES, find_files, kind_of
from rag_experiments.data.row_fields import reach

_SHARED = {one.name for one in fields(DataConfig)}
"""Keys of every format, of which none says which format is meant."""
_COMPANIONS = ("readme", "license", "citation", "changelog")
"""Files that lie beside data and are no documents to search."""
_ARCHIVES = {
    ".zip": "zipfile",
    **dict.fromkeys((".tar", ".tgz"), "tarfile"),
    **dict.fromkeys((".7z", ".rar", ".zst", ".xz", ".bz2"), ""),
}
"""Kinds of packed files, and the module of Python that unpacks them into a folder."""
_PASSAGES = ("positive_ctxs", "hard_negative_ctxs", "ctxs")


@dataclass(kw_only=True)
class AutoConfig(DataConfig):
    """`data.path` is a file, a folder or a name on the hub; keys of the format that it turns out to be are taken."""

    format: str = "auto"


def format_keys(typed: Mapping[str, Any]) -> dict[str, Any]:
    """The keys under `data:` with the format in the place of `auto`, and what else was found.

    Args:
        typed: those that were typed or stated; they stay as they are.

    Raises:
        RequestError: there is nothing at the path, or it is not known what it is, or it could be two things.
    """
    typed = dict(typed)
    path = Path(str(typed["path"])).expanduser()
    if path.is_dir():
        keys = _folder(path, typed)
    elif path.is_file():
        keys = _file(path, typed)
    else:
        keys = _hub(typed)
    columns = keys.pop("columns", None)
    if columns is not None:
        named = dict(typed.get("columns") or {})
        if keys["format"] == "tevatron" and "context" in named:  # lists of passages have another key there
            named["positives"] = named.pop("context")
        typed["columns"] = {**columns, **named}
    return {**keys, **{name: value for name, value in typed.items() if name != "format"}}


def fingerprint(config: AutoConfig) -> str:
    """That of the format that is found; a configuration composed by the commands has it already."""
    from rag_experiments.config.data_formats import reader

    settled = _settled(config)
    return str(reader(settled.format).fingerprint(settled))


def read(config: AutoConfig, intake: Intake) -> None:
    """Read what was found."""
    from rag_experiments.config.data_formats import reader

    settled = _settled(config)
    reader(settled.format).read(settled, intake)


def _settled(config: AutoConfig) -> DataConfig:
    from rag_experiments.config.data_formats import config_class
    from rag_experiments.config.validation import check_values

    if not config.path:
        raise RequestError("data=auto needs data.path=…: a file, a folder or a name on the Hugging Face hub")
    keys = format_keys({name: value for name, value in vars(config).items() if name != "format"})
    settled: DataConfig = check_values(config_class(keys["format"]), keys, "data")
    return settled


# -- places ----------------------------------------------------------------------------------------


def _folder(folder: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    if named := folder_format(folder):
        return {"format": named}
    if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
        return _rows_of(_library_peek(typed), typed)
    files: dict[str, Any] = dict(typed.get("files") or {})
    settled = hub.HubConfig(path=str(folder), name=typed.get("name"), files=files)
    try:
        local = hub.local_files(settled)
    except RequestError:
        files_of_rows, documents = row_files(folder), document_files(folder)
        alone = files_of_rows[0] if len(files_of_rows) == 1 else None
        if files or (files_of_rows and alone is None):
            raise
        if not files_of_rows and not documents:
            kinds = ", ".join([*SUFFIXES, *PARSERS])
            raise RequestError(f"data.path={folder}: there is nothing in that folder that is read ({kinds})") from None
        if alone is not None and any(path.stem.casefold() not in _COMPANIONS for path in documents):
            questions = _peek(alone, typed)
            if {"document", "positive_ids"} & set(questions.columns):
                return {"format": "documents", "questions": alone.name}
            raise RequestError(
                f"data.path={folder}: there are documents ({documents[0].name}, …) and {alone.name}: type "
                f"data=documents data.questions={alone.name} to search the documents, or data.path={alone}"
            ) from None
        if alone is None:
            return {"format": "documents"}
        return {"files": {"train": alone.name}, **_rows_of(_peek(alone, typed), typed)}
    first = local.get("train") or next(iter(local.values()))
    keys = _rows_of(_peek(first[0], typed), typed)
    if keys["format"] != "hub":
        find_files(folder, files)  # only `hub` looks into a folder `data/`
    return keys


def _file(path: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    refuse_pickle(path)
    kind = kind_of(path)
    if kind in SUFFIXES:
        if folder_format(path.parent) and path.stem.split(".")[0] in (
            "corpus", "queries", "passages", "collection",
        ):  # fmt: skip
            raise RequestError(f"data.path={path} is one file of a data set: type data.path={path.parent}")
        return _rows_of(_peek(path, typed), typed)
    if kind in PARSERS:
        raise RequestError(f"data.path={path} is a single document: type the folder of the documents, {path.parent}")
    if kind in (".xls", ".xlsb", ".xlsm", ".ods"):
        raise RequestError(f"data.path={path}: {kind} is not read; save it as .xlsx or .csv")
    if kind in _ARCHIVES:
        module, folder = _ARCHIVES[kind], path.parent / path.name.split(".")[0]
        how = f": python -m {module} -e {shlex.join([str(path), str(folder)])}" if module else ""
        raise RequestError(f"data.path={path}: {kind} is not opened; unpack it and type what was in it{how}")
    raise RequestError(f"data.path={path}: {kind or 'a file without a suffix'} is not read; {', '.join(SUFFIXES)} are")


def _peek(path: Path, typed: Mapping[str, Any]) -> Peek:
    from rag_experiments.config.validation import check_values

    said = {"encoding": typed["encoding"]} if "encoding" in typed else {}
    encoding = check_values(DataConfig, {"format": "auto", **said}, "data").encoding
    columns = {key: name for key, name in dict(typed.get("columns") or {}).items() if isinstance(name, str)}
    return peek(path, encoding, columns)


def _hub(typed: Mapping[str, Any]) -> dict[str, Any]:
    return _rows_of(_library_peek(typed), typed)


def _library_peek(typed: Mapping[str, Any]) -> Peek:
    """The first rows of a data set of the hub, or of one that `save_to_disk` wrote."""
    settled = hub.HubConfig(
        **{name: typed[name] for name in ("path", "name", "revision", "files") if typed.get(name) is not None}
    )
    return peek_table(str(typed["path"]), hub.first_table(settled))


# -- rows ------------------------------------------------------------------------------------------


def _rows_of(head: Peek, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The format of rows, with its keys."""
    if not head.rows and not Path(head.place).stat().st_size:
        raise RequestError(f"{head.place} is empty")
    if not head.rows:
        raise RequestError(f"{head.place}: there is not one row that can be read, so what it holds is not known")
    own = {name for name in typed if name not in _SHARED}
    if "preset" in own:
        return {"format": "hub"}
    return _whole_object(head) or _known_rows(head) or _table(head, typed)


def _whole_object(head: Peek) -> dict[str, Any] | None:
    """The format of a JSON file that is one object."""
    value = head.whole
    if value is None:
        return None
    if question_sets.is_one(value):
        return {"format": "hub"}
    data = value.get("data")
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    if "story" in first:
        return {"format": "hub", "preset": "coqa"}
    if isinstance(first.get("paragraphs"), list):
        quac = any(isinstance(one, dict) and dialogues.is_quac(one) for one in first["paragraphs"])
        return {"format": "hub", "preset": "quac" if quac else "squad"}
    inner = [one for one in value.values() if isinstance(one, dict)]
    by_id = inner and len(inner) == len(value) and all("question" in one for one in inner)
    if by_id and any({*_PASSAGES, "contexts"} & one.keys() for one in inner):
        return {"format": "dpr"}
    rows = rows_inside(value)
    if rows is not None:
        head.rows = [row for row in rows[:MOST_ROWS] if isinstance(row, dict)]
    return None


def _known_rows(head: Peek) -> dict[str, Any] | None:
    """The format of rows that are recognised by the names of their fields."""
    columns = set(head.columns)
    first: dict[str, Any] = {name: next(iter(head.values(name)), None) for name in columns}
    if "supporting_facts" in columns and isinstance(first.get("context"), list | dict):
        return {"format": "hub", "preset": "hotpot"}
    if "story" in columns and isinstance(first.get("questions"), list):
        return {"format": "hub", "preset": "coqa"}
    if "context" in columns and isinstance(first.get("questions"), list) and isinstance(first.get("answers"), dict):
        return {"format": "hub", "preset": "quac"}
    if columns.intersection(_PASSAGES) and "question" in columns:
        return {"format": "dpr"}
    if {"positive_passages", "positive_document_ids"} & columns:
        return {"format": "tevatron"}
    if "gold_docs" in columns:
        raise RequestError(f"{head.place} is one of LocalRQA's files: type data=localrqa and the folder as data.path")
    if "question" in columns and {"positive_ids", "negative_ids"} & columns:
        raise RequestError(
            f"{head.place} names passages by their ids: type the folder as data.path, with passages.jsonl beside it"
        )
    return None


def _table(head: Peek, typed: Mapping[str, Any]) -> dict[str, Any]:
    """Rows with columns of any names."""
    named = dict(typed.get("columns") or {})
    if "positives" in named:
        return {"format": "tevatron"}
    chat = _conversations(head, named)
    columns = mapped_columns(head, {"question": chat, **named} if chat else named)
    context = columns["context"]
    first = next(iter(head.values(context)), None) if context else None
    entry = first[0] if isinstance(first, list) and first else None
    if isinstance(entry, dict):
        return _listed_passages(head, columns, entry)
    if isinstance(first, list) and not columns.get("answers") and not chat:  # FlagEmbedding's rows
        return _listed_passages(head, columns, {})
    keys: dict[str, Any] = {"format": "hub", "columns": columns}
    if has_offsets(head, columns.get("answers")):
        keys["preset"] = "squad"
    words = hub.HubConfig.passage_words
    if context and "passage_words" not in typed and words and cuts_lose_questions(head, columns, words):
        keys["passage_words"] = None
    return keys


def _listed_passages(head: Peek, columns: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """`data=tevatron`, for rows that hold lists of passages."""
    names = {"question": columns["question"], "positives": columns["context"]}
    names |= {key: columns[key] for key in ("answers", "negatives", "id") if columns.get(key)}
    text = next((name for name in ("text", "content", "page_content", "contents", "passage") if name in entry), None)
    if entry and text is None:
        raise RequestError(
            f"{head.place}: {columns['context']!r} holds objects, and none of their fields has a usual name for a "
            f"text ({', '.join(map(repr, entry))}): type data=tevatron data.columns.passage_text=<field>"
        )
    if text is not None:
        names["passage_text"] = text
    if any(isinstance(reach(row, columns["context"]), str) for row in head.rows):
        raise RequestError(f"{head.place}: {columns['context']!r} holds lists in some rows and texts in others")
    return {"format": "tevatron", "columns": names}


def _conversations(head: Peek, typed: Mapping[str, Any]) -> str | None:
    """The column of conversations whose last turns are the question and its answer; None where there is none.

    Raises:
        RequestError: chats alone: they hold no text in which an answer could be looked up.
    """
    chat = preferred("history", head.columns)
    if chat is None or "question" in typed or candidates("question", head.columns):
        return None
    if typed.get("context") or candidates("context", head.columns):
        return chat
    raise RequestError(
        f"{head.place}: {chat!r} holds conversations, and no column the texts that answer them, which are what is "
        f"searched: type data.columns.context=<column>; the last turns of {chat!r} are then the question and its answer"
    )
