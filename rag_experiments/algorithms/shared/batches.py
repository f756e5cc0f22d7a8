"""Batches of texts for an encoder: cut by length, encoded a chunk at a time, put back in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def length_sorted_chunks(encoder: Any, token_ids: list[list[int]], size: int) -> dict[str, Any]:
    """`token_ids` of N texts as chunks of at most `size` texts of like length.

    Returns:
        `{"chunks": [{"input_ids_BL", "attention_mask_BL"} …], "order_N": position of each text in the chunks}`,
        made of tensors, lists and dicts only, so that Trainer moves it to the device.
    """
    by_length = sorted(range(len(token_ids)), key=lambda index: len(token_ids[index]))
    chunks = [
        dict(encoder.pad([token_ids[index] for index in by_length[start : start + size]]))
        for start in range(0, len(by_length), size)
    ]
    position = torch.empty(len(by_length), dtype=torch.long)
    position[torch.tensor(by_length)] = torch.arange(len(by_length))
    return {"chunks": chunks, "order_N": position}


def encode_chunks(model: Callable[..., torch.Tensor], batch: dict[str, Any], recompute: bool = False) -> torch.Tensor:
    """`[N, D]` vectors of the texts of `length_sorted_chunks`, in their original order.

    Args:
        model: an `Encoder`, what a distributed launcher wraps around one, or a function that calls it.
        recompute: keep no activations; each chunk is encoded once more during backward, under the same
            random state, so that memory is one chunk's (the gradients of GradCache, Gao et al. 2021).
    """
    vectors = []
    for chunk in batch["chunks"]:
        if recompute and torch.is_grad_enabled():
            vectors.append(checkpoint(model, use_reentrant=False, **chunk))
        else:
            vectors.append(model(**chunk))
    return torch.cat(vectors)[batch["order_N"]]
