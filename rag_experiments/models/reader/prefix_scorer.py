"""Answers scored with what their prompts begin with computed once.

A prompt is head (instruction and template), passages, tail (question), and under causal attention the keys and
values of a beginning do not depend on what follows. So the head is computed once for a model, each different run
of passages once for all the questions it is tried on, and only tail and answer once a pair. The numbers are those
of `Reader.score`, up to the rounding of another order of summation; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rag_experiments.models.reader import answer_tokens
from rag_experiments.models.reader.key_value_cache import CACHE, KeysValues, keys_and_values
from rag_experiments.models.reader.reader import AnswerScores, Reader
from rag_experiments.models.shared.precision import autocast

if TYPE_CHECKING:
    from rag_experiments.models.reader.prompts import Prompt


def can_share(reader: Reader) -> bool:
    """Whether this model's keys and values may be kept: a decoder whose layers all attend to everything before."""
    if reader.kind != "decoder":
        return False
    module = answer_tokens.base_module(reader.module)
    if not answer_tokens.keeps_positions(type(module).forward):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=module.config).layers)


class PrefixScorer:
    """`Reader.score` for many prompts with the same beginnings."""

    def __init__(self, reader: Reader):
        if not can_share(reader):
            raise ValueError("this reader's keys and values cannot be shared; ask can_share() first")
        self.reader = reader
        self.module = answer_tokens.base_module(reader.module)
        self.tokens_computed = 0
        """Tokens that went through the model so far, padding left out."""
        self._heads: dict[tuple[int, ...], KeysValues] = {}

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[Prompt],
        texts: Sequence[str],
        include_end: bool = False,
        batch_size: int | None = None,
    ) -> AnswerScores:
        """See `Reader.score`. `batch_size` counts passages first, then pairs."""
        size = batch_size or self.reader.config.batch_size
        answer_ids = [self.reader.answer_ids(text, include_end) for text in texts]
        scored: list[Tensor] = [torch.empty(0)] * len(prompts)
        with self.reader._evaluating(), autocast(self.reader.device, self.reader.dtype):
            for head, prefixes, pairs_of in _blocks(prompts, size):
                past = self._prefixes(head, prefixes)
                lengths = [len(head) + len(prefix) for prefix in prefixes]
                # Pairs of like length share a batch, whatever prefix they have.
                pairs = [(row, pair) for row, prefix in enumerate(prefixes) for pair in pairs_of[prefix]]
                pairs.sort(key=lambda item: -len(prompts[item[1]].tail) - len(answer_ids[item[1]]))
                for start in range(0, len(pairs), size):
                    chunk = pairs[start : start + size]
                    tails = [prompts[pair].tail for _, pair in chunk]
                    chunk_log_probs = self._tails(
                        past, [row for row, _ in chunk], lengths, tails, [answer_ids[pair] for _, pair in chunk]
                    )
                    for (_, pair), log_probs_T in zip(chunk, chunk_log_probs, strict=True):
                        scored[pair] = log_probs_T
        return AnswerScores(scored)

    def _head(self, head: tuple[int, ...]) -> KeysValues:
        """Keys and values of the head, `[1, heads, H, width]`; computed at its first use."""
        if head not in self._heads:
            cache = DynamicCache(config=self.module.config)
            self._run(torch.tensor([head], device=self.reader.device), cache)
            self.tokens_computed += len(head)
            self._heads[head] = keys_and_values(cache)
        return self._heads[head]

    def _prefixes(self, head: tuple[int, ...], prefixes: Sequence[tuple[int, ...]]) -> KeysValues:
        """Keys and values of head and each run of passages: `[U, heads, H + longest, width]`, padded on the right."""
        shared = self._head(head) if head else []
        rows = (len(prefixes), -1, -1, -1)
        cache = self._filled([(keys.expand(rows), values.expand(rows)) for keys, values in shared])
        if max(map(len, prefixes)):
            self._run(answer_tokens.pad_right(prefixes, self.reader.pad_id).to(self.reader.device), cache)
            self.tokens_computed += sum(map(len, prefixes))
        return keys_and_values(cache)

    def _tails(
        self,
        past: KeysValues,
        rows: Sequence[int],
        lengths: Sequence[int],
        tails: Sequence[Sequence[int]],
        answer_ids: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Log-probabilities of each answer's tokens after `lengths[row]` kept positions of `past[row]` and its tail."""
        device = self.reader.device
        # The last token of an answer is predicted, and predicts nothing.
        token_rows = [[*tail, *answer[:-1]] for tail, answer in zip(tails, answer_ids, strict=True)]
        first = [len(tail) - 1 for tail in tails]
        ids_NL = answer_tokens.pad_right(token_rows, self.reader.pad_id).to(device)
        kept_N = torch.tensor([lengths[row] for row in rows], device=device)
        longest, width = int(kept_N.max()), ids_NL.shape[1]
        rows_N = torch.tensor(rows, device=device)
        cache = self._filled([(k[rows_N, :, :longest], v[rows_N, :, :longest]) for k, v in past])
        mask_NP = torch.arange(longest, device=device) < kept_N[:, None]
        asked_NL = torch.zeros_like(ids_NL, dtype=torch.bool)
        for row, (start, answer) in enumerate(zip(first, answer_ids, strict=True)):
            asked_NL[row, start : start + len(answer)] = True
        logits_MV = self.module(
            input_ids=ids_NL,
            attention_mask=torch.cat([mask_NP, torch.ones_like(ids_NL, dtype=torch.bool)], dim=1).long(),
            position_ids=kept_N[:, None] + torch.arange(width, device=device),
            use_cache=True,
            logits_to_keep=asked_NL,
            **{CACHE: cache},
        ).logits
        self.tokens_computed += sum(map(len, token_rows))
        targets_M = torch.tensor([token for answer in answer_ids for token in answer], device=device)
        log_probs_M = -torch.nn.functional.cross_entropy(logits_MV.float(), targets_M, reduction="none")
        return list(log_probs_M.cpu().split([len(answer) for answer in answer_ids]))

    def _run(self, input_ids_BL: Tensor, cache: DynamicCache) -> None:
        """Fill `cache`; the last layer over the vocabulary is left out."""
        self.module.base_model(input_ids=input_ids_BL, use_cache=True, **{CACHE: cache})

    def _filled(self, past: KeysValues) -> DynamicCache:
        return DynamicCache(past, config=self.module.config) if past else DynamicCache(config=self.module.config)


def _blocks(
    prompts: Sequence[Prompt], size: int
) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]], dict[tuple[int, ...], list[int]]]]:
    """Head, up to `size` different runs of passages of like length, and the prompts that begin with each."""
    grouped: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for pair, prompt in enumerate(prompts):
        prefix = tuple(token for passage in prompt.passages for token in passage)
        grouped.setdefault(prompt.head, {}).setdefault(prefix, []).append(pair)
    for head, pairs_of in grouped.items():
        ordered = sorted(pairs_of, key=len, reverse=True)
        for start in range(0, len(ordered), size):
            yield head, ordered[start : start + size], pairs_of
