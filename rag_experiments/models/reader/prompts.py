"""The one place where a reader's prompt is made: instruction, passages, history, question.

With a chat template (`chat_template: auto` and a tokenizer that has one) the instruction is the system
message, or opens the user's message where the template knows no system role, and the user's message is

    [1] <title>
    <text>
    [2] <title>
    <text>

    Conversation so far:
    User: …
    Assistant: …

    Question: <question>

Without one, the *plain template* is the instruction, a blank line, the same text, and `Answer:` on a line
of its own; the answer follows after a space. Parts that are not there (titles, passages, history) leave
nothing behind. A prompt ends where the answer begins; the answer ends with the token that ends a turn.

The parts are tokenised one by one and joined, so that one passage's tokens do not depend on what stands
beside it (Fusion-in-Decoder over a decoder relies on that), and everything that comes from the data is
read with special tokens switched off: a passage that says `<|im_end|>` does not end the turn.

Too long? Passages are dropped from the end, then the one left is shortened, then turns of the history are
dropped, oldest first. The question and the answer are never touched: where they alone do not fit, that is
a `RequestError`. Room for `max_new_tokens` is kept in training as at generation, so that both see one prompt.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING

from rag_experiments.core.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rag_experiments.data.records import Passage, Question, Turn

DEFAULT_INSTRUCTION = "Answer the question from the passages. Give only the answer, in as few words as possible."
_CUE = "Answer:"
_BODY = "BODYBODYBODY"
_REPLY = "REPLYREPLYREPLY"
TEMPLATE_DATE = "2024-07-26"
"""Today, where a chat template asks: what Llama 3.2's says where there is no clock."""
_ASKS_DATE = ("date_string", "strftime_now")
_OPEN_THOUGHT = re.compile(
    r"(?:<(?P<tag>[\w:.-]*(?:think|thought|reason)[\w:.-]*)>|\[(?P<bracket>THINK)\]|<\|START_(?P<bar>THINKING)\|>)\s*\Z",
    re.I,
)
LOUD_SHARE = 0.02
"""Of prompts or answers that are cut: above it, that is a warning."""
_ROLES = {"user": "User", "assistant": "Assistant", "system": "System"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of one prompt, in parts, and what was cut to make it fit."""

    head: tuple[int, ...]
    """What stands before the passages: instruction and template."""
    passages: tuple[tuple[int, ...], ...]
    """One tuple a passage, in order."""
    tail: tuple[int, ...]
    """History, question, and the template up to where the answer begins."""
    passages_dropped: int = 0
    passages_shortened: int = 0
    turns_dropped: int = 0

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        return [*self.head, *(token for passage in self.passages for token in passage), *self.tail]

    def __len__(self) -> int:
        return len(self.head) + sum(map(len, self.passages)) + len(self.tail)


@dataclass
class TruncationCounts:
    """What was cut from the prompts counted so far."""

    prompts: int = 0
    prompts_truncated: int = 0
    passages_dropped: int = 0
    passages_shortened: int = 0
    turns_dropped: int = 0
    answers_cut: int = 0
    """Answers that ran into `max_new_tokens`."""
    questions_left_out: int = 0
    """Questions that, alone, are longer than the reader reads."""

    def add(self, prompt: Prompt) -> None:
        """Count `prompt`."""
        self.prompts += 1
        self.prompts_truncated += bool(prompt.passages_dropped or prompt.passages_shortened or prompt.turns_dropped)
        self.passages_dropped += prompt.passages_dropped
        self.passages_shortened += prompt.passages_shortened
        self.turns_dropped += prompt.turns_dropped

    def __add__(self, other: TruncationCounts) -> TruncationCounts:
        return TruncationCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def loud(self) -> bool:
        """Whether more than a few in a hundred lost something, or a question was left out: the user should know."""
        most = max(self.prompts_truncated, self.answers_cut)
        return bool(self.questions_left_out) or most > LOUD_SHARE * self.prompts

    def as_metrics(self) -> dict[str, float]:
        """`truncation/…` to counts."""
        counts = {**asdict(self), "passages_cut": self.passages_dropped + self.passages_shortened}
        return {f"truncation/{name}": float(value) for name, value in counts.items()}

    def sentence(self) -> str:
        """What to tell the user, or nothing where nothing was cut."""
        sentences = []
        if self.prompts_truncated:
            sentences.append(
                f"{self.prompts_truncated} of {self.prompts} prompts were too long: {self.passages_dropped} passages "
                f"dropped, {self.passages_shortened} shortened, {self.turns_dropped} turns of history dropped."
            )
        if self.answers_cut:
            sentences.append(
                f"{self.answers_cut} of {self.prompts} answers ran into model.max_new_tokens and were cut."
            )
        if self.questions_left_out:
            sentences.append(
                f"{self.questions_left_out} questions were left out: alone they are longer than the reader reads "
                "(model.max_input_length)."
            )
        return " ".join(sentences)


@dataclass
class PromptBuilder:
    """Makes prompts and answers for one tokenizer.

    `max_length` is tokens of prompt and answer together for a decoder, of the prompt alone for an
    encoder-decoder; `reserve` is the room kept for an answer that is not known yet.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    reserve: int = 32
    kind: str = "decoder"
    chat_template: str = "auto"
    instruction: str | None = None
    date: str = TEMPLATE_DATE
    """What a chat template takes for today, as 2024-07-26."""
    end_id: int = field(init=False)
    """The token that ends an answer."""

    def __post_init__(self) -> None:
        self.instruction = self.instruction if self.instruction is not None else DEFAULT_INSTRUCTION
        self.chat = self.chat_template == "auto" and bool(getattr(self.tokenizer, "chat_template", None))
        self.dated = self.chat and any(name in str(self.tokenizer.chat_template) for name in _ASKS_DATE)
        """Whether the template prints a date."""
        self._starts, self._ends = _special_tokens_around(self.tokenizer)
        head, tail, end_id = self._chat_frame() if self.chat else self._plain_frame()
        self._head, self._frame_tail, self.end_id = tuple(head), tuple(tail), end_id
        self._encode = functools.lru_cache(maxsize=8192)(self._encode_once)

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Tokens before the passages and after the question, which every prompt has."""
        return list(self._head), list(self._frame_tail)

    def passage(self, passage: Passage, number: int) -> tuple[int, ...]:
        """Tokens of one passage, `number` counted from 1."""
        return self._encode(passage_text(passage, number))

    def tail(self, question: str, history: Sequence[Turn] = (), after_passages: bool = True) -> tuple[int, ...]:
        """Tokens of history and question, up to where the answer begins."""
        return (*self._encode(tail_text(question, history, after_passages)), *self._frame_tail)

    def answer(self, answer: str, end: bool = True) -> list[int]:
        """Tokens of an answer, the end token last (an encoder-decoder's with its tokenizer's own specials).

        `end=False`: what it says and nothing else. Raises `RequestError` for an answer of white space only.
        """
        if not answer.strip():
            raise RequestError("an answer is empty: there is nothing to learn or to score in it.")
        text = answer.strip()
        says = self._encode(text) if self.chat or self.kind == "encoder_decoder" else self._after_cue(text)
        if not end:
            return list(says)
        if self.kind == "encoder_decoder":
            return [*self._starts, *says, *(self._ends or (self.end_id,))]
        return [*says, self.end_id]

    def build(
        self,
        question: str,
        passages: Sequence[Passage] = (),
        history: Sequence[Turn] = (),
        answer: str | None = None,
        name: str = "",
    ) -> Prompt:
        """The prompt for `question`, cut to fit by the rule at the top of this file.

        `answer` is given where it is known (training, scoring), so that it fits behind the prompt.
        Raises `RequestError` where question and answer alone are too long; `name` says which in the message.
        """
        room = self.max_length
        if self.kind != "encoder_decoder":
            room -= max(self.reserve, len(self.answer(answer)) if answer is not None else 0)
        parts = [self.passage(passage, number) for number, passage in enumerate(passages, 1)]
        turns = list(history)
        tail = self.tail(question, turns, bool(parts))
        fitting_parts = _fitting(parts, room - len(self._head) - len(tail))
        if not fitting_parts:
            tail = self.tail(question, turns, False)
        while turns and len(self._head) + len(tail) > room:
            turns = turns[1:]
            tail = self.tail(question, turns, False)
        if len(self._head) + len(tail) > room:
            raise RequestError(
                f"question {name or question[:60]!r}: instruction, question and answer need "
                f"{self.max_length - room + len(self._head) + len(tail)} tokens, and model.max_input_length is "
                f"{self.max_length}; raise it, or shorten the question (questions and answers are never cut)."
            )
        whole = sum(part == original for part, original in zip(fitting_parts, parts, strict=False))
        return Prompt(
            head=self._head,
            passages=tuple(fitting_parts),
            tail=tail,
            passages_dropped=len(parts) - len(fitting_parts),
            passages_shortened=len(fitting_parts) - whole,
            turns_dropped=len(history) - len(turns),
        )

    def for_question(self, question: Question, passages: Sequence[Passage], answer: str | None = None) -> Prompt:
        """`build` for a question of the data, with its history."""
        return self.build(question.question, passages, question.history, answer, name=question.id)

    def text(self, prompt: Prompt) -> str:
        """The prompt as a model sees it, special tokens shown."""
        return str(self.tokenizer.decode(prompt.ids))

    def _encode_once(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _after_cue(self, text: str) -> tuple[int, ...]:
        """Tokens of an answer after `Answer:` and a space, as if the two were read together.

        Some tokenizers put a space before whatever they are given; alone, the answer would start with two.
        """
        cue = self._encode(_CUE)
        whole = self._encode(f"{_CUE} {text}")
        return whole[len(cue) :] if whole[: len(cue)] == cue else self._encode(f" {text}")

    def _trusted(self, text: str) -> list[int]:
        """Tokens of text from the template, in which special tokens are meant."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _plain_frame(self) -> tuple[list[int], list[int], int]:
        """What stands before and after the user's part without a chat template, and the end token."""
        end_id = _first_not_none(self.tokenizer.eos_token_id, self.tokenizer.sep_token_id)
        if end_id is None:
            raise RequestError("the reader's tokenizer has no end-of-sequence token, so that no answer could end.")
        head = [*self._starts, *self._trusted(f"{self.instruction}\n\n" if self.instruction else "")]
        tail = self._trusted(f"\n{_CUE}")
        return head, [*tail, *self._ends] if self.kind == "encoder_decoder" else tail, end_id

    def _chat_frame(self) -> tuple[list[int], list[int], int]:
        """The same with the tokenizer's chat template, rendered once around a marker."""
        messages = [{"role": "user", "content": _BODY}]
        if self.instruction:
            messages.insert(0, {"role": "system", "content": self.instruction})
        try:
            rendered = self._render(messages)
        except Exception as error:  # a template refuses a role by raising, and which exception is up to jinja
            if len(messages) == 1:
                raise RequestError(f"the reader's chat template cannot be rendered: {error}") from error
            rendered = ""
        if self.instruction and self.instruction not in rendered:
            messages = [{"role": "user", "content": f"{self.instruction}\n\n{_BODY}"}]
            rendered = self._render(messages)
        head, marker, tail = rendered.partition(_BODY)
        if not marker:
            raise RequestError("the reader's chat template drops the user's message; set model.chat_template=none.")
        return self._trusted(head), self._trusted(_thought_closed(tail)), self._turn_end(messages)

    def _turn_end(self, messages: list[dict[str, str]]) -> int:
        """The special token that the template puts after an assistant's reply, else the tokenizer's end token."""
        after = self._render([*messages, {"role": "assistant", "content": _REPLY}], False).partition(_REPLY)[2]
        ids = self._trusted(after)
        if ids and ids[0] in self.tokenizer.all_special_ids:
            return ids[0]
        if self.tokenizer.eos_token_id is None:
            raise RequestError("the reader's chat template ends a reply with no special token, and there is no eos.")
        return self.tokenizer.eos_token_id

    def _render(self, messages: list[dict[str, str]], open_reply: bool = True) -> str:
        # Templates of reasoning models open an empty thought when told not to think; others ignore the key. Those that
        # print today's date get one that stays: it stands in every prompt, and in the keys of what is cached for one.
        try:
            today = datetime.datetime.fromisoformat(self.date)
        except ValueError as error:
            raise RequestError(f"model.template_date={self.date} is no date such as 2024-07-26: {error}") from error
        template = self.tokenizer.get_chat_template()
        rendered = self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=open_reply,
            chat_template=f"{_clock(today)}{template}" if "strftime_now" in template else template,
            enable_thinking=False,
            date_string=today.strftime("%d %b %Y"),
        )
        return str(rendered)


def _clock(now: datetime.datetime) -> str:
    """A macro that stands for transformers' `strftime_now` in a template: no function can be handed to one."""
    codes = [f"%{code}" for code in "aAbBcdDeFhHIjmMpSTuUwWxXyY"] + [f"%-{code}" for code in "dmHIj"]
    replaced = "".join(f"|replace({code!r}, {now.strftime(code)!r})" for code in codes)
    # The empty text at the end: a template's own first newline would go with the block before it.
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}"


def _thought_closed(tail: str) -> str:
    """`tail`, with an end to a thought that the template opens and leaves open (DeepSeek-R1, QwQ): the answer would be
    learnt as the thought, and a model as it comes would spend its tokens thinking."""
    opening = _OPEN_THOUGHT.search(tail)
    if opening is None:
        return tail
    if opening["tag"]:
        end = f"</{opening['tag']}>"
    else:
        end = "[/THINK]" if opening["bracket"] else "<|END_THINKING|>"
    return f"{tail.rstrip()}\n\n{end}\n\n"


def passage_text(passage: Passage, number: int) -> str:
    """`[1] title`, its text below, a newline at the end."""
    return f"[{number}] {passage.full_text}\n"


def tail_text(question: str, history: Sequence[Turn] = (), after_passages: bool = True) -> str:
    """History and question as they stand after the passages."""
    lines = [""] if after_passages else []
    if history:
        lines.append("Conversation so far:")
        lines += [f"{_ROLES.get(turn.role, turn.role)}: {turn.content}" for turn in history]
        lines.append("")
    return "\n".join([*lines, f"Question: {question}"])


def _fitting(parts: list[tuple[int, ...]], room: int) -> list[tuple[int, ...]]:
    """As many whole passages from the front as fit into `room` tokens; where not even one does, its beginning."""
    used = 0
    for count, part in enumerate(parts):
        used += len(part)
        if used > room:
            return list(parts[:count]) or ([parts[0][:room]] if room > 0 else [])
    return list(parts)


def _special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer itself puts before and after a text (`<s>`, `[CLS]`; `</s>`, `[SEP]`)."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(plain)] == plain)
    return tuple(full[:start]), tuple(full[start + len(plain) :])


def _first_not_none(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
