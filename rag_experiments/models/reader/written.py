"""What a reader wrote: the text, and whether it came to its end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Written(str):
    """An answer's text.

    Attributes:
        cut: it ran into `max_new_tokens`: no token that ends an answer was written.
    """

    cut: bool

    def __new__(cls, text: str, cut: bool = False) -> Written:
        written = super().__new__(cls, text)
        written.cut = cut
        return written

    def __getnewargs__(self) -> tuple[str, bool]:  # type: ignore[override]
        return str(self), self.cut


def decoded(tokenizer: Any, new_BT: Tensor, end_ids: list[int], kind: str) -> list[Written]:
    """The texts of a batch of generated tokens.

    Args:
        new_BT: `[B, T]`, what was written behind the prompts; an encoder-decoder's opens with its start token.
        end_ids: the tokens that end an answer.
    """
    said_BT = new_BT[:, 1:] if kind == "encoder_decoder" else new_BT  # BART starts with the token that ends
    ended_B = torch.isin(said_BT, torch.tensor(end_ids, device=new_BT.device)).any(dim=1).tolist()
    texts = tokenizer.batch_decode(new_BT, skip_special_tokens=True)
    return [Written(text.strip(), cut=not ended) for text, ended in zip(texts, ended_B, strict=True)]
