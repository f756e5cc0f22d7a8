"""`data=beir`: a BEIR folder.

    corpus.jsonl         {"_id", "title"?, "text"}
    queries.jsonl        {"_id", "text"}
    qrels/train.tsv      query-id, corpus-id, score (a header line, tabs); also dev.tsv and test.tsv; TREC's four
                         columns (query-id, 0, corpus-id, score) and no header as well

Judgements keep their grades; a passage judged above 0 is gold. Queries without a judgement are left out,
and that is said.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rag_experiments.config.schema import DataConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.lines import data_path, json_lines, pickle_note, text_lines
from rag_experiments.data.records import Question, Where
from rag_experiments.data.row_fields import BadRow, id_of, text_of, texts_of

SPLIT_FILES = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
_HEADER_ENDS = ("score", "relevance", "rel", "label", "grade", "judgment", "judgement")


@dataclass(kw_only=True)
class BeirConfig(DataConfig):
    """`data.path` is the folder."""

    format: str = "beir"


def fingerprint(config: BeirConfig) -> str:
    """A hash of the files. Raises `RequestError` where one that must be there is not."""
    corpus, queries, qrels = _files(config)
    return files_fingerprint([corpus, queries, *qrels.values()])


def read(config: BeirConfig, intake: Intake) -> None:
    """Hand every passage, and every judged query, to `intake`."""
    corpus, queries, qrels = _files(config)
    for where, row in json_lines(corpus, intake):
        with intake.row(where):
            intake.passage(_id(row), text_of(row, "text", required=False), text_of(row, "title", required=False))
    asked: dict[str, tuple[Where, str, tuple[str, ...]]] = {}
    for where, row in json_lines(queries, intake):
        with intake.row(where):
            query_id, text = _id(row), text_of(row, "text")
            if query_id in asked:
                raise BadRow(f"query id {query_id!r} is used by {asked[query_id][0]} already")
            asked[query_id] = (where, text, texts_of(row, "answers"))
    judged: set[str] = set()
    for split, path in qrels.items():
        intake.split(split, str(path))
        judgements = _judgements(path, asked, intake)
        judged |= judgements.keys()
        for query_id, (where, grades) in judgements.items():
            _, text, answers = asked[query_id]
            with intake.row(where):
                positives = tuple(passage for passage, grade in grades.items() if grade > 0)
                if not positives:
                    intake.remark("a query has no passage that is judged above 0, and is left out", where)
                    continue
                intake.question(split, Question(query_id, text, answers, positives, relevance=grades))
    for query_id, (where, _, _) in asked.items():
        if query_id not in judged:
            intake.remark("a query is judged in no split, and is left out", where)


def _judgements(
    path: Path, asked: dict[str, tuple[Where, str, tuple[str, ...]]], intake: Intake
) -> dict[str, tuple[Where, dict[str, int]]]:
    """Query id to the place of its first judgement, and passage id to grade."""
    found: dict[str, tuple[Where, dict[str, int]]] = defaultdict(lambda: (Where(str(path)), {}))
    for where, line in text_lines(path, intake):
        cells = line.split("\t") if "\t" in line else line.split()
        if where.line == 1 and cells[-1].strip().lower() in _HEADER_ENDS:
            continue
        with intake.row(where):
            if len(cells) == 4:  # TREC's qrels have an iteration, always 0, in the second place
                del cells[1]
            if len(cells) != 3:
                raise BadRow(f"query id, passage id and score are wanted, and here are {len(cells)} columns")
            query_id, passage_id, score = (cell.strip() for cell in cells)
            if query_id not in asked:
                raise BadRow(f"query id {query_id!r} is not in queries.jsonl")
            grade = _grade(score)
            if query_id not in found:
                found[query_id] = (where, {})
            if found[query_id][1].setdefault(passage_id, grade) != grade:
                raise BadRow(f"passage {passage_id!r} has two different scores for query {query_id!r}")
    return dict(found)


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
    value = id_of(row, "_id") or id_of(row, "id")
    if not value:
        raise BadRow("there is no '_id'")
    return value


def _files(config: BeirConfig) -> tuple[Path, Path, dict[str, Path]]:
    folder = data_path(config.path, config.format, folder=True)
    corpus, queries = _one(folder, ("corpus",), "jsonl"), _one(folder, ("queries",), "jsonl")
    for name, path in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        if path is None:
            raise RequestError(f"data.path={config.path}: there is no {name} in that folder{pickle_note(folder)}")
    found = {split: _one(folder / "qrels", names, "tsv", "txt") for split, names in SPLIT_FILES.items()}
    qrels = {split: path for split, path in found.items() if path is not None}
    if not qrels:
        raise RequestError(f"data.path={config.path}: there is no qrels/train.tsv (nor dev or test) in that folder")
    assert corpus is not None
    assert queries is not None
    return corpus, queries, qrels


def _one(folder: Path, names: tuple[str, ...], *kinds: str) -> Path | None:
    paths = (folder / f"{name}.{kind}{packed}" for name in names for kind in kinds for packed in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)
