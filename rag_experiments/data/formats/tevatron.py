"""`data=tevatron`: training files of Tevatron, and files with the same layout, such as MS MARCO's.

    {"query_id", "query", "answers"?: [..], "positive_passages": [{"docid", "title"?, "text"}..],
     "negative_passages"?: [..]}

A passage may have a `score`, what it is worth to the question by somebody's judgement. FlagEmbedding's rows, {"query",
"pos", "neg", "pos_scores"?, "neg_scores"?}, list the scores beside the passages, in the same order.

`data.path` is one such file (JSON lines, JSON list or Parquet, gzipped or not), or a folder whose file names tell the
splits. If the rows hold only ids (`positive_document_ids`), `data.corpus` names the file with `docid`, `title` and
`text`. Every field can be renamed: `data.columns.question=text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_experiments.config.schema import DataConfig
from rag_experiments.data.bad_row import MissingColumn
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.contexts import (
    ID_KEYS,
    entries,
    fingerprint_of,
    only_negatives,
    passages_file,
    take_in,
)
from rag_experiments.data.formats.lines import data_path
from rag_experiments.data.formats.tables import all_rows, find_files, rows
from rag_experiments.data.records import Question
from rag_experiments.data.row_fields import (
    BadRow,
    answers_of_row,
    id_of,
    keys_of,
    number_of,
    shown,
    text_of,
    whole_number,
)


@dataclass(kw_only=True)
class TevatronColumns:
    """Names of the fields in the files."""

    id: str = "query_id"
    """The field of the question's id."""
    question: str = "query"
    """The field of the question's text."""
    answers: str = "answers"
    """The field of the answers, which may be missing."""
    positives: str = "positive_passages"
    """The field of the passages that answer the question."""
    negatives: str = "negative_passages"
    """The field of the passages that do not, which may be missing."""
    positive_ids: str = "positive_document_ids"
    """The field of the positives' ids, for rows that hold ids only."""
    negative_ids: str = "negative_document_ids"
    """The field of the negatives' ids, for rows that hold ids only."""
    positive_scores: str = "pos_scores"
    """The field of the positives' scores, a list in their order, which may be missing."""
    negative_scores: str = "neg_scores"
    """The field of the negatives' scores, a list in their order, which may be missing."""
    passage_id: str = "docid"
    """The field of a passage's id."""
    passage_title: str = "title"
    """The field of a passage's title."""
    passage_text: str = "text"
    """The field of a passage's text."""
    passage_score: str = "score"
    """The field of a passage's score, which may be missing."""


@dataclass(kw_only=True)
class TevatronConfig(DataConfig):
    """`data.path` is a file, or a folder with one file per split."""

    format: str = "tevatron"
    files: dict[str, str | None] = field(default_factory=dict)
    """A file name or pattern for each split, if the names do not tell; null leaves a split out."""
    corpus: str | None = None
    """A file of passages, needed if rows hold only ids; otherwise it adds distractors to the passages in the rows."""
    columns: TevatronColumns = field(default_factory=TevatronColumns)
    """The names of the fields."""


def fingerprint(config: TevatronConfig) -> str:
    """A hash of the files. Raises `RequestError` where there is none."""
    return fingerprint_of(*_files(config))


def read(config: TevatronConfig, intake: Intake) -> None:
    """Hand every passage and question to `intake`."""
    corpus, files = _files(config)
    names = config.columns
    intake.column_report.expect(
        {key: name for key, name in vars(names).items() if not key.startswith("passage_")}, vars(TevatronColumns())
    )
    if corpus is not None:
        for where, row in rows(corpus, intake):
            with intake.row(where):
                intake.passage(
                    _passage_id(row, names),
                    text_of(row, names.passage_text, required=False),
                    text_of(row, names.passage_title, required=False),
                )
    for split, paths in files.items():
        intake.split(split, str(paths[0]))
        for number, (where, row) in enumerate(all_rows(paths, intake), 1):
            with intake.row(where):
                intake.columns(row, vars(names).values())
                intake.question(split, _question(row, names, intake, f"{split}-{number}", corpus is None))


def _question(row: Mapping[str, Any], names: TevatronColumns, intake: Intake, default: str, store: bool) -> Question:
    def passages(field: str, ids: str) -> list[str]:
        inline = [
            take_in(
                intake, field, c, f"[{n}]", text=names.passage_text, title=names.passage_title, ids=keys, store=store
            )
            for n, c in enumerate(entries(row, field))
        ]
        return inline + [_as_id(value, ids) for value in entries(row, ids)]

    def listed_scores(field: str, passage_ids: list[str], listing: str) -> dict[str, float]:
        within = [c.get(names.passage_score) if isinstance(c, Mapping) else None for c in entries(row, field)]
        own = row.get(listing)
        values = own if isinstance(own, list) else entries(row, listing)  # `entries` leaves out null, which has a place
        if values and len(values) != len(passage_ids):
            raise BadRow(f"{listing!r} has {len(values)} numbers for {len(passage_ids)} passages")
        where = listing if values else names.passage_score
        found = zip(passage_ids, values or within, strict=False)
        return {name: number_of(value, where) for name, value in found if value is not None}

    keys = (names.passage_id, *ID_KEYS)
    if store and names.positives not in row:
        if names.positive_ids in row:
            raise BadRow(f"there are ids only ({names.positive_ids!r}): data.corpus names the file of their passages")
        raise MissingColumn(f"there is no {names.positives!r}, and no data.corpus to search{keys_of(row)}")
    positives = passages(names.positives, names.positive_ids)
    negatives = passages(names.negatives, names.negative_ids)
    scores = listed_scores(names.negatives, negatives, names.negative_scores)
    scores |= listed_scores(names.positives, positives, names.positive_scores)
    return Question(
        id=id_of(row, names.id) or default,
        question=text_of(row, names.question),
        answers=answers_of_row(row, names.answers),
        positive_ids=tuple(positives),
        negative_ids=only_negatives(negatives, positives, intake),
        scores=scores or None,
    )


def _passage_id(row: Mapping[str, Any], names: TevatronColumns) -> str:
    return next((value for key in (names.passage_id, *ID_KEYS) if (value := id_of(row, key))), "")


def _as_id(value: Any, name: str) -> str:
    number = whole_number(value)
    if number is None and not isinstance(value, str):
        raise BadRow(f"{name!r} must hold ids, and one is {shown(value)}")
    return str(value if number is None else number)


def _files(config: TevatronConfig) -> tuple[Path | None, dict[str, tuple[Path, ...]]]:
    root = data_path(config.path, config.format)
    folder = root if root.is_dir() else root.parent
    files = find_files(root, config.files)
    return passages_file(folder, "corpus", config.corpus), files
