"""What a reader cannot read or write of a data set, found with its tokenizer before any weights are read.

A question that leaves no room is refused where it would be trained on, and announced where it would be asked: an
evaluation leaves it out. Answers decide how long an answer may be, where the configuration does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rag_experiments.config import roles
from rag_experiments.config.schema import FidSettings, ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.records import Passage, Question
from rag_experiments.models import sizes
from rag_experiments.models.fid.fid_prompts import FidPromptBuilder
from rag_experiments.models.reader.prompts import TEMPLATE_DATE, PromptBuilder
from rag_experiments.models.reader.reader import LONGEST_ANSWER, own_limit

MOST_NEW_TOKENS = 512
"""The longest answer that is written where `model.max_new_tokens` is None."""
ANY_PASSAGE = (Passage(id="", text="."),)
"""Where passages are read one by one, the question stands before them once more: it needs the room of two."""
NAMED = 3
"""Questions that a note names."""


def check_examples(
    config: RunConfig, data: RagData, model: ReaderConfig | None = None, key: str = roles.MODEL_KEY
) -> None:
    """Settle `model.max_new_tokens`, refuse what cannot be learnt, and note what an evaluation cannot ask or answer.

    Does nothing where the tokenizer is not on this disk: a hub's model is not fetched for it.

    Args:
        model: the reader that learns, where it is not `config.model`.
        key: where it stands in the configuration.

    Raises:
        RequestError: a training question is too long for the reader, with its file and line.
    """
    with roles.under_key(key):
        _check_examples(config, data, model or config.model, key)


def _check_examples(config: RunConfig, data: RagData, model: ReaderConfig, key: str) -> None:
    builder = prompt_builder(model)
    if builder is None:
        return
    longest = {
        split: [_longest(builder, question) for question in questions] for split, questions in data.splits.items()
    }
    if model.max_new_tokens is None:
        model.max_new_tokens = new_tokens([length for length, _ in longest["train"] if length])
        builder.reserve = model.max_new_tokens
    _refuse_too_long(builder, data, [answer for _, answer in longest["train"]])
    too_long = sum(length > model.max_new_tokens for length, _ in longest["train"])
    notes = (
        [
            f"train: {too_long} of {len(longest['train'])} answers are longer than {key}.max_new_tokens="
            f"{model.max_new_tokens}: they are learnt, and would be cut when written"
        ]
        if too_long
        else []
    )
    for split in config.evaluation.splits:
        notes += _notes(split, data.splits.get(split) or [], builder, model.max_new_tokens, key)
    data.notes += [note for note in notes if note not in data.notes]


def check_teacher(model: ReaderConfig, data: RagData) -> None:
    """Refuse a training question that leaves no room in a teacher's prompts.

    Raises:
        RequestError: with the question's file and line, and the key of the teacher's own limit.
    """
    with roles.under_key("algorithm.teacher"):
        builder = prompt_builder(model)
        if builder is not None:
            longest = [_longest(builder, question)[1] for question in data.splits["train"]]
            _refuse_too_long(builder, data, longest)


def _refuse_too_long(builder: PromptBuilder, data: RagData, answers: Sequence[str | None]) -> None:
    for question, answer in zip(data.splits["train"], answers, strict=True):
        try:
            builder.for_question(question, ANY_PASSAGE, answer)
        except RequestError as error:
            place = data.places.get("train", {}).get(question.id)
            raise RequestError(f"{place}: {error}" if place else str(error)) from error


def new_tokens(lengths: Sequence[int]) -> int:
    """Tokens that an answer may have, by those of the training answers: the longest but for one in a hundred, and a
    quarter more; 32 at least."""
    if not lengths:
        return LONGEST_ANSWER
    usual = float(np.percentile(lengths, 99))
    return min(MOST_NEW_TOKENS, max(LONGEST_ANSWER, math.ceil(1.25 * usual)))


def prompt_builder(model: ReaderConfig) -> PromptBuilder | None:
    """What makes the reader's prompts, from tokenizer and configuration alone; None where they are not on this disk."""
    tokenizer = sizes.tokenizer_of(model)
    if tokenizer is None:
        return None
    facts = sizes.facts_of(model)
    limit = model.max_input_length or facts.get("max_input_length")
    if limit is None:
        architecture = sizes.architecture_of(model)
        if architecture is None:
            return None
        limit = own_limit(architecture, tokenizer)
    instruction = facts.get("instruction") if model.instruction is None else model.instruction
    chat_template = model.chat_template
    if chat_template == "auto":
        chat_template = facts.get("chat_template") or "auto"
    date = model.template_date or facts.get("template_date") or TEMPLATE_DATE
    reserve = model.max_new_tokens or LONGEST_ANSWER
    if model.fid is None and not facts.get("fid"):
        return PromptBuilder(tokenizer, limit, reserve, model.kind, chat_template, instruction, date)
    fid = model.fid or FidSettings(**facts["fid"])
    return FidPromptBuilder(
        tokenizer, limit, reserve, model.kind, chat_template, instruction, date,
        passage_tokens=fid.passage_tokens, question_with_passage=fid.question_with_passage,
    )  # fmt: skip


def _longest(builder: PromptBuilder, question: Question) -> tuple[int, str | None]:
    """Tokens of the longest of a question's answers, its end included, and that answer."""
    lengths = [(len(builder.answer(answer)), answer) for answer in question.answers if answer.strip()]
    return max(lengths, default=(0, None))


def _notes(split: str, questions: Sequence[Question], builder: PromptBuilder, new_tokens: int, key: str) -> list[str]:
    left_out, unwritable = [], 0
    for question in questions:
        try:
            builder.for_question(question, ANY_PASSAGE)
        except RequestError:
            left_out.append(question.id)
        lengths = [len(builder.answer(answer)) for answer in question.answers if answer.strip()]
        unwritable += bool(lengths) and min(lengths) > new_tokens
    notes = []
    if left_out:
        named = ", ".join(map(repr, left_out[:NAMED])) + (", …" if len(left_out) > NAMED else "")
        notes.append(
            f"{split}: {len(left_out)} of {len(questions)} questions are longer than the reader reads and are left out "
            f"of its evaluation ({named}); {key}.max_input_length={builder.max_length} now"
        )
    if unwritable:
        notes.append(
            f"{split}: {unwritable} of {len(questions)} questions have only references longer than "
            f"{key}.max_new_tokens={new_tokens}: exact match cannot be 1 there"
        )
    return notes
