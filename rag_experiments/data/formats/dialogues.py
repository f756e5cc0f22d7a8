"""Conversations about a text: files and hub rows of QuAC (Choi et al. 2018) and CoQA (Reddy et al. 2019).

    QuAC  {"data": [{"title", "paragraphs": [{"id", "context": "… CANNOTANSWER", "qas": [{"question",
          "answers", "orig_answer", "followup", "yesno"}..]}]}]},
          or a row per dialogue: "questions": [..], "answers": {"texts": [[..]]}
    CoQA  {"data": [{"id", "story", "questions": [{"input_text"}..], "answers": [{"input_text", "span_start"}..],
          "additional_answers"?: {"0": [..]}}]}, or a row per story: "questions": [..], "answers": {"input_text": [..]}

A question gets the turns before it as history. A question that the text does not answer (QuAC's CANNOTANSWER, CoQA's
`unknown`) is left out and counted, but stays in the history of later questions, without a reply. QuAC writes
CANNOTANSWER at the end of each text; it is removed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_experiments.data.bad_row import BadRow, shown
from rag_experiments.data.formats.squad import Answer, Cutter, answers_of, offset_of
from rag_experiments.data.records import Turn
from rag_experiments.data.row_fields import content_id, id_of, text_of

COQA_FIELDS = frozenset(
    ("id", "story", "questions", "answers", "additional_answers", "source", "filename", "name", "version")
)
"""What a story of CoQA's has, whether it is used or only known."""
QUAC_FIELDS = frozenset(
    ("dialogue_id", "wikipedia_page_title", "title", "background", "section_title", "context", "turn_ids",
     "questions", "answers", "orig_answers", "followups", "yesnos")
)  # fmt: skip
"""What a row of QuAC's has on the hub."""
NO_ANSWER = "CANNOTANSWER"
_AT_END = re.compile(rf"\s*\b{NO_ANSWER}\s*$")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question of a conversation, its answers and its reply."""

    id: str
    question: str
    answers: Sequence[Answer]
    """Empty: the text does not answer it."""
    reply: str
    """The reply as it is in the history of later questions; empty if there is none."""
    place: int | None = None
    """The position in the text that supports the answer, if the answer's words need not occur there."""


def is_quac(paragraph: Mapping[str, Any]) -> bool:
    """Whether a paragraph with SQuAD's fields comes from QuAC."""
    questions = paragraph.get("qas")
    marks = {"followup", "yesno", "orig_answer"}
    marked = isinstance(questions, list) and any(isinstance(one, dict) and marks & one.keys() for one in questions)
    return marked or _AT_END.search(str(paragraph.get("context"))) is not None


def read_quac(
    article: Mapping[str, Any], paragraph: Mapping[str, Any], name: str, split: str, cutter: Cutter, whole: bool
) -> None:
    """One dialogue of QuAC's file. Raises `BadRow`."""
    exchanges = []
    for number, entry in enumerate(_list(paragraph, "qas")):
        if not isinstance(entry, dict):
            raise BadRow(f"a question is an object, and this is {shown(entry)}")
        answers = answers_of(entry.get("answers"), "answers")
        reply = answers_of([entry["orig_answer"]], "orig_answer") if entry.get("orig_answer") else answers[:1]
        exchanges.append(
            _quac(id_of(entry, "id") or f"{name}-{number}", text_of(entry, "question"), answers or reply, reply)
        )
    title = text_of(article, "title", required=False)
    _hand_in(text_of(paragraph, "context"), title, title or name, exchanges, split, cutter, whole)


def read_quac_row(row: Mapping[str, Any], name: str, split: str, cutter: Cutter, whole: bool) -> None:
    """One dialogue as the hub has it. Raises `BadRow`."""
    questions = _list(row, "questions")
    texts, starts = (
        _columns(row, "answers", "texts", len(questions)),
        _starts(row, "answers", "answer_starts", questions),
    )
    replies = _columns(row, "orig_answers", "texts", len(questions))
    ids = row.get("turn_ids") or []
    exchanges = []
    for number, question in enumerate(questions):
        answers = answers_of({"text": _as_list(texts[number]), "answer_start": _as_list(starts[number])}, "answers")
        reply = answers_of(replies[number], "orig_answers") or answers[:1]
        turn = ids[number] if number < len(ids) and isinstance(ids[number], str) else f"{name}-{number}"
        exchanges.append(_quac(turn, _text(question), answers or reply, reply))
    title = text_of(row, "wikipedia_page_title", required=False) or text_of(row, "title", required=False)
    _hand_in(text_of(row, "context"), title, title or name, exchanges, split, cutter, whole)


def read_coqa(story: Mapping[str, Any], name: str, split: str, cutter: Cutter, whole: bool) -> None:
    """One story, as CoQA's file or the hub has it. Raises `BadRow`."""
    text = text_of(story, "story")
    questions = [_text(entry) for entry in _list(story, "questions")]
    answers = story.get("answers")
    if isinstance(answers, dict):
        replies = _columns(story, "answers", "input_text", len(questions))
        starts = _starts(story, "answers", "answer_start", questions)
        answers = [{"input_text": a, "span_start": s} for a, s in zip(replies, starts, strict=True)]
    if not isinstance(answers, list) or len(answers) != len(questions):
        raise BadRow(f"'answers' must hold as many as there are questions ({len(questions)}), and is {shown(answers)}")
    more = story.get("additional_answers")
    others = [entry for entry in more.values() if isinstance(entry, list)] if isinstance(more, dict) else []
    base = id_of(story, "id") or name
    exchanges = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        if not isinstance(answer, dict):
            raise BadRow(f"an answer is an object with 'input_text', and this is {shown(answer)}")
        reply, place = text_of(answer, "input_text"), offset_of(answer.get("span_start"))
        unknown = reply.strip().rstrip(".").lower() == "unknown" or (place is not None and place < 0)
        heard = [reply, *(_text(other[number]) for other in others if number < len(other))]
        real_answers = (
            [] if unknown else [Answer(one) for one in dict.fromkeys(heard) if one.strip().lower() != "unknown"]
        )
        if place is not None and place >= 0:  # some spans begin with white space
            place += len(text[place:]) - len(text[place:].lstrip())
        exchanges.append(Exchange(f"{base}-{number}", question, real_answers, "" if unknown else reply, place))
    _hand_in(text, "", base, exchanges, split, cutter, whole)


def _quac(id: str, question: str, answers: Sequence[Answer], replies: Sequence[Answer]) -> Exchange:
    real_answers = [answer for answer in answers if answer.text.strip() != NO_ANSWER]
    # Most annotators found no answer, so the question counts as unanswered.
    if 2 * len(real_answers) < len(answers) or any(answer.text.strip() == NO_ANSWER for answer in replies):
        real_answers = []
    return Exchange(id, question, real_answers, replies[0].text if real_answers and replies else "")


def _hand_in(
    context: str, title: str, group: str, exchanges: Sequence[Exchange], split: str, cutter: Cutter, whole: bool
) -> None:
    text = _AT_END.sub("", context)
    cutter.passages(text, title)
    history: list[Turn] = []
    for one in exchanges:
        if one.answers:
            cutter.question(
                split,
                question=one.question,
                id=one.id,
                answers=one.answers,
                contexts=[text],
                title=title,
                history=tuple(history),
                group=group if whole else None,
                about=content_id(text, title),
                place=one.place,
            )
        else:
            cutter.unanswered()
        history.append(Turn("user", one.question))
        if one.reply:
            history.append(Turn("assistant", one.reply))


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    if not isinstance(value, list) or not value:
        raise BadRow(
            f"there is no list {name!r}" if value is None else f"{name!r} must be a list, and is {shown(value)}"
        )
    return value


def _text(entry: Any) -> str:
    """A question or answer: a string, or an object with `input_text`."""
    value = entry.get("input_text") if isinstance(entry, dict) else entry
    if not isinstance(value, str):
        raise BadRow(
            f"a question or answer must be a string, or an object with 'input_text', and one is {shown(entry)}"
        )
    return value


def _columns(row: Mapping[str, Any], name: str, inner: str, count: int) -> list[Any]:
    value = row.get(name)
    entries = value.get(inner) if isinstance(value, dict) else None
    if not isinstance(entries, list) or len(entries) != count:
        raise BadRow(f"'{name}.{inner}' must be a list of {count}, one per question, and is {shown(entries)}")
    return entries


def _starts(row: Mapping[str, Any], name: str, inner: str, questions: Sequence[Any]) -> list[Any]:
    value = row.get(name)
    return (
        _columns(row, name, inner, len(questions))
        if isinstance(value, dict) and inner in value
        else [None] * len(questions)
    )


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]
