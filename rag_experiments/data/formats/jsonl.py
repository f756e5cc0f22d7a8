"""`data=jsonl`: the native format, a folder of JSON-lines files (each may be gzipped).

    passages.jsonl       {"id", "title"?, "text", "hashed_as"?, …}    id a string, unique
    train.jsonl          {"id"?, "question", "answers"?: [..], "positive_ids"?: [..], "negative_ids"?: [..],
    dev.jsonl?            "history"?: [{"role", "content"}..], "relevance"?: {passage id: grade},
    test.jsonl?           "scores"?: {passage id: number}, "candidate_ids"?: [..]}

Without a dev or test file, a split is made (see `split.py`). A folder with only dev or test can be
evaluated, not trained on. Other keys are ignored, and a note names them.

`hashed_as` is written by convert, mine, generate and check for passages that had no id: with it the data are the same
data set as before, whatever the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_experiments.config.schema import DataConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import SPLITS, Intake
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.lines import data_path, json_lines, pickle_note
from rag_experiments.data.records import Question
from rag_experiments.data.row_fields import BadRow, id_of, number_of, shown, text_of, texts_of, turns_of
from rag_experiments.data.shown_ids import HASHED_AS

KNOWN = frozenset(
    ("id", "question", "answers", "positive_ids", "negative_ids", "history", "relevance", "scores", "candidate_ids")
)
"""Keys of a question's line."""
_IDS = '["p17"]'


@dataclass(kw_only=True)
class JsonlConfig(DataConfig):
    """`data.path` is the folder."""

    format: str = "jsonl"


def fingerprint(config: JsonlConfig) -> str:
    """A hash of the files' names and contents. Raises `RequestError` if a required file is missing."""
    passages, splits = _files(config)
    return files_fingerprint([passages, *splits.values()])


def read(config: JsonlConfig, intake: Intake) -> None:
    """Hand every passage and question to `intake`."""
    passages, splits = _files(config)
    for where, row in json_lines(passages, intake):
        with intake.row(where):
            shown, hashed = text_of(row, "id"), text_of(row, HASHED_AS, required=False)
            place = shown if hashed else ""
            text, title = text_of(row, "text"), text_of(row, "title", required=False)
            intake.passage(hashed or shown, text, title, place=place, alias=bool(place))
    for split, path in splits.items():
        intake.split(split, str(path))
        for where, row in json_lines(path, intake):
            with intake.row(where):
                intake.columns(row, KNOWN)
                intake.question(split, native_question(row, f"{split}-{where.line}"))


def native_question(row: Mapping[str, Any], default_id: str) -> Question:
    """The question of a native row. Raises `BadRow`."""
    return Question(
        id=id_of(row, "id") or default_id,
        question=text_of(row, "question"),
        answers=texts_of(row, "answers"),
        positive_ids=texts_of(row, "positive_ids", example=_IDS),
        negative_ids=texts_of(row, "negative_ids", example=_IDS),
        history=turns_of(row),
        relevance=_relevance(row),
        scores=_scores(row),
        candidate_ids=texts_of(row, "candidate_ids", example=_IDS),
    )


def _relevance(row: Mapping[str, Any]) -> dict[str, int] | None:
    value = row.get("relevance")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(type(grade) is int for grade in value.values()):
        raise BadRow(f"'relevance' must map passage ids to whole numbers, and is {shown(value)}")
    return dict(value)


def _scores(row: Mapping[str, Any]) -> dict[str, float] | None:
    value = row.get("scores")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRow(f"'scores' must map passage ids to numbers, and is {shown(value)}")
    return {name: number_of(score, "scores") for name, score in value.items()} or None


def _files(config: JsonlConfig) -> tuple[Path, dict[str, Path]]:
    folder = data_path(config.path, config.format, folder=True)
    passages = _file(folder, "passages")
    if passages is None:
        raise RequestError(f"data.path={config.path}: there is no passages.jsonl in that folder{pickle_note(folder)}")
    splits = {name: path for name in SPLITS if (path := _file(folder, name)) is not None}
    if not splits:
        raise RequestError(f"data.path={config.path}: there is no train.jsonl in that folder (nor dev or test)")
    return passages, splits


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if path.is_file()), None)
