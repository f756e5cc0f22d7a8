"""Attention with dropout on a CPU, where PyTorch has no fused kernel for it.

`scaled_dot_product_attention` with dropout falls back to whole score matrices of the batch, in fp32 whatever the
autocast, and draws its mask number by number: more than half of a training step of a small BERT. Here a few texts at a
time are attended to, so that their scores stay in the processor's cache, in the precision that autocast asks for, and
a 64-bit random number decides about four weights. Everything else (no dropout, another device, causal or additive
masks, grouped heads) goes to transformers' own function.

Registered with transformers under `NAME`, as its `AttentionInterface` is meant to be extended.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_with_cpu_dropout"
_SCORES_AT_A_TIME = 2**21
"""Of texts attended to together: 4 MiB in bf16."""
_DRAWS = 2**16


def use_cpu_attention(model: PreTrainedModel) -> None:
    """Let a model on the CPU that computes attention by PyTorch's function compute it by `attention_forward`."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attention_forward)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What `sdpa_attention_forward` of transformers returns: `[B, L, H, D]` of query, key and value `[B, H, L, D]`.

    Args:
        attention_mask: True where a query sees a key, `[B or 1, 1, L, L]`; None: everywhere.
        dropout: share of the weights that are dropped, to the nearest 1/65,536; 0 outside training.
    """
    if not (0.0 < dropout < 1.0) or not _is_plain(module, query, key, attention_mask, kwargs):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    texts, heads, length, width = query.shape
    scaling = width**-0.5 if scaling is None else scaling
    at_a_time = max(1, _SCORES_AT_A_TIME // (heads * length * length))
    padding = [None] * texts if attention_mask is None else _additive(attention_mask, query).split(at_a_time)
    attended = []
    # `split`, whose gradient is put together once; that of a slice is as large as the whole.
    pieces = (states.split(at_a_time) for states in (query * scaling, key, value))
    for queries, keys, values, hidden in zip(*pieces, padding, strict=False):
        scores = torch.matmul(queries, keys.transpose(-1, -2))
        if hidden is not None:
            scores = scores.add_(hidden)
        attended.append(torch.matmul(_Dropout.apply(scores.softmax(-1), dropout), values))
    return torch.cat(attended).transpose(1, 2).contiguous(), None


def _is_plain(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """Whether all there is to compute is softmax(q·k/√d + padding)·v on a CPU."""
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    masked = not causal if mask is None else mask.dtype == torch.bool
    special = any(kwargs.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    return query.device.type == "cpu" and query.shape == key.shape and masked and not special


def _additive(mask: Tensor, query: Tensor) -> Tensor:
    """0 where a query sees a key, else the lowest number there is; `[B, 1, L, L]`, in the dtype of the scores."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    hidden = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    return hidden.expand(len(query), *mask.shape[1:])


class _Dropout(torch.autograd.Function):
    """Dropout of weights, from torch's generator: recomputed activations (checkpointing) draw the same again."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, share: float) -> Tensor:
        bits = torch.empty(math.ceil(weights.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        # Of 65,536 values the lowest so many keep a weight; one less than all, so that the bound is a 16-bit number.
        threshold = min(round((1 - share) * _DRAWS), _DRAWS - 1)
        mask = bits.view(torch.int16)[: weights.numel()].view(weights.shape) < threshold - _DRAWS // 2
        ctx.save_for_backward(mask)
        ctx.scale = _DRAWS / threshold
        return torch.where(mask, weights, 0).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return torch.where(mask, gradients[0], 0).mul_(ctx.scale), None
