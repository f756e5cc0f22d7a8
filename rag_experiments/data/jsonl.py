"""`data=jsonl`: the native format, a folder of JSON-lines files (each may be gzipped).

    passages.jsonl       {"id", "title"?, "text", …}             id a string, unique
    train.jsonl          {"id"?, "question", "answers"?: [..], "positive_ids"?: [..], "negative_ids"?: [..],
    dev.jsonl?            "history"?: [{"role", "content"}..]}
    test.jsonl?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_experiments.data.raw import Located, RawData, hash_files, read_jsonl, text_field, text_list
from rag_experiments.data.schema import Passage, Question, Turn
from rag_experiments.errors import RequestError
from rag_experiments.schema import DataConfig

SPLITS = ("train", "dev", "test")


@dataclass(kw_only=True)
class JsonlConfig(DataConfig):
    """`data.path` is the folder."""

    format: str = "jsonl"


def signature(config: JsonlConfig) -> str:
    """A hash of the files' contents.

    Raises:
        RequestError: the folder or a file that must be there is missing.
    """
    folder = _folder(config)
    return hash_files([_file(folder, "passages", required=True), *_split_files(folder).values()])


def read(config: JsonlConfig) -> RawData:
    """See `signature` for what is refused here, `load.load_data` for what is checked across lines."""
    folder = _folder(config)
    passages = _file(folder, "passages", required=True)
    splits = {name: list(_questions(path, name)) for name, path in _split_files(folder).items()}
    return RawData(passages=lambda: _passages(passages), splits=splits)


def _folder(config: JsonlConfig) -> Path:
    if not config.path:
        raise RequestError("data.path has no value: data=jsonl needs the folder with passages.jsonl and train.jsonl")
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise RequestError(f"data.path={config.path}: there is no such folder")
    return folder


def _file(folder: Path, name: str, required: bool) -> Path | None:
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.is_file():
            return path
    if required:
        raise RequestError(f"data.path={folder}: there is no {name}.jsonl in that folder")
    return None


def _split_files(folder: Path) -> dict[str, Path]:
    files = {name: _file(folder, name, required=name == "train") for name in SPLITS}
    return {name: path for name, path in files.items() if path is not None}


def _passages(path: Path) -> Iterator[Located[Passage]]:
    for line in read_jsonl(path):
        passage = Passage(text_field(line, "id"), text_field(line, "text"), text_field(line, "title", required=False))
        yield Located(passage, line.where)


def _questions(path: Path, split: str) -> Iterator[Located[Question]]:
    for number, line in enumerate(read_jsonl(path), start=1):
        question = Question(
            id=text_field(line, "id", required=False) or f"{split}-{number}",
            question=text_field(line, "question"),
            answers=text_list(line, "answers"),
            positive_ids=text_list(line, "positive_ids"),
            negative_ids=text_list(line, "negative_ids"),
            history=tuple(_turns(line)),
        )
        yield Located(question, line.where)


def _turns(line: Located[dict[str, Any]]) -> Iterator[Turn]:
    history = line.value.get("history") or []
    if not isinstance(history, list):
        raise RequestError(f"{line.where}: 'history' must be a list of {{\"role\", \"content\"}}")
    for turn in history:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise RequestError(f"{line.where}: each turn of 'history' needs a 'role' and a 'content'")
        if turn.get("role") not in ("user", "assistant", "system"):
            raise RequestError(f"{line.where}: a turn's 'role' is {turn.get('role')!r}; user or assistant is wanted")
        yield Turn(turn["role"], turn["content"])
