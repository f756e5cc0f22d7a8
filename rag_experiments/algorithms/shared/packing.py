"""Packing: several examples in one row, none of which sees another (Krell et al. 2021).

A row's attention is causal within each example and closed between them, and positions start anew with
each, so that every number is the one it would be alone. It saves padding where lengths differ much and
batches are not grouped by length; it costs a mask, and with it the fastest attention kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rag_experiments.models.reader.answer_tokens import IGNORE, pad_right


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Positions of `lengths` in rows of at most `room` tokens: first fit, longest first.

    An example longer than `room` gets a row of its own.
    """
    rows: list[list[int]] = []
    used: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[position]
        row = next((row for row, tokens in enumerate(used) if tokens + length <= room), None)
        if row is None:
            rows.append([position])
            used.append(length)
        else:
            rows[row].append(position)
            used[row] += length
    return rows


def packed_batch(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int, room: int, additive: bool = False
) -> dict[str, Tensor]:
    """`input_ids`, `labels`, `position_ids` `[R, L]` and `attention_mask` `[R, 1, L, L]` of B examples in R rows.

    The mask is boolean (SDPA); `additive`: fp32 with 0 and the lowest number instead, which eager attention adds.
    Each example must start with an unsupervised token, as every prompt does.
    """
    examples = [
        ([*prompt, *answer], [IGNORE] * len(prompt) + list(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    rows = pack([len(ids) for ids, _ in examples], room)
    ids = [[token for index in row for token in examples[index][0]] for row in rows]
    labels = [[label for index in row for label in examples[index][1]] for row in rows]
    positions = [[place for index in row for place in range(len(examples[index][0]))] for row in rows]
    # Padding is a segment of its own: it attends to itself, since a row of nothing but False is NaN in some kernels.
    segments = [[number for number, index in enumerate(row, 1) for _ in examples[index][0]] for row in rows]
    segments_RL = pad_right(segments, 0)
    length = segments_RL.shape[1]
    causal_LL = torch.ones(length, length, dtype=torch.bool).tril()
    mask_R1LL = ((segments_RL[:, :, None] == segments_RL[:, None, :]) & causal_LL)[:, None]
    if additive:
        mask_R1LL = torch.where(mask_R1LL, 0.0, torch.finfo(torch.float32).min)
    return {
        "input_ids": pad_right(ids, pad_id),
        "labels": pad_right(labels, IGNORE),
        "position_ids": pad_right(positions, 0),
        "attention_mask": mask_R1LL,
    }
