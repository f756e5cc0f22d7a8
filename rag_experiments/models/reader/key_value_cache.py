"""A decoder's key-value cache as plain tensors."""

from __future__ import annotations

import inspect

from torch import Tensor
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values a layer, each `[B, heads, L, width]`."""

CACHE = (
    "cache"
    if "cache" in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    else "past_key_values"
)
"""What models call the cache among their arguments and in their output: transformers 5.24 renamed it everywhere."""


def keys_and_values(cache: DynamicCache) -> KeysValues:
    """What `cache` holds, layer by layer; nothing where nothing was read yet.

    Only for models whose layers all attend to everything before: `can_share` and `check_decoder` refuse the others.
    """
    held: KeysValues = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer), f"{type(layer).__name__} holds no keys and values of all tokens"
        if layer.keys is not None and layer.values is not None and layer.is_initialized:
            held.append((layer.keys, layer.values))
    return held
