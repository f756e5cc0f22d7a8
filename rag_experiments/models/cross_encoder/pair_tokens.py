r"""How a question and a passage become the one text that a reranker reads.

`head`: the tokenizer's own form of a pair, such as `[CLS] question [SEP] passage [SEP]`. `yes_no`: the prompt of
Qwen3-Reranker (Zhang et al. 2025, arXiv 2506.05176), whose answer is the logit of `yes` less that of `no`:

    <|im_start|>system\nJudge whether … can only be "yes" or "no".<|im_end|>\n
    <|im_start|>user\n<Instruct>: …\n<Query>: …\n<Document>: …<|im_end|>\n
    <|im_start|>assistant\n<think>\n\n</think>\n\n

The passage loses its end where a pair is too long, as sentence-transformers cuts it; a `head` cuts the longer of the
two. A query with turns may take half of the room, and loses its oldest turns first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rag_experiments.core.errors import RequestError
from rag_experiments.data.queries import Query, shortened

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""What Qwen3-Reranker is told where nothing else is said."""
_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: '
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
ANSWERS = ("yes", "no")


@dataclass(frozen=True, slots=True)
class PairIds:
    """Token ids of a pair, not padded, and which of its two texts each token is of, where the model asks for that."""

    ids: list[int]
    types: list[int] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class PairTokens(Protocol):
    """Makes the tokens of pairs."""

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> list[PairIds]:
        """Tokens of each question with the passage beside it in the other list."""
        ...


class HeadPairs:
    """Pairs as the tokenizer joins them."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        """Raises `RequestError` where the tokenizer puts nothing between two texts."""
        if not tokenizer.num_special_tokens_to_add(pair=True):
            raise RequestError(
                "model.form=head: this model's tokenizer puts nothing between a question and a passage; a decoder "
                "judges with model.form=yes_no"
            )
        self.tokenizer, self.max_length = tokenizer, max_length
        self.types = "token_type_ids" in tokenizer.model_input_names

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> list[PairIds]:
        """See `PairTokens`."""
        if not len(queries):
            return []
        encoded = self.tokenizer(
            fitting(self.tokenizer, queries, self.max_length // 2),
            list(passages),
            truncation="longest_first",
            max_length=self.max_length,
            padding=False,
            verbose=False,
            return_attention_mask=False,
            return_token_type_ids=self.types,
        )
        types = encoded["token_type_ids"] if self.types else [None] * len(queries)
        return [PairIds(ids, of) for ids, of in zip(encoded["input_ids"], types, strict=True)]


class YesNoPairs:
    """Pairs in Qwen3-Reranker's prompt."""

    def __init__(self, tokenizer: Any, max_length: int, instruction: str) -> None:
        """Raises `RequestError` where the prompt alone leaves no room for a question."""
        self.tokenizer, self.max_length = tokenizer, max_length
        self.before = f"{_BEFORE}{instruction}\n<Query>: "
        self.after: list[int] = self._ids([_AFTER])[0]
        self.room = max_length - len(self.after)
        taken = len(self._ids([self.before])[0])
        self.query_room = (self.room - taken) // 2
        if self.query_room < 1:
            raise RequestError(
                f"model.max_length={max_length}: the prompt with its instruction has {taken + len(self.after)} tokens "
                "of its own; give it more, or a shorter model.instruction"
            )

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> list[PairIds]:
        """See `PairTokens`."""
        if not len(queries):
            return []
        asked = fitting(self.tokenizer, queries, self.query_room)
        short = {query: self._cut(query) for query in set(asked)}
        texts = [
            f"{self.before}{short[query]}\n<Document>: {text}" for query, text in zip(asked, passages, strict=True)
        ]
        return [PairIds([*ids[: self.room], *self.after]) for ids in self._ids(texts)]

    def template(self) -> str:
        """The same as a chat template of a `query` and a `document`, for sentence-transformers."""
        return (
            "{%- for message in messages %}"
            "{%- if message['content'] is string %}{%- set text = message['content'] %}"
            "{%- else %}{%- set text = message['content'][0]['text'] %}{%- endif %}"
            "{%- if message['role'] == 'query' %}{{- " + _literal(self.before) + " + text }}"
            "{%- elif message['role'] == 'document' %}{{- " + _literal("\n<Document>: ") + " + text }}{%- endif %}"
            "{%- endfor %}{{- " + _literal(_AFTER) + " }}"
        )

    def _cut(self, query: str) -> str:
        """A question that is too long, without its end."""
        encoded = self.tokenizer(
            query, add_special_tokens=False, return_offsets_mapping=True, verbose=False, return_attention_mask=False
        )
        offsets = encoded["offset_mapping"]
        return query if len(offsets) <= self.query_room else query[: offsets[self.query_room - 1][1]]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False, return_attention_mask=False)["input_ids"]


def fitting(tokenizer: Any, queries: Sequence[str], room: int) -> list[str]:
    """The queries, those with turns without the oldest ones that `room` tokens do not hold."""
    if not any(isinstance(query, Query) and query.turns for query in queries):
        return list(queries)

    def too_long(texts: list[str]) -> list[bool]:
        found = tokenizer(texts, add_special_tokens=False, verbose=False, return_attention_mask=False)["input_ids"]
        return [len(ids) > room for ids in found]

    return [str(query) for query in shortened(queries, too_long)]


def padded(pairs: Sequence[PairIds], pad_id: int, left: bool) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and, where the pairs have them, `token_type_ids`: `[B, L]`, on the CPU."""
    longest = max((len(pair) for pair in pairs), default=0)
    rows = {"input_ids": np.full((len(pairs), longest), pad_id, dtype=np.int64)}
    rows["attention_mask"] = np.zeros((len(pairs), longest), dtype=np.int64)
    typed = any(pair.types is not None for pair in pairs)
    if typed:
        rows["token_type_ids"] = np.zeros((len(pairs), longest), dtype=np.int64)
    for b, pair in enumerate(pairs):
        where = slice(longest - len(pair), longest) if left else slice(0, len(pair))
        rows["input_ids"][b, where] = pair.ids
        rows["attention_mask"][b, where] = 1
        if typed:
            rows["token_type_ids"][b, where] = np.asarray(pair.types)
    return {name: torch.from_numpy(row) for name, row in rows.items()}


def _literal(text: str) -> str:
    """`text` as a string of Jinja."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
