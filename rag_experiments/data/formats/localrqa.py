"""`data=localrqa`: the files of the LocalRQA toolkit.

    train_w_q.jsonl      {"questions": [..], "gold_docs": [..], "hard_neg_docs"?: [..], "chat_history"?: [..]}
    train_w_qa.jsonl     {"question", "gold_answer", "gold_docs", "hard_neg_docs"?, "chat_history"?}

and the same for eval (our dev) and test; a document is {"page_content", "metadata"}. If both files of a split ask one
question about one passage, the row with the answer is kept. The corpus is `data.documents`, a JSONL of documents, or,
without it, the documents in the lines. A document is shown by its place (`train_w_q.jsonl:17.gold_docs[0]`).

An `eval` file can be trained on: `data.splits.train=eval data.splits.dev=null` (dev is then cut from it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_experiments.config.schema import DataConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import SPLITS, Intake
from rag_experiments.data.formats.contexts import entries, fingerprint_of, only_negatives, passages_file
from rag_experiments.data.formats.lines import data_path, json_lines, pickle_note
from rag_experiments.data.queries import question_key
from rag_experiments.data.records import Question
from rag_experiments.data.row_fields import BadRow, answers_of_row, content_id, shown, text_of, texts_of, turns_of

KNOWN = frozenset(("question", "questions", "gold_answer", "gold_docs", "hard_neg_docs", "chat_history"))
"""Keys of a line."""


@dataclass(kw_only=True)
class LocalrqaConfig(DataConfig):
    """`data.path` is the folder."""

    format: str = "localrqa"
    splits: dict[str, str | None] = field(default_factory=lambda: {"train": "train", "dev": "eval", "test": "test"})
    """The beginning of the files' names for each of our splits; null: there is no such split. `data.splits.train=eval`
    trains on eval."""
    documents: str | None = None
    """A JSONL of documents in the folder (or an absolute path) is the whole corpus; null: it is what the lines hold."""
    title: str | None = "title"
    """The key of `metadata` that holds a passage's title, if there is one."""


def fingerprint(config: LocalrqaConfig) -> str:
    """A hash of the files. Raises `RequestError` where there is none."""
    return fingerprint_of(*_files(config))


def read(config: LocalrqaConfig, intake: Intake) -> None:
    """Hand every document and question to `intake`."""
    documents, files = _files(config)
    if documents is not None:
        for where, row in json_lines(documents, intake):
            with intake.row(where):
                _document(config, intake, "the document", row, intake.place(), True)
    for split, paths in files.items():
        intake.split(split, str(paths[0]))
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for path in paths:
            for where, row in json_lines(path, intake):
                with intake.row(where):
                    intake.columns(row, KNOWN)
                    for question in _questions(config, intake, row, f"{split}-{_kind(path)}-{where.line}", documents):
                        key = (question_key(question), question.positive_ids)
                        if key in seen:
                            intake.remark("a question is in several lines, and is kept once (with its answer)")
                            continue
                        seen.add(key)
                        intake.question(split, question)


def _questions(
    config: LocalrqaConfig, intake: Intake, row: dict[str, Any], name: str, documents: Path | None
) -> Iterator[Question]:
    store = documents is None
    texts = texts_of(row, "questions", example='["a question"]') or (text_of(row, "question"),)
    gold = _documents(config, intake, "gold_docs", row, store)
    if not gold:
        raise BadRow("there is no 'gold_docs', or it is empty")
    listed = _documents(config, intake, "hard_neg_docs", row, store)
    negatives = only_negatives(listed, gold, intake, "document")
    history = turns_of(row, "chat_history")
    for number, text in enumerate(texts, 1):
        yield Question(
            id=name if len(texts) == 1 else f"{name}-{number}",
            question=text,
            answers=answers_of_row(row, "gold_answer"),
            positive_ids=tuple(gold),
            negative_ids=negatives,
            history=history,
        )


def _documents(config: LocalrqaConfig, intake: Intake, name: str, row: dict[str, Any], store: bool) -> list[str]:
    return [
        _document(config, intake, name, entry, intake.place(f".{name}[{number}]"), store)
        for number, entry in enumerate(entries(row, name))
    ]


def _document(config: LocalrqaConfig, intake: Intake, name: str, document: Any, place: str, store: bool) -> str:
    if not isinstance(document, dict):
        raise BadRow(f"{name!r} must hold documents, and one is {shown(document)}")
    metadata = document.get("metadata")
    title = metadata.get(config.title) if isinstance(metadata, dict) and config.title else None
    title = title if isinstance(title, str) else ""
    try:
        text = text_of(document, "page_content")
        # Source and number are not part of the id: lines repeat the same chunk with different metadata.
        document_id = content_id(text, title)
        if store:
            intake.passage(document_id, text, title, repeatable=True, place=place)
        else:
            intake.mention(document_id, place)
    except BadRow as error:
        raise BadRow(f"in {name!r}: {error}") from None
    return document_id


def _kind(path: Path) -> str:
    return "qa" if "_w_qa." in path.name else "q"


def _files(config: LocalrqaConfig) -> tuple[Path | None, dict[str, list[Path]]]:
    folder = data_path(config.path, config.format, folder=True)
    unknown = set(config.splits) - set(SPLITS)
    if unknown:
        raise RequestError(f"data.splits.{sorted(unknown)[0]} is not a split: give train, dev or test")
    files: dict[str, list[Path]] = {}
    usual = LocalrqaConfig().splits
    for split, name in config.splits.items():
        # The file with answers comes first: of a question in both files, the first row is kept.
        names = [f"{name}_w_{kind}.jsonl{packed}" for kind in ("qa", "q") for packed in ("", ".gz")] if name else []
        paths = [folder / file for file in names if (folder / file).is_file()]
        if paths:
            files[split] = paths
        elif name and name != usual[split]:
            raise RequestError(f"data.splits.{split}={name}: there is no {names[2]}, nor {names[0]}, in {folder}")
    if not files:
        file_names = ", ".join(f"{name}_w_q.jsonl" for name in config.splits.values() if name)
        raise RequestError(
            f"data.path={config.path}: there is none of {file_names}, nor the same with _w_qa{pickle_note(folder)}"
        )
    return passages_file(folder, "documents", config.documents), files
