"""Logits of answers, and only of answers.

A prompt has hundreds of tokens and an answer a handful; a language model's last layer over a vocabulary of
50,000 to 250,000 costs as much as many of its blocks, and its logits are the largest tensor of a step. Here
that layer is applied only where a token is supervised. The numbers are those of the whole computation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import modeling_utils

from rag_experiments.models.reader.key_value_cache import CACHE

IGNORE = -100
"""The label of a position that is not learnt from."""


def pad_right(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """`[B, L]` of token ids, each row followed by `fill`; L is the longest row."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows], dtype=torch.long)


def pad_left(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """`[B, L]` of token ids, each row after `fill`."""
    length = max(map(len, rows))
    return torch.tensor([[*[fill] * (length - len(row)), *row] for row in rows], dtype=torch.long)


def lengths_mask(rows: Sequence[Sequence[int]], left: bool = False) -> Tensor:
    """`[B, L]`, 1 at tokens and 0 at padding: by length, since the padding token may be an end token too."""
    ones = [[1] * len(row) for row in rows]
    return pad_left(ones, 0) if left else pad_right(ones, 0)


def decoder_batch(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask`, `labels`, all `[B, L]`: prompt then answer, labels `IGNORE` but at the answer.

    Padded on the right, which `answer_logits` relies on.
    """
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [[IGNORE] * len(prompt) + list(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return {
        "input_ids": pad_right(rows, pad_id),
        "attention_mask": lengths_mask(rows),
        "labels": pad_right(labels, IGNORE),
    }


def encoder_decoder_batch(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int
) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` `[B, L]` of the prompts and `labels` `[B, T]` of the answers."""
    return {
        "input_ids": pad_right(prompts, pad_id),
        "attention_mask": lengths_mask(prompts),
        "labels": pad_right(answers, IGNORE),
    }


def answer_logits(model: torch.nn.Module, batch: dict[str, Tensor], kind: str) -> tuple[Tensor, Tensor]:
    """Logits `[N, V]` at the positions that predict a supervised token, and those tokens `[N]`, row by row.

    `model` may be wrapped (adapters, a distributed launcher). A causal model's labels are those of its
    inputs and are shifted here; an encoder-decoder shifts them into its decoder's inputs itself. A causal
    batch must be padded on the right: no token sees what stands after it, so the padding mask is left out
    and the faster unmasked kernel runs. A 4-D mask (packing) is kept.
    """
    inputs = dict(batch)
    labels_BT = inputs["labels"]
    if kind == "encoder_decoder":
        supervised_BT = labels_BT != IGNORE
        return model(**inputs).logits[supervised_BT], labels_BT[supervised_BT]
    del inputs["labels"]
    # What is read after a cache (Fusion-in-Decoder) may have padding before it, so there the mask stays.
    if CACHE not in inputs and "attention_mask" in inputs and inputs["attention_mask"].dim() == 2:
        del inputs["attention_mask"]
    targets_BL = F.pad(labels_BT[:, 1:], (0, 1), value=IGNORE)
    supervised_BL = targets_BL != IGNORE
    if keeps_positions(type(base_module(model)).forward):
        inputs["logits_to_keep"] = supervised_BL
    logits = model(**inputs, use_cache=False).logits
    return (logits if logits.dim() == 2 else logits[supervised_BL]), targets_BL[supervised_BL]


def answer_log_probs(model: torch.nn.Module, batch: dict[str, Tensor], kind: str) -> list[Tensor]:
    """Log-probabilities of each row's supervised tokens, in fp32, with a graph where gradients are on."""
    logits_NV, targets_N = answer_logits(model, batch, kind)
    log_probs_N = -F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    return list(log_probs_N.split(supervised_counts(batch["labels"], kind).tolist()))


def supervised_counts(labels_BT: Tensor, kind: str) -> Tensor:
    """`[B]`: supervised tokens a row. A causal model's first token is never predicted."""
    return (labels_BT if kind == "encoder_decoder" else labels_BT[:, 1:]).ne(IGNORE).sum(1)


def base_module(model: Any) -> Any:
    """The Hugging Face model inside a distributed wrapper and adapters."""
    if not hasattr(model, "config") and isinstance(getattr(model, "module", None), torch.nn.Module):
        model = model.module
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


@cache
def keeps_positions(forward: Callable[..., Any]) -> bool:
    """Whether a model's forward applies the last layer at chosen positions only (`logits_to_keep` as a mask).

    transformers takes a mask since it has `slice_logits_to_keep`; a model that does without it, or one from
    outside, computes all logits and `answer_logits` picks from them.
    """
    takes_mask = hasattr(modeling_utils, "slice_logits_to_keep")
    if not takes_mask or "logits_to_keep" not in inspect.signature(forward).parameters:
        return False
    return "slice_logits_to_keep" in inspect.getsource(forward)
