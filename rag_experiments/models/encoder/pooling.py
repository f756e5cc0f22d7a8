"""From token vectors to one vector a text: mean, first or last token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PoolingMode = Literal["mean", "cls", "last"]


def pool(hidden_BLD: Tensor, attention_mask_BL: Tensor, mode: PoolingMode) -> Tensor:
    """Pool `hidden_BLD` over the positions where the mask is 1, whichever side the padding is on: `[B, D]`, fp32.

    The sum runs in fp32 even under bf16 autocast: a mean over 500 bf16 tokens loses three digits.
    A row with no token gives zeros, not NaN.
    """
    hidden_BLD = hidden_BLD.float()
    if mode == "mean":
        mask_BL1 = attention_mask_BL.unsqueeze(-1).to(hidden_BLD.dtype)
        return (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1e-9)
    mask_BL = attention_mask_BL.to(torch.int64)
    if mode == "cls":
        position_B = mask_BL.argmax(1)
    else:
        position_B = mask_BL.shape[1] - 1 - mask_BL.flip(1).argmax(1)
    rows_B = torch.arange(hidden_BLD.shape[0], device=hidden_BLD.device)
    return hidden_BLD[rows_B, position_B] * mask_BL.any(1, keepdim=True)
