"""Prompts for Fusion-in-Decoder: one part a passage, none of which knows of the others.

An encoder-decoder gets, for each passage, the published input (Izacard & Grave 2020):

    question: <question> title: <title> context: <text>

with its tokenizer's special tokens, an instruction only where one is configured, and earlier turns as
`conversation: user: … assistant: …` in front. `passage_tokens` bounds the whole input, as published.

A decoder LM gets the prompt of `prompts.py` in three parts: what stands before the passages (with the question,
where `question_with_passage`), one part a passage, and what stands after them. Every passage is numbered [1]:
none comes before another, so with one passage it is plain reading, and their order changes nothing.

A passage that is given twice is read once. What is too long is cut at the passage's end; then the oldest turns
of the history go; the question and the answer are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Passage, Turn
from rag_experiments.models.reader.prompts import DEFAULT_INSTRUCTION, Prompt, PromptBuilder, tail_text


@dataclass
class FidPromptBuilder(PromptBuilder):
    """`PromptBuilder` for passages that are read apart; `Prompt.passages` has one part a passage.

    For an encoder-decoder each part is a whole input and the head and tail are empty; for a decoder the head
    stands once before every passage.
    """

    passage_tokens: int = 250
    question_with_passage: bool = True

    def build(
        self,
        question: str,
        passages: Sequence[Passage] = (),
        history: Sequence[Turn] = (),
        answer: str | None = None,
        name: str = "",
    ) -> Prompt:
        """The prompt for `question`; see the top of this file, and `PromptBuilder.build` for the arguments."""
        distinct = list({passage.id: passage for passage in passages}.values())
        reserve = 0
        if self.kind != "encoder_decoder":
            reserve = max(self.reserve, len(self.answer(answer)) if answer is not None else 0)
        turns = list(history)
        while True:
            head, tail = self._around(question, turns, bool(distinct))
            room = self.max_length - len(head) - len(tail) - reserve
            if room >= min(1, len(distinct)) or not turns:
                break
            turns = turns[1:]
        if room < 0:
            raise RequestError(
                f"question {name or question[:60]!r}: instruction, question and answer need {self.max_length - room} "
                f"tokens, and the reader has room for {self.max_length}; raise model.max_input_length "
                "(and model.fid.passage_tokens), or shorten the question (questions and answers are never cut)."
            )
        parts = [self._part(passage) for passage in distinct]
        limit = room if self.kind == "encoder_decoder" else min(room, self.passage_tokens)
        cut = [part[:limit] for part in parts]
        whole = [(*head, *part, *tail) for part in cut] or [(*head, *tail)]
        apart = self.kind == "encoder_decoder"
        return Prompt(
            head=() if apart else head,
            passages=tuple(whole) if apart else tuple(cut),
            tail=() if apart else tail,
            passages_shortened=sum(len(short) < len(part) for short, part in zip(cut, parts, strict=True)),
            turns_dropped=len(history) - len(turns),
        )

    def _around(self, question: str, turns: Sequence[Turn], reads: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What stands before and after a passage (`reads`: there is one)."""
        if self.kind == "encoder_decoder":
            custom = self.instruction if self.instruction != DEFAULT_INSTRUCTION else ""
            conversation = " ".join(f"{turn.role}: {turn.content}" for turn in turns)
            lines = [custom, f"conversation: {conversation}" if conversation else "", f"question: {question}"]
            return (*self._starts, *self._encode(" ".join(line for line in lines if line))), self._ends
        head = self._head
        if self.question_with_passage and reads:
            head = (*head, *self._encode(f"{tail_text(question, turns, after_passages=False)}\n\n"))
        return head, self.tail(question, turns, reads)

    @property
    def answer_starts(self) -> tuple[int, ...]:
        """What stands before every answer's own tokens (an encoder-decoder whose tokenizer opens texts, as BART's)."""
        return self._starts if self.kind == "encoder_decoder" else ()

    def _part(self, passage: Passage) -> tuple[int, ...]:
        if self.kind != "encoder_decoder":
            return self.passage(passage, 1)
        title = f" title: {passage.title}" if passage.title else ""
        return self._encode(f"{title} context: {passage.text}")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "encoder_decoder":
            self.max_length = min(self.max_length, self.passage_tokens)
