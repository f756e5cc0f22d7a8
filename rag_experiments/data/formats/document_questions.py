"""Questions about a folder of documents, from a file: which passages are gold.

In this order: the row's `positive_ids`; those passages of the row's document that hold an answer; the one place in all
documents that holds an answer and speaks of the question (`gold_placement.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.data.builder import Intake
from rag_experiments.data.column_names import preferred
from rag_experiments.data.formats.cut import find_answer
from rag_experiments.data.formats.gold_placement import GoldPlacement, Passage
from rag_experiments.data.formats.squad import answers_of
from rag_experiments.data.formats.tables import rows
from rag_experiments.data.records import Question
from rag_experiments.data.row_fields import BadRow, id_of, text_of, texts_of, turns_of

OWN_COLUMNS = ("id", "document", "positive_ids", "history")
DOCUMENT_COLUMNS = ("file", "filename", "source")
"""Columns that name the document where `document` does not; a value that is no document's path says nothing."""
PLACED = "a question names no document: its gold passage is the one that holds an answer and has the question's words"
KEPT = "it stays, without a gold passage"
LEFT_OUT = (
    "it is left out. Give its 'document' or 'positive_ids'; algorithm=rpg, dca and fid need neither: "
    "data.keep_unplaced=true keeps it"
)


@dataclass(frozen=True)
class CutDocument:
    """A document and its passages, in the order of its text."""

    text: str
    passages: Sequence[Passage]


def read_questions(file: Path, documents: Mapping[str, CutDocument], keep_unplaced: bool, intake: Intake) -> None:
    """Hand the questions of `file` to `intake`.

    Args:
        documents: path in the folder → document.
        keep_unplaced: whether a question whose gold passage is not clear stays, without one.

    Raises:
        RequestError: the file cannot be read, or no question has a gold passage and none is kept.
    """
    intake.split("train", str(file))
    reader = _Reader(documents, keep_unplaced, intake)
    for number, (where, row) in enumerate(rows(file, intake), 1):
        with intake.row(where):
            reader.read(row, f"train-{number}")
    if reader.left_out and not intake.splits["train"]:
        raise RequestError(
            f"{file}: no question has a gold passage: {reader.left_out} name no document, and no passage holds an "
            f"answer of theirs and enough of the question. Give 'document' (a path in the folder) or 'positive_ids' "
            f"(such as {next(iter(documents), 'guide.md')}#0); algorithm=rpg, dca and fid need neither: "
            "data.keep_unplaced=true"
        )


class _Reader:
    def __init__(self, documents: Mapping[str, CutDocument], keep_unplaced: bool, intake: Intake):
        self.documents, self.keep_unplaced, self.intake = documents, keep_unplaced, intake
        self.left_out = 0
        self._placement: GoldPlacement | None = None

    def read(self, row: Mapping[str, Any], default_id: str) -> None:
        columns = {role: preferred(role, row) or role for role in ("question", "answers")}
        document_column = self._document_column(row)
        self.intake.columns(row, {*OWN_COLUMNS, *columns.values(), document_column})
        text = text_of(row, columns["question"])
        answers = tuple(answer.text for answer in answers_of(row.get(columns["answers"]), columns["answers"]))
        positives = texts_of(row, "positive_ids", example='["guide.md#3"]')
        name = text_of(row, document_column, required=False)
        if name and not positives:
            if name not in self.documents:
                raise BadRow(f"'document' is {name!r}, and there is no such file among the documents")
            positives = tuple(dict.fromkeys(_holders(self.documents[name], answers)))
            if not positives:
                raise BadRow(f"no answer stands in {name!r}, so it has no gold passage (give 'positive_ids')")
        elif answers and not positives:
            positives = self._placed(text, answers)
            if not positives and not self.keep_unplaced:
                self.left_out += 1
                return
        group = name or (positives[0].rpartition("#")[0] if positives else None)
        question = Question(id_of(row, "id") or default_id, text, answers, positives, history=turns_of(row))
        self.intake.question("train", question, group)

    def _document_column(self, row: Mapping[str, Any]) -> str:
        if row.get("document"):
            return "document"
        names = (name for name in DOCUMENT_COLUMNS if isinstance(row.get(name), str) and row[name] in self.documents)
        return next(names, "document")

    def _placed(self, question: str, answers: Sequence[str]) -> tuple[str, ...]:
        if self._placement is None:
            self._placement = GoldPlacement([one for document in self.documents.values() for one in document.passages])
        placed = self._placement.place(question, answers)
        if placed.ids:
            self.intake.remark(PLACED)
        else:
            why = (
                "its answer stands in several passages and none is ahead, or in one that has few of its words"
                if placed.holders
                else "its answer stands in no passage"
            )
            kept = KEPT if self.keep_unplaced else LEFT_OUT
            self.intake.remark(f"a question names no document, and {why}: {kept}")
        return placed.ids


def _holders(document: CutDocument, answers: Sequence[str]) -> Iterator[str]:
    """Ids of the passages that hold the first occurrence of an answer."""
    for answer in answers:
        place, _ = find_answer(document.text, answer, None)
        if place is not None:
            for passage in document.passages:
                if passage.start <= place and place + len(answer.strip()) <= passage.start + len(passage.text):
                    yield passage.id
