"""What a folder is, by the names of its files."""

from __future__ import annotations

from pathlib import Path

from rag_experiments.data.formats.document_parsing import PARSERS
from rag_experiments.data.formats.tables import SUFFIXES, kind_of

_MOST_FILES = 2000
"""So many names are looked at to see whether a folder holds documents."""


def folder_format(folder: Path) -> str | None:
    """The format that a folder's file names tell; None where the rows of its files must be looked at."""
    names = {path.name.removesuffix(".gz") for path in folder.iterdir() if path.is_file()}
    queries = "queries.jsonl" in names or any(name.startswith("queries") and name.endswith(".tsv") for name in names)
    if queries and {"corpus.jsonl", "collection.tsv", "corpus.tsv"} & names:
        return "beir"
    if "passages.jsonl" in names and {"train.jsonl", "dev.jsonl", "test.jsonl"} & names:
        return "jsonl"
    if any(name.endswith(("_w_q.jsonl", "_w_qa.jsonl")) for name in names):
        return "localrqa"
    return None


def document_files(folder: Path) -> list[Path]:
    """Some of the documents in a folder, at any depth."""
    documents = []
    for number, path in enumerate(folder.rglob("*")):
        if number >= _MOST_FILES:
            break
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in PARSERS and not hidden and path.is_file():
            documents.append(path)
    return sorted(documents)


def row_files(folder: Path) -> list[Path]:
    """The files of rows that stand in a folder itself."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and kind_of(path) in SUFFIXES]
