"""Fusion-in-Decoder's two halves: passages encoded apart, and an answer over all of their states.

Encoder-decoder (Izacard & Grave 2020): the encoder reads each input alone; the states of a question's inputs,
one after another, are the `encoder_outputs` that the decoder's cross-attention sees. The model is not patched.

Decoder LM (parallel context windows, Ratner et al. 2023; Block-Attention, Sun et al. 2024): each passage is read
after the shared prefix and nothing else, at positions that start anew right after the prefix; the tail (question,
answer) attends to prefix and all passages, its positions starting after the longest one. States are the keys
and values of every layer. This is a block mask with restarted positions, computed without the mask: its cost
grows with the number of passages, not with its square, and states may be kept for the next question. With one
passage it is plain reading.

The functions take the bare Hugging Face model and the tensors of `fid_batch`. Run them under autocast, or not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from rag_experiments.core.errors import RequestError
from rag_experiments.models.reader.key_value_cache import CACHE, keys_and_values

# -- encoder-decoder -----------------------------------------------------------------------------


def encode_inputs(model: PreTrainedModel, batch: dict[str, Any], recompute: bool = False) -> Tensor:
    """Encoder states `[B, S, D]` of each question's inputs, one after another; padding where `mask_BS` is 0.

    `recompute`: keep a chunk's states, not its activations, and encode it again in the backward pass.
    """
    encoder = model.get_encoder()

    def states(input_ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        return encoder(input_ids=input_ids_NL, attention_mask=mask_NL).last_hidden_state

    bank = []
    for chunk in batch["chunks"]:
        inputs = (chunk["input_ids"], chunk["attention_mask"])
        states_NLD = _maybe_again(states, recompute, *inputs)
        bank.append(states_NLD[chunk["attention_mask"].bool()])
    return torch.cat(bank)[batch["index_BS"]]


def cross_attention_inputs(batch: dict[str, Any], states_BSD: Tensor) -> dict[str, Any]:
    """Arguments of an encoder-decoder's `forward` and `generate`."""
    return {"encoder_outputs": BaseModelOutput(last_hidden_state=states_BSD), "attention_mask": batch["mask_BS"]}


# -- decoder LM ----------------------------------------------------------------------------------
# States of tokens are held as `[M, 2·layers, heads, head dimension]`: one tensor to select from, keys at even
# places, values at odd ones.


def check_decoder(model: PreTrainedModel) -> None:
    """Raise `RequestError` for a decoder whose layers do not all attend to everything before them."""
    text = model.config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or [])
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if kinds - {"full_attention"} or (window and not kinds):
        other_kinds = ", ".join(sorted(kinds - {"full_attention"})) or f"a sliding window of {window}"
        raise RequestError(
            f"algorithm=fid needs full attention in every layer of a decoder, and {type(model).__name__} has "
            f"{other_kinds}; use a Llama, Qwen or SmolLM model, or an encoder-decoder such as model=flan_t5_base."
        )


def encode_prefixes(model: PreTrainedModel, batch: dict[str, Any], recompute: bool = False) -> Tensor | None:
    """States `[P, L, 2·layers, H, d]` of the prefixes, or None where there are none."""
    prefixes = batch.get("prefixes")
    if prefixes is None:
        return None
    ids_PL, mask_PL = prefixes["input_ids"], prefixes["attention_mask"]
    positions_PL = torch.arange(ids_PL.shape[1], device=ids_PL.device).expand_as(ids_PL)

    def states(ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return _stacked(_continue(model, ids, mask, positions, DynamicCache()), 0)

    return _maybe_again(states, recompute, ids_PL, mask_PL, positions_PL)


def encode_chunk(
    model: PreTrainedModel,
    chunk: dict[str, Tensor],
    prefix_states: Tensor | None,
    prefix_mask_PL: Tensor | None,
    recompute: bool = False,
) -> Tensor:
    """States `[N, L, 2·layers, H, d]` of a chunk's passages, each after its own prefix."""
    ids_NL, mask_NL, prefix_N = chunk["input_ids"], chunk["attention_mask"], chunk["prefix_N"]
    positions_NL = torch.arange(ids_NL.shape[1], device=ids_NL.device).expand_as(ids_NL)
    before, mask = None, mask_NL
    if prefix_states is not None and prefix_mask_PL is not None:
        before_mask_NL = prefix_mask_PL[prefix_N]
        positions_NL = positions_NL + before_mask_NL.sum(dim=1, keepdim=True)
        mask = torch.cat([before_mask_NL, mask_NL], dim=1)
        before = prefix_states

    def states(ids: Tensor, mask: Tensor, positions: Tensor, before: Tensor | None) -> Tensor:
        cache = DynamicCache() if before is None else cache_of(before[prefix_N])
        length = 0 if before is None else before.shape[1]
        return _stacked(_continue(model, ids, mask, positions, cache), length)

    return _maybe_again(states, recompute, ids_NL, mask, positions_NL, before)


def encode_passages(model: PreTrainedModel, batch: dict[str, Any], recompute: bool = False) -> Tensor:
    """States `[B, S, 2·layers, H, d]` of each question's prefix and passages."""
    prefix_states = encode_prefixes(model, batch, recompute)
    prefix_mask = batch["prefixes"]["attention_mask"] if prefix_states is not None else None
    bank: list[Tensor] = []
    if prefix_states is not None and prefix_mask is not None:
        bank.append(prefix_states[prefix_mask.bool()])
    for chunk in batch["chunks"]:
        chunk_states = encode_chunk(model, chunk, prefix_states, prefix_mask, recompute)
        bank.append(chunk_states[chunk["attention_mask"].bool()])
    return torch.cat(bank)[batch["index_BS"]]


def cache_of(states_BSCHd: Tensor) -> DynamicCache:
    """The key-value cache that a decoder continues from."""
    layers = [
        (states_BSCHd[:, :, place].transpose(1, 2), states_BSCHd[:, :, place + 1].transpose(1, 2))
        for place in range(0, states_BSCHd.shape[2], 2)
    ]
    return DynamicCache(ddp_cache_data=layers)


def tail_inputs(batch: dict[str, Any], states_BSCHd: Tensor) -> dict[str, Any]:
    """Arguments of a decoder's `forward`: the tail (and answer) after the states, and `labels` where known."""
    tail_mask_BT = batch["tail_mask"]
    inputs = {
        "input_ids": batch["tail_ids"],
        "attention_mask": torch.cat([batch["mask_BS"], tail_mask_BT], dim=1),
        "position_ids": tail_positions(batch),
        CACHE: cache_of(states_BSCHd),
    }
    return inputs | ({"labels": batch["labels"]} if "labels" in batch else {})


def tail_positions(batch: dict[str, Any]) -> Tensor:
    """`[B, T]`: the tail's tokens counted on from where the longest passage ends, whichever side is padded."""
    counted_BT = (batch["tail_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return counted_BT + batch["start_B"][:, None]


def _continue(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache
) -> DynamicCache:
    """`cache` with the tokens read after what it holds; the last layer over the vocabulary is left out."""
    model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **{CACHE: cache})
    return cache


def _stacked(cache: DynamicCache, start: int) -> Tensor:
    """`[N, L, 2·layers, H, d]` of the tokens from `start` on."""
    held = keys_and_values(cache)
    dtype = held[0][1].dtype  # under autocast rotated keys may be fp32; attention casts them anyway
    parts = [part[:, :, start:].to(dtype) for layer in held for part in layer]
    return torch.stack(parts, dim=1).permute(0, 3, 1, 2, 4)


def _maybe_again(function: Any, recompute: bool, *arguments: Any) -> Any:
    if recompute and torch.is_grad_enabled():
        return checkpoint(function, *arguments, use_reentrant=False)
    return function(*arguments)
