"""`data=beir`: a BEIR folder.

    corpus.jsonl         {"_id", "title"?, "text"}
    queries.jsonl        {"_id", "text"}
    qrels/train.tsv      query-id, corpus-id, score (a header line, tabs); also dev.tsv and test.tsv; TREC's four
                         columns (query-id, 0, corpus-id, score) and no header as well

MS MARCO's own files are read too: collection.tsv (id, text) and queries.*.tsv (id, text), without a header, and
qrels.*.tsv in the same folder or in `qrels/`.

Judgements keep their grades; a passage judged above 0 is gold. Queries without a judgement are left out, and a note
gives their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_experiments.config.schema import DataConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.lines import data_path, json_lines, pickle_note, text_lines
from rag_experiments.data.formats.tables import kind_of, named_rows
from rag_experiments.data.records import Question, Where
from rag_experiments.data.row_fields import BadRow, id_of, text_of, texts_of

SPLIT_FILES = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
_HEADER_ENDS = ("score", "relevance", "rel", "label", "grade", "judgment", "judgement")


KNOWN = frozenset(("_id", "id", "pid", "qid", "docid", "query-id", "text", "query", "answers", "metadata"))
"""Keys of a query; what a corpus holds besides title and text is nobody's question."""


@dataclass(kw_only=True)
class BeirConfig(DataConfig):
    """`data.path` is the folder."""

    format: str = "beir"


def fingerprint(config: BeirConfig) -> str:
    """A hash of the files. Raises `RequestError` if a required file is missing."""
    corpus, queries, qrels = _files(config)
    return files_fingerprint([corpus, *queries, *qrels.values()])


def read(config: BeirConfig, intake: Intake) -> None:
    """Hand every passage, and every judged query, to `intake`."""
    corpus, queries, qrels = _files(config)
    for where, row in _rows(corpus, intake, ("_id", "text")):
        with intake.row(where):
            intake.passage(_id(row), text_of(row, "text", required=False), text_of(row, "title", required=False))
    query_by_id: dict[str, tuple[Where, str, tuple[str, ...]]] = {}
    for where, row in (pair for path in queries for pair in _rows(path, intake, ("_id", "text"))):
        with intake.row(where):
            intake.columns(row, KNOWN)
            query_id, text = _id(row), text_of(row, "text" if row.get("text") is not None else "query")
            if (
                query_id in query_by_id
                and query_by_id[query_id][1] == text
                and query_by_id[query_id][0].file != where.file
            ):
                continue  # MS MARCO's queries.dev.small.tsv are among those of queries.dev.tsv
            if query_id in query_by_id:
                raise BadRow(f"query id {query_id!r} is used by {query_by_id[query_id][0]} already")
            query_by_id[query_id] = (where, text, texts_of(row, "answers"))
    judged: set[str] = set()
    for split, path in qrels.items():
        intake.split(split, str(path))
        judgements = _judgements(path, query_by_id, intake)
        judged |= judgements.keys()
        for query_id, (where, grades) in judgements.items():
            _, text, answers = query_by_id[query_id]
            with intake.row(where):
                positives = tuple(passage for passage, grade in grades.items() if grade > 0)
                if not positives:
                    intake.remark("a query has no passage that is judged above 0, and is left out", where)
                    continue
                intake.question(split, Question(query_id, text, answers, positives, relevance=grades))
    for query_id, (where, _, _) in query_by_id.items():
        if query_id not in judged:
            intake.remark("a query is judged in no split, and is left out", where)


def _judgements(
    path: Path, query_by_id: dict[str, tuple[Where, str, tuple[str, ...]]], intake: Intake
) -> dict[str, tuple[Where, dict[str, int]]]:
    """For each query id, the place of its first judgement, and its grades by passage id."""
    judgements: dict[str, tuple[Where, dict[str, int]]] = defaultdict(lambda: (Where(str(path)), {}))
    for where, line in text_lines(path, intake):
        cells = line.split("\t") if "\t" in line else line.split()
        if where.line == 1 and cells[-1].strip().lower() in _HEADER_ENDS:
            continue
        with intake.row(where):
            if len(cells) == 4:  # the second column of TREC's qrels is an iteration, always 0
                del cells[1]
            if len(cells) != 3:
                raise BadRow(f"a line needs query id, passage id and score, and this one has {len(cells)} columns")
            query_id, passage_id, score = (cell.strip() for cell in cells)
            if query_id not in query_by_id:
                raise BadRow(f"query id {query_id!r} is not among the queries")
            grade = _grade(score)
            if query_id not in judgements:
                judgements[query_id] = (where, {})
            if judgements[query_id][1].setdefault(passage_id, grade) != grade:
                raise BadRow(f"passage {passage_id!r} has two different scores for query {query_id!r}")
    return dict(judgements)


def _grade(score: str) -> int:
    try:
        value = float(score)
        grade = int(value)
    except (ValueError, OverflowError):
        grade, value = 0, float("nan")
    if grade != value:
        raise BadRow(f"the score must be a whole number, and is {score!r}")
    return grade


def _id(row: dict[str, object]) -> str:
    value = next(
        (identifier for name in ("_id", "id", "pid", "qid", "docid", "query-id") if (identifier := id_of(row, name))),
        "",
    )
    if not value:
        raise BadRow("there is no '_id'")
    return value


def _rows(path: Path, intake: Intake, names: tuple[str, ...]) -> Iterator[tuple[Where, dict[str, Any]]]:
    yield from named_rows(path, intake, names) if kind_of(path) == ".tsv" else json_lines(path, intake)


def _files(config: BeirConfig) -> tuple[Path, list[Path], dict[str, Path]]:
    folder = data_path(config.path, config.format, folder=True)
    corpus = _one(folder, ("corpus",), "jsonl") or _one(folder, ("collection", "corpus"), "tsv")
    if corpus is None:
        raise RequestError(
            f"data.path={config.path}: there is no corpus.jsonl (nor collection.tsv) in that folder"
            f"{pickle_note(folder)}"
        )
    one = _one(folder, ("queries",), "jsonl")
    queries = [one] if one is not None else sorted([*folder.glob("queries*.tsv"), *folder.glob("queries*.tsv.gz")])
    if not queries:
        raise RequestError(
            f"data.path={config.path}: there is no queries.jsonl (nor queries.*.tsv) in that folder"
            f"{pickle_note(folder)}"
        )
    path_by_split = {split: _qrels(folder, names) for split, names in SPLIT_FILES.items()}
    qrels = {split: path for split, path in path_by_split.items() if path is not None}
    if not qrels:
        raise RequestError(
            f"data.path={config.path}: there is no qrels/train.tsv (nor dev or test, nor qrels.*.tsv) in that folder"
        )
    return corpus, queries, qrels


def _qrels(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The file of a split's judgements: in `qrels/`, or next to the queries as in MS MARCO (`qrels.dev.small.tsv`)."""
    beside = tuple(f"qrels.{name}{more}" for name in names for more in ("", ".small"))
    return _one(folder / "qrels", names, "tsv", "txt") or _one(folder, beside, "tsv", "txt")


def _one(folder: Path, names: tuple[str, ...], *kinds: str) -> Path | None:
    paths = (folder / f"{name}.{kind}{packed}" for name in names for kind in kinds for packed in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)
