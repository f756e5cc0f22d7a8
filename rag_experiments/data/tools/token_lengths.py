"""Count the tokens of texts with a model's tokenizer, without loading the model or torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag_experiments.config.schema import EncoderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.text import word_count
from rag_experiments.model_files import sources

BATCH = 256


@dataclass(frozen=True, slots=True)
class Lengths:
    """Percentiles of lengths."""

    counts: np.ndarray
    middle: int
    ninety: int
    ninety_nine: int
    longest: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> Lengths:
        """The percentiles of `counts`."""
        values = np.asarray(counts if len(counts) else [0])
        middle, ninety, ninety_nine = (int(np.percentile(values, at)) for at in (50, 90, 99))
        return cls(values, middle, ninety, ninety_nine, int(values.max()))

    def __str__(self) -> str:
        return f"{self.middle:,}, {self.ninety:,}, {self.ninety_nine:,}, {self.longest:,}"


@dataclass
class Counter:
    """Counts tokens of one tokenizer, or words if the tokenizer is not on this disk."""

    tokenizer: Any | None
    unit: str
    limits: dict[str, int | None]
    prefixes: dict[str, str]

    def count(self, texts: Sequence[str], kind: str = "") -> list[int]:
        """Tokens (special ones included) or words of each text, the prefix of its `kind` in front."""
        if self.tokenizer is None:
            return [word_count(text) for text in texts]
        texts = [self.prefixes.get(kind, "") + text for text in texts]
        counts: list[int] = []
        for start in range(0, len(texts), BATCH):
            encoded = self.tokenizer.encode_batch_fast(list(texts[start : start + BATCH]))
            counts += [len(one) for one in encoded]
        return counts

    def cut_note(self, lengths: Lengths, kind: str) -> str:
        """A note on how many texts the model's limit cuts; empty if there is no limit."""
        limit = self.limits.get(kind)
        if limit is None or self.tokenizer is None:
            return ""
        longer, count = int((lengths.counts > limit).sum()), len(lengths.counts)
        if not longer:
            return f" (the model reads {limit})"
        return f"; {longer:,} of {count:,} ({longer / count:.1%}) are longer than the model's {limit}, and cut"

    def as_seen(self, text: str, kind: str) -> str:
        """The text with the prefix, cut where the model cuts it."""
        text = self.prefixes.get(kind, "") + text
        limit = self.limits.get(kind)
        if limit is None or self.tokenizer is None:
            return text
        encoded = self.tokenizer.encode(text)
        if len(encoded) <= limit:
            return text
        end = encoded.offsets[limit - 2][1]
        return f"{text[:end]} [cut: {len(encoded)} tokens, the model reads {limit}]"


_known: dict[tuple[str, str | None], Counter] = {}


def token_counter(config: RunConfig) -> Counter:
    """The counter for the configuration's model (for a reader: its retriever's encoder)."""
    model = config.model if isinstance(config.model, EncoderConfig) else config.retriever.encoder or config.model
    key = (model.path, model.revision)
    if key not in _known:
        _known[key] = _make(model)
    return _known[key]


def _make(model: Any) -> Counter:
    from tokenizers import Tokenizer

    folder = _local_folder(model)
    file = folder / "tokenizer.json" if folder else None
    if file is None or not file.is_file():
        return Counter(None, f"in words (the tokenizer of {model.path} is not on this disk)", {}, {})
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    longest = _max_length(folder)
    limits: dict[str, int | None] = {"query": longest, "passage": longest}
    prefixes: dict[str, str] = {}
    if isinstance(model, EncoderConfig):
        limits = {"query": model.max_query_length or longest, "passage": model.max_passage_length or longest}
        prefixes = {"query": model.query_prefix or "", "passage": model.passage_prefix or ""}
    return Counter(tokenizer, f"in tokens of {model.path}", limits, prefixes)


def _local_folder(model: Any) -> Path | None:
    try:
        source = sources.resolve(model.path, model.revision, weights=False)
    except RequestError:
        return None
    if source.local is None or source.local.is_file():
        return None
    return source.local


def _max_length(folder: Path | None) -> int | None:
    """The limit in sentence-transformers' own file, if there is one."""
    file = folder / "sentence_bert_config.json" if folder else None
    if file is None or not file.is_file():
        return None
    value = json.loads(file.read_text(encoding="utf-8")).get("max_seq_length")
    return value if isinstance(value, int) else None
