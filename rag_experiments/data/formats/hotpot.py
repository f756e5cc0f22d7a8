"""Questions with paragraphs and supporting facts: HotpotQA and data sets with its fields (2WikiMultihopQA).

    {"_id", "question", "answer", "context": [[title, [sentence, ..]], ..], "supporting_facts": [[title, number], ..]}

or, on the hub: `context` {"title": [..], "sentences": [[..], ..]}, `supporting_facts` {"title": [..], ..}.
Each paragraph is one passage and is not cut. Gold are all paragraphs that a supporting fact names; the others are the
question's hard negatives. All are its candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.contexts import take_in
from rag_experiments.data.formats.squad import answers_of
from rag_experiments.data.records import Question
from rag_experiments.data.row_fields import BadRow, id_of, shown, text_of

FIELDS = frozenset(("_id", "id", "question", "answer", "answers", "context", "supporting_facts", "type", "level"))
"""What a row has, whether it is used or only known."""


def take_row(row: Mapping[str, Any], default: str, split: str, intake: Intake) -> None:
    """Add the paragraphs and the question of one row to the intake. Raises `BadRow`."""
    question = text_of(row, "question")
    paragraphs = _paragraphs(row)
    titles = [title for _, title, _ in paragraphs]
    ids = [take_in(intake, "context", {"title": title, "text": text}, f"[{n}]") for n, title, text in paragraphs]
    named = _named(row)
    unknown = next((title for title in named if title not in titles), None)
    if unknown is not None:
        raise BadRow(f"'supporting_facts' names {unknown!r}, and no paragraph of 'context' has that title")
    golds = tuple(passage for passage, title in zip(ids, titles, strict=True) if title in named)
    others = tuple(passage for passage in ids if passage not in golds) if golds else ()
    answers = answers_of(row.get("answer", row.get("answers")), "answer")
    intake.question(
        split,
        Question(
            id=id_of(row, "_id") or id_of(row, "id") or default,
            question=question,
            answers=tuple(dict.fromkeys(answer.text for answer in answers)),
            positive_ids=golds,
            negative_ids=others,
            candidate_ids=tuple(ids),
        ),
    )


def _paragraphs(row: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    """Number, title and text of each paragraph."""
    value = row.get("context")
    if isinstance(value, dict) and isinstance(value.get("title"), list) and isinstance(value.get("sentences"), list):
        value = [list(pair) for pair in zip(value["title"], value["sentences"], strict=False)]
    if not isinstance(value, list):
        raise BadRow(f"'context' must be a list of [title, sentences], and is {shown(value)}")
    paragraphs = []
    for number, entry in enumerate(value):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise BadRow(f"'context' must hold [title, sentences], and one entry is {shown(entry)}")
        sentences = [entry[1]] if isinstance(entry[1], str) else entry[1]
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise BadRow(f"the sentences of {entry[0]!r} must be strings, and are {shown(entry[1])}")
        text = " ".join(sentence.strip() for sentence in sentences if sentence.strip())
        if text:  # the original files hold paragraphs without a sentence
            paragraphs.append((number, entry[0], text))
    return paragraphs


def _named(row: Mapping[str, Any]) -> set[str]:
    """The titles that supporting facts name; a test set has no supporting facts."""
    value = row.get("supporting_facts")
    if value is None:
        return set()
    if isinstance(value, dict):
        value = [[title] for title in value.get("title") or []]
    if not isinstance(value, list) or not all(isinstance(e, list) and e and isinstance(e[0], str) for e in value):
        raise BadRow(f"'supporting_facts' must be a list of [title, number], and is {shown(value)}")
    return {entry[0] for entry in value}
