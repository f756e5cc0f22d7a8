"""`data=dpr`: question files of DPR and of Fusion-in-Decoder, JSON lists or JSON lines, gzipped or not.

    DPR   {"question", "answers", "positive_ctxs": [..], "hard_negative_ctxs"?: [..], "negative_ctxs"?: [..]}
    FiD   {"question", "answers" (or "target"), "ctxs": [{"title", "text", "score"?, "isgold"?, "hasanswer"?}]}
    also DPR's and Pyserini's retrieval files: `has_answer`, `contexts`, or one object that maps query ids to questions

`data.path` is one such file, or a folder whose file names tell the splits (`nq-train.json`, `dev.jsonl.gz`). A passage
is {"title", "text", "passage_id" or "psg_id" or "id"}; without an id it is shown by its place (`dev.json[17].ctxs[0]`).
The corpus is the passages in the lines, or `data.passages`: DPR's TSV (id, text, title).

All of `ctxs` become the question's candidates, in their order. Gold are those marked `isgold`; if no line has that
mark, those marked `hasanswer`; and those listed in `positive_ctxs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rag_experiments.config.schema import DataConfig
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.contexts import entries, fingerprint_of, only_negatives, passages_file, take_in
from rag_experiments.data.formats.lines import data_path
from rag_experiments.data.formats.tables import find_files, json_rows, kind_of, named_rows, read_json, rows
from rag_experiments.data.records import Question, Where
from rag_experiments.data.row_fields import BadRow, answers_of_row, id_of, keys_of, shown, text_of, turns_of

KNOWN = frozenset(
    [
        *("id", "question_id", "question", "answers", "answer", "target", "history"),
        *("positive_ctxs", "hard_negative_ctxs", "negative_ctxs", "ctxs", "contexts"),
    ]
)
MARKS = {"isgold": ("isgold", "is_gold"), "hasanswer": ("hasanswer", "has_answer")}
"""Values of `data.gold` that are marks of a passage, and the field names of each mark."""


@dataclass(kw_only=True)
class DprConfig(DataConfig):
    """`data.path` is a file, or a folder with one file per split."""

    format: str = "dpr"
    files: dict[str, str | None] = field(default_factory=dict)
    """A file name or pattern for each split, if the names do not tell; null leaves a split out."""
    passages: str | None = None
    """A TSV (or CSV, JSONL, Parquet) with id, text and title is the whole corpus; null: it is what the lines hold."""
    gold: Literal["auto", "isgold", "hasanswer", "first", "none"] = "auto"
    """Which of `ctxs` are gold: those with `isgold`, those with `hasanswer`, the first, or none. `auto` takes `isgold`
    where it is given, else `hasanswer`."""
    easy_negatives: bool = False
    """Use `negative_ctxs` as hard negatives too."""


def fingerprint(config: DprConfig) -> str:
    """A hash of the files. Raises `RequestError` where there is none."""
    return fingerprint_of(*_files(config))


def read(config: DprConfig, intake: Intake) -> None:
    """Hand every passage and question to `intake`."""
    passages, files = _files(config)
    if passages is not None:
        for where, row in named_rows(passages, intake, ("id", "text", "title")):
            with intake.row(where):
                intake.passage(
                    id_of(row, "id"), text_of(row, "text", required=False), text_of(row, "title", required=False)
                )
    for split, paths in files.items():
        intake.split(split, str(paths[0]))
        for number, (where, row) in enumerate(_question_rows(paths, intake), 1):
            with intake.row(where):
                intake.columns(row, KNOWN)
                question = _question(config, intake, row, f"{split}-{number}", store=passages is None)
                intake.question(split, question)


def _question(config: DprConfig, intake: Intake, row: Mapping[str, Any], name: str, store: bool) -> Question:
    def passages(field: str, contexts: list[Any]) -> list[str]:
        return [take_in(intake, field, context, f"[{n}]", store=store) for n, context in enumerate(contexts)]

    positives = passages("positive_ctxs", entries(row, "positive_ctxs"))
    fields = ("hard_negative_ctxs", "negative_ctxs") if config.easy_negatives else ("hard_negative_ctxs",)
    negatives = [passage for field in fields for passage in passages(field, entries(row, field))]
    if store and not {"positive_ctxs", "ctxs", "contexts"} & row.keys():
        raise BadRow(f"there is no 'positive_ctxs' and no 'ctxs', and no data.passages to search{keys_of(row)}")
    listing = "ctxs" if entries(row, "ctxs") else "contexts"
    contexts = entries(row, listing)
    candidates = passages(listing, contexts)
    positives += [candidates[index] for index in _gold(contexts, config.gold, bool(positives))]
    return Question(
        id=id_of(row, "id") or id_of(row, "question_id") or name,
        question=text_of(row, "question"),
        answers=answers_of_row(row, "answers", "answer", "target"),
        positive_ids=tuple(positives),
        negative_ids=only_negatives(negatives, positives, intake),
        history=turns_of(row),
        candidate_ids=tuple(candidates),
    )


def _gold(contexts: list[Any], rule: str, listed: bool) -> list[int]:
    """Which entries of `ctxs` are gold by `data.gold`."""
    if rule == "none" or (rule == "auto" and listed):
        return []
    if rule == "first":
        return [0] if contexts else []
    marked = {
        mark: [i for i, context in enumerate(contexts) if isinstance(context, dict) and _marked(context, names)]
        for mark, names in MARKS.items()
    }
    if rule != "auto":
        return marked[rule]
    judged = any(isinstance(context, dict) and any(name in context for name in MARKS["isgold"]) for context in contexts)
    return marked["isgold"] if judged else marked["hasanswer"]


def _marked(context: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether one of the marks `names` is true; CSV and JSON files spell true in several ways."""
    value = next((context[name] for name in names if name in context), None)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", "1", "0"):
        return value.strip().lower() in ("true", "1")
    if value is not None and not isinstance(value, bool) and value not in (0, 1):
        raise BadRow(f"{names[0]!r} must be true or false, and is {shown(value)}")
    return bool(value)


def _question_rows(paths: tuple[Path, ...], intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """The rows of the files. A file that maps query ids to questions (Pyserini's) gives rows with their id."""
    for path in paths:
        value = read_json(path, intake) if kind_of(path) == ".json" else None
        if value is None:
            if kind_of(path) != ".json":
                yield from rows(path, intake)
        elif isinstance(value, dict) and value and "question" not in value and all(map(_is_row, value.values())):
            for query_id, row in value.items():
                yield Where(str(path), inside=f"[{query_id!r}]"), {"id": query_id, **row}
        else:
            yield from json_rows(value, path, intake)


def _is_row(value: Any) -> bool:
    return isinstance(value, dict) and "question" in value


def _files(config: DprConfig) -> tuple[Path | None, dict[str, tuple[Path, ...]]]:
    root = data_path(config.path, config.format)
    folder = root if root.is_dir() else root.parent
    files = find_files(root, config.files)
    return passages_file(folder, "passages", config.passages), files
