"""Questions with the text that contains their answer: SQuAD and data sets with its fields.

Contexts become passages, each once. An answer's offset decides which passage is gold. If the offset does not point at
the answer, this is counted, and the nearest occurrence of the answer is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rag_experiments.data.builder import Intake
from rag_experiments.data.cells import is_missing, listed
from rag_experiments.data.formats.cut import Piece, cut_by_words, find_answer, piece_at
from rag_experiments.data.records import Question, Turn, Where
from rag_experiments.data.row_fields import BadRow, content_id, id_of, shown, text_of, whole_number


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and the position in its context where it begins, if the data gives it."""

    text: str
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """A passage and its place in the context from which it was cut."""

    id: str
    piece: Piece


@dataclass
class Cutter:
    """Cuts contexts into passages and finds, for each question, the passages in which its answers begin."""

    intake: Intake
    words: int | None
    overlap: int = 0
    _cuts: dict[str, list[Cut]] = field(default_factory=dict)

    def passages(self, context: str, title: str, name: str = "", part: str = "") -> list[Cut]:
        """The passages of a context; they are added to the intake the first time. Raises `BadRow` if it is empty.

        Without a `name` they are shown by their place: that of the row, then `part`, the context's place in the row.
        """
        key = content_id(context, title)
        if key not in self._cuts:
            pieces = (
                cut_by_words(context, self.words, self.overlap) if self.words else [Piece(context, 0, len(context))]
            )
            if not pieces:
                raise BadRow("the context is empty")
            numbers = ["" if len(pieces) == 1 and not name else f"#{number}" for number in range(len(pieces))]
            ids = [f"{name or key}{number}" for number in numbers]
            for passage_id, piece, number in zip(ids, pieces, numbers, strict=True):
                place = "" if name else self.intake.place(part + number)
                self.intake.passage(passage_id, piece.text, title, repeatable=True, place=place)
            self._cuts[key] = [Cut(*pair) for pair in zip(ids, pieces, strict=True)]
        return self._cuts[key]

    def question(
        self,
        split: str,
        *,
        question: str,
        id: str,
        answers: Sequence[Answer],
        contexts: Sequence[str],
        parts: Sequence[str] = ("",),
        title: str = "",
        name: str = "",
        negatives: Sequence[str] = (),
        history: tuple[Turn, ...] = (),
        group: str | None = None,
        about: str | None = None,
        place: int | None = None,
    ) -> None:
        """Add one question to the intake: `about` is the text it needs to be understood, `place` its answer's position.

        `parts` are the places of `contexts` in the row, as in `passages`.
        A question whose context is cut and does not contain its answer is left out, with a note.
        """
        golds: list[str] = []
        lost = False
        for context, part in zip(contexts, parts, strict=True):
            cuts = self.passages(context, title, name if len(contexts) == 1 else "", part)
            if place is None:
                context_golds = self._golds(context, cuts, answers)
            else:
                context_golds = [cuts[piece_at([cut.piece for cut in cuts], place)].id]
            lost = lost or not context_golds
            golds += context_golds
        if lost and not golds:
            if not answers:
                self.intake.column_report.needed.add("answers")
            self.intake.remark(
                "a question is left out: its answer is not in its context, so no passage is gold"
                if answers
                else "a question is left out: it has no answer and its context is cut, so no passage is known to be "
                "gold (data.passage_words=null leaves contexts whole)"
            )
            return
        gold = tuple(dict.fromkeys(golds))
        self.intake.question(
            split,
            Question(
                id=id,
                question=question,
                answers=tuple(dict.fromkeys(answer.text.strip() for answer in answers if answer.text.strip())),
                positive_ids=gold,
                negative_ids=tuple(value for value in negatives if value not in gold),
                history=history,
            ),
            group,
            about,
        )

    def unanswered(self) -> None:
        """Count a question that its context does not answer (SQuAD 2's `is_impossible`); it is left out."""
        self.intake.column_report.needed.add("answers")
        self.intake.remark("a question has no answer in its context, and is left out")

    def _golds(self, context: str, cuts: list[Cut], answers: Sequence[Answer]) -> list[str]:
        if len(cuts) == 1:
            for answer in answers:
                self._place(context, answer)
            return [cuts[0].id]
        places = [self._place(context, answer) for answer in answers]
        pieces = [cut.piece for cut in cuts]
        return [cuts[piece_at(pieces, place)].id for place in places if place is not None]

    def _place(self, context: str, answer: Answer) -> int | None:
        place, right = find_answer(context, answer.text, answer.start)
        if right and answer.start is not None and not context.startswith(answer.text, answer.start):
            self.intake.remark("an answer has spaces around it that its context does not have: they are removed")
        if not right and answer.start is not None:
            self.intake.remark(
                "an answer's offset does not point at it: its nearest occurrence is used"
                if place is not None
                else "an answer's offset does not point at it, and the answer is nowhere in its context"
            )
        return place


def answers_of(value: Any, name: str) -> list[Answer]:
    """The answers in any of the accepted forms. Raises `BadRow` for any other form."""
    value = listed(value, name)
    if is_missing(value):
        return []
    if isinstance(value, str):
        return [Answer(value)] if value.strip() else []
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        value = [value]
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        starts = value.get("answer_start")
        starts = [None] * len(value["text"]) if starts is None or starts == [] else starts
        if not isinstance(starts, list) or len(starts) != len(value["text"]):
            raise BadRow(f"{name!r} has {len(value['text'])} texts and not as many offsets")
        value = [
            {"text": text, "answer_start": start}
            for text, start in zip(value["text"], starts, strict=True)
            if not is_missing(text)
        ]
    if not isinstance(value, list):
        raise BadRow(f"{name!r} must be a string, a list, or SQuAD's texts and offsets, and is {shown(value)}")
    return [answer for entry in value if (answer := _answer(entry, name)).text.strip()]


def _answer(entry: Any, name: str) -> Answer:
    if isinstance(entry, str):
        return Answer(entry)
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        return Answer(entry["text"], offset_of(entry.get("answer_start")))
    raise BadRow(f"{name!r} holds {shown(entry)}, which is no answer")


def offset_of(value: Any) -> int | None:
    """The offset as a whole number; 41, 41.0 and "41" are accepted."""
    number = whole_number(value)
    if number is None and isinstance(value, str) and re.fullmatch(r"\s*-?\d+(\.0*)?\s*", value):
        number = int(float(value))
    if number is None and not is_missing(value):
        raise BadRow(f"'answer_start' must be a whole number, and is {shown(value)}")
    return number


def read_nested(
    value: dict[str, Any],
    file: str,
    split: str,
    cutter: Cutter,
    whole: bool,
    is_dialogue: Callable[[Mapping[str, Any]], bool],
    read_dialogue: Callable[[Mapping[str, Any], Mapping[str, Any], str, str, Cutter, bool], None],
    dialogues: bool = False,
) -> None:
    """Read SQuAD's own file: articles, their paragraphs, their questions.

    Args:
        whole: all questions on one article go to one split.
        is_dialogue: tells whether a paragraph's questions are turns of a conversation; then `read_dialogue` reads them.
        dialogues: all paragraphs are conversations.
    """
    articles = value.get("data")
    if not isinstance(articles, list):
        cutter.intake.problem(Where(file), "a SQuAD file is an object with a list 'data', and there is none")
        return
    earlier_ids: set[str] = set()
    """Question ids of earlier articles: in some data sets each article numbers its questions from the start."""
    for number, article in enumerate(articles):
        place = Where(file, inside=f": data[{number}]")
        own: set[str] = set()
        if isinstance(article, dict) and "story" in article and "paragraphs" not in article:
            cutter.intake.problem(place, "this is a story of CoQA's: data.preset=coqa reads it")
            continue
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            cutter.intake.problem(place, "an article is an object with a list 'paragraphs'")
            continue
        for inner, paragraph in enumerate(article["paragraphs"]):
            spot = Where(file, inside=f"{place.inside}.paragraphs[{inner}]")
            with cutter.intake.row(spot):
                if isinstance(paragraph, dict) and (dialogues or is_dialogue(paragraph)):
                    read_dialogue(article, paragraph, f"{split}-{number}-{inner}", split, cutter, whole)
                else:
                    _paragraph(article, paragraph, spot, f"{number}", split, cutter, whole, (earlier_ids, own))
        earlier_ids |= own


def _paragraph(
    article: dict[str, Any],
    paragraph: Any,
    place: Where,
    number: str,
    split: str,
    cutter: Cutter,
    whole: bool,
    ids: tuple[set[str], set[str]],
) -> None:
    if not isinstance(paragraph, dict):
        raise BadRow(f"a paragraph is an object, and this is {shown(paragraph)}")
    context = text_of(paragraph, "context")
    title = text_of(article, "title", required=False)
    document = id_of(paragraph, "document_id")
    group = (document or title or f"{split} {number}") if whole else None
    cutter.passages(context, title, document)
    questions = paragraph.get("qas")
    if not isinstance(questions, list):
        raise BadRow("there is no list 'qas'")
    for index, entry in enumerate(questions):
        with cutter.intake.row(Where(place.file, inside=f"{place.inside}.qas[{index}]")):
            if not isinstance(entry, dict):
                raise BadRow(f"a question is an object, and this is {shown(entry)}")
            question_id = id_of(entry, "id") or f"{split}-{number}-{index}"
            if question_id in ids[0]:
                cutter.intake.remark(
                    "a question has the id of a question in another article: the article's number is put before the id"
                )
                question_id = f"{number}-{question_id}"
            ids[1].add(question_id)
            answers = answers_of(entry.get("answers"), "answers")
            if entry.get("is_impossible") or not answers:
                cutter.unanswered()
                continue
            cutter.question(
                split,
                question=text_of(entry, "question"),
                id=question_id,
                answers=answers,
                contexts=[context],
                title=title,
                name=document,
                group=group,
                about=document or title or f"article {number}",
            )
