"""A hash of a model: its weights, and whatever else decides what it computes."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from rag_experiments.core.digest import Digest, digest

VOLATILE = ("_name_or_path", "transformers_version", "dtype", "architectures", "use_cache")
"""Of a model's Hugging Face config: what may differ between two copies of one model."""


def architecture_of(config: Any) -> str:
    """A Hugging Face config as text: heads, positions and norms decide what weights of the same shapes compute."""
    values = {name: value for name, value in config.to_dict().items() if name not in VOLATILE}
    return json.dumps(values, sort_keys=True, default=str)


def weights_digest(module: nn.Module, *settings: Any) -> str:
    """Of the names, types, shapes and values of all weights of `module`, and of `settings` as `digest` takes them."""
    hasher = Digest()
    hasher.add(*settings)
    for name, tensor in sorted(module.state_dict().items()):
        hasher.add(name, str(tensor.dtype), list(tensor.shape))
        hasher.add_bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of everything that turns a text into ids, without the truncation and padding of the last call."""
    state = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    for volatile in ("truncation", "padding"):
        state.pop(volatile, None)
    return digest(state)
