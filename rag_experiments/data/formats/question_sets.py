"""A whole retrieval data set in one JSON object: LlamaIndex's question sets, sentence-transformers' evaluators.

    {"queries": {id: text}, "corpus": {id: text or {"title", "text"}}, "relevant_docs": {query id: [passage id..]}}
    {"anchors": [..], "positives": [..], "negatives"?: [..]}

Judgements may have grades ({passage id: grade}); answers are in `answers` ({query id: text or list}). Queries without
a judgement are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rag_experiments.data.bad_row import BadRow, shown
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.contexts import take_in
from rag_experiments.data.records import Question, Where
from rag_experiments.data.row_fields import answers_of_row, text_of, whole_number

JUDGEMENTS = ("relevant_docs", "relevant_documents", "qrels", "relevance")


def is_one(value: Mapping[str, Any]) -> bool:
    """Whether the JSON object of a file is such a question set."""
    queries = isinstance(value.get("queries"), dict) and isinstance(value.get("corpus"), dict)
    return queries or all(isinstance(value.get(name), list) for name in ("anchors", "positives"))


def read(value: Mapping[str, Any], file: str, split: str, intake: Intake) -> None:
    """Add the passages and questions of the set to `intake`."""
    if "anchors" in value:
        _read_triplets(value, file, split, intake)
        return
    for passage_id, entry in value["corpus"].items():
        with intake.row(Where(file, inside=f": corpus[{passage_id!r}]")):
            row = {"text": entry} if isinstance(entry, str) else entry
            if not isinstance(row, dict):
                raise BadRow(f"a passage is a text, or an object with 'text', and this is {shown(entry)}")
            title = text_of(row, "title", required=False)
            intake.passage(passage_id, text_of(row, "text", required=False), title, repeatable=True)
    judged = next((value[name] for name in JUDGEMENTS if isinstance(value.get(name), dict)), None)
    if judged is None:
        intake.problem(
            Where(file), f"there are queries and a corpus, but no object {JUDGEMENTS[0]!r} with their judgements"
        )
        return
    for query_id, text in value["queries"].items():
        with intake.row(Where(file, inside=f": queries[{query_id!r}]")):
            grades = dict(_grades(judged.get(query_id)))
            positives = tuple(passage for passage, grade in grades.items() if grade > 0)
            if not positives:
                intake.remark("a query has no passage that is judged above 0, and is left out")
                continue
            answers = value.get("answers")
            intake.question(
                split,
                Question(
                    id=query_id,
                    question=text_of({"query": text}, "query"),
                    answers=answers_of_row({"answers": answers.get(query_id)}, "answers")
                    if isinstance(answers, dict)
                    else (),
                    positive_ids=positives,
                    relevance=None if set(grades.values()) == {1} else grades,
                ),
            )
    for query_id in judged:
        if query_id not in value["queries"]:
            where = Where(file, inside=f": {query_id!r}")
            intake.remark("a judged query is not among the queries, and is left out", where)


def _grades(judged: Any) -> Iterator[tuple[str, int]]:
    """Passage id and grade of each judgement of a query."""
    if isinstance(judged, str):
        judged = [judged]
    if isinstance(judged, list):
        judged = dict.fromkeys(map(str, judged), 1)
    for passage, grade in (judged or {}).items() if isinstance(judged, dict) or judged is None else [(judged, None)]:
        number = whole_number(grade)
        if number is None:
            raise BadRow(f"its judgements must be a list of ids, or ids with whole numbers, and are {shown(judged)}")
        yield passage, number


def _read_triplets(value: Mapping[str, Any], file: str, split: str, intake: Intake) -> None:
    lists = {name: value[name] for name in ("anchors", "positives", "negatives") if value.get(name) is not None}
    if len({len(entries) for entries in lists.values()}) != 1:
        lengths = ", ".join(f"{name}: {len(entries)}" for name, entries in lists.items())
        intake.problem(Where(file), f"the lists differ in length ({lengths})")
        return
    for number, row in enumerate(zip(*lists.values(), strict=True)):
        with intake.row(Where(file, inside=f": anchors[{number}]")):
            one = dict(zip(lists, row, strict=True))
            ids_by_list = {
                name: [
                    take_in(intake, name, c, f"[{n}]" if isinstance(one[name], list) else "")
                    for n, c in enumerate(one[name] if isinstance(one[name], list) else [one[name]])
                ]
                for name in lists
                if name != "anchors"
            }
            positives = tuple(dict.fromkeys(ids_by_list["positives"]))
            negatives = tuple(value for value in ids_by_list.get("negatives", ()) if value not in positives)
            question = Question(f"{split}-{number + 1}", text_of(one, "anchors"), (), positives, negatives)
            intake.question(split, question)
