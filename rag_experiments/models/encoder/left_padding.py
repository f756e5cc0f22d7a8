"""Left padding moves a text to the right, and some models count positions from the first column: give them theirs?

Rotary models see distances only, RoBERTa's count no padding, BERT's and GPT-2's count all of it. No field of a model's
configuration says which, so the model is asked: one short text, alone and padded.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rag_experiments.core.errors import RequestError

PADDING = 3
TOLERANCE = 0.02
"""Relative error of a state: above what bf16 makes of equal positions, far below what a shift by three makes."""


def text_positions(attention_mask: Tensor) -> Tensor:
    """Positions `[B, L]` counted from each text's first token."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def needs_positions(backbone: PreTrainedModel, token_ids: list[int], pad_id: int) -> bool:
    """Whether `backbone`, padded on the left, must be given `text_positions` to see a text as it stands alone.

    Raises:
        RequestError: its states depend on the padding either way.
    """
    device = next(backbone.parameters()).device
    ids = torch.tensor([[pad_id] * PADDING + token_ids], device=device)
    mask = torch.ones_like(ids)
    mask[:, :PADDING] = 0
    alone = backbone(input_ids=ids[:, PADDING:], attention_mask=mask[:, PADDING:]).last_hidden_state

    def error(**more: Tensor) -> float:
        padded = backbone(input_ids=ids, attention_mask=mask, **more).last_hidden_state[:, PADDING:]
        return float((padded - alone).norm() / alone.norm())

    if error() <= TOLERANCE:
        return False
    takes = "position_ids" in inspect.signature(backbone.forward).parameters
    if takes and error(position_ids=text_positions(mask)) <= TOLERANCE:
        return True
    raise RequestError(
        f"model.padding_side=left: a {backbone.config.model_type} model gives a text another vector for each number of "
        "padding tokens before it; set model.padding_side=right"
    )
