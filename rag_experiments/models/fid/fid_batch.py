"""Batches for Fusion-in-Decoder: every distinct input once, sorted by length, and where its states go.

The inputs of a batch (its passages, with the question where that is read with them) are encoded in chunks of
like length, whichever question they belong to. Their states, without padding, lie one after another in a
*bank* of M tokens; `index_BS` says which tokens of the bank a question attends to. So an uneven number of
passages needs no padding passages, and no padding token is ever attended to.

For a decoder LM the bank begins with the states of the prefixes (what stands before each passage).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from rag_experiments.models.reader.answer_tokens import IGNORE, lengths_mask, pad_left, pad_right
from rag_experiments.models.reader.prompts import Prompt

Ids = tuple[int, ...]
Block = tuple[Ids, Ids]
"""What a passage's states depend on: the prefix before it (empty for an encoder-decoder), and its tokens."""

NO_PASSAGE = -1
"""The segment of prefix and padding."""


def blocks_of(prompts: Sequence[Prompt]) -> list[Block]:
    """The distinct (prefix, passage) pairs of a batch, shortest first."""
    distinct = dict.fromkeys((prompt.head, part) for prompt in prompts for part in prompt.passages)
    return sorted(distinct, key=lambda block: len(block[1]))


def state_batch(
    prompts: Sequence[Prompt], pad_id: int, sub_batch_size: int, ready_blocks: Collection[Block] = ()
) -> dict[str, Any]:
    """What `encode` functions and the decoders' attention need, made of tensors, lists and dicts only.

    Args:
        ready_blocks: blocks whose states are at hand; they stand in the bank after the prefixes, in the order of
            `blocks_of`, before the chunks.

    Returns:
        `chunks` (a list of `input_ids`, `attention_mask` `[N, L]`, `prefix_N`), `prefixes` (`input_ids`,
        `attention_mask` `[P, L]`; absent without prefixes), `index_BS` into the bank, `mask_BS`, `segment_BS`
        (which passage of the prompt, in its order; -1 elsewhere) and `start_B` (the position at which the
        tail of a decoder's prompt starts: after the longest passage).
    """
    prefixes = list(dict.fromkeys(prompt.head for prompt in prompts))
    number = {prefix: index for index, prefix in enumerate(prefixes)}
    blocks = blocks_of(prompts)
    fresh = [block for block in blocks if block not in ready_blocks]
    in_bank = [*([((), prefix) for prefix in prefixes]), *(block for block in blocks if block in ready_blocks), *fresh]
    first: dict[Any, int] = {}
    offset = 0
    for place, block in enumerate(in_bank):
        first[("prefix", block[1]) if place < len(prefixes) else block] = offset
        offset += len(block[1])
    batch: dict[str, Any] = {"chunks": _chunks(fresh, number, pad_id, sub_batch_size)}
    if any(prefixes):
        batch["prefixes"] = {"input_ids": pad_right(prefixes, pad_id), "attention_mask": lengths_mask(prefixes)}
    rows, segments = [], []
    for prompt in prompts:
        start = first["prefix", prompt.head]
        row = list(range(start, start + len(prompt.head)))
        segment = [NO_PASSAGE] * len(prompt.head)
        for place, part in enumerate(prompt.passages):
            start = first[prompt.head, part]
            row += range(start, start + len(part))
            segment += [place] * len(part)
        rows.append(row)
        segments.append(segment)
    batch["index_BS"] = pad_right(rows, 0)
    batch["mask_BS"] = lengths_mask(rows)
    batch["segment_BS"] = pad_right(segments, NO_PASSAGE)
    batch["start_B"] = torch.tensor([len(p.head) + max(map(len, p.passages), default=0) for p in prompts])
    return batch


def _chunks(blocks: Sequence[Block], number: dict[Ids, int], pad_id: int, size: int) -> list[dict[str, Tensor]]:
    chunks = []
    for start in range(0, len(blocks), size):
        part = blocks[start : start + size]
        ids = [block[1] for block in part]
        chunks.append(
            {
                "input_ids": pad_right(ids, pad_id),
                "attention_mask": lengths_mask(ids),
                "prefix_N": torch.tensor([number[block[0]] for block in part]),
            }
        )
    return chunks


def training_batch(
    prompts: Sequence[Prompt], answers: Sequence[Sequence[int]], pad_id: int, kind: str, sub_batch_size: int
) -> dict[str, Any]:
    """`state_batch` and `labels` `[B, T]`; for a decoder also `tail_ids`, `tail_mask` `[B, T]`: tail, then answer."""
    batch = state_batch(prompts, pad_id, sub_batch_size)
    if kind == "encoder_decoder":
        return batch | {"labels": pad_right(answers, IGNORE)}
    rows = [[*prompt.tail, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [[IGNORE] * len(prompt.tail) + list(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return batch | {
        "tail_ids": pad_right(rows, pad_id),
        "tail_mask": lengths_mask(rows),
        "labels": pad_right(labels, IGNORE),
    }


def tail_batch(prompts: Sequence[Prompt], pad_id: int) -> dict[str, Tensor]:
    """`tail_ids`, `tail_mask` `[B, T]`, padded on the left, so that all rows end where their answers begin."""
    tails = [prompt.tail for prompt in prompts]
    return {"tail_ids": pad_left(tails, pad_id), "tail_mask": lengths_mask(tails, left=True)}


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` with its tensors on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return [to_device(value, device) for value in batch] if isinstance(batch, list) else batch
