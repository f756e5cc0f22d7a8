"""How large a model is, and how many tokens its tokenizer makes of texts, without its weights being read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from rag_experiments.config.kinds import MODEL_KINDS
from rag_experiments.core.errors import RequestError
from rag_experiments.model_files import sources
from rag_experiments.model_files.integrity import has_vocabulary
from rag_experiments.model_files.metadata import base_of_adapters, is_adapter, read_facts
from rag_experiments.models.encoder.encoder_files import half_class
from rag_experiments.models.shared import lora
from rag_experiments.models.shared.adapter_folder import goes_on
from rag_experiments.models.shared.precision import resolve_precision

BYTES_TRAINED = 16
"""Of a parameter: fp32 weight, gradient and AdamW's two moments."""
BYTES_4BIT = 0.5625
"""Of a parameter in NF4: half a byte, and a scale of 32 bits for every 64 values, itself quantised."""


class Sizes(NamedTuple):
    """Parameters of a model, and bytes of weights and optimiser."""

    parameters: int
    trained: int
    memory: float


def sizes(model: Any, trained: bool, device: torch.device) -> Sizes | None:
    """Of the architecture on the meta device; None where its configuration cannot be had.

    Args:
        model: a `ModelConfig`.
        trained: False for one that only reads or judges.
    """
    config = architecture_of(model)
    if config is None:
        return None
    with torch.device("meta"):
        made_by: Any = getattr(transformers, _auto_class(model.kind, config))
        module = made_by.from_config(config) if hasattr(made_by, "from_config") else made_by._from_config(config)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        adapters = _adapters(model) if trained else None
        if adapters is not None:
            module = lora.add_adapters(module, adapters, model.kind)
    learning = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad) if trained else 0
    frozen = sum(parameter.numel() for parameter in module.parameters()) - learning
    return Sizes(parameters, learning, learning * BYTES_TRAINED + frozen * _bytes_frozen(model, device))


def _auto_class(kind: str, config: Any) -> str:
    """The class that makes the architecture; a cross-encoder of a decoder is that decoder, others have one output."""
    name = MODEL_KINDS[kind].auto_class
    if kind == "encoder" and half_class(config) is not None:
        return str(half_class(config))
    if name != "AutoModelForSequenceClassification":
        return name
    if any(one.endswith(("ForCausalLM", "LMHeadModel")) for one in config.architectures or []):
        return "AutoModelForCausalLM"
    config.num_labels = 1
    return name


def _adapters(model: Any) -> Any:
    """The adapters that are asked for, or that the model's folder holds."""
    if model.architecture is None:
        folder = sources.resolve(model.path, model.revision).local
        if folder is not None and is_adapter(folder) and goes_on(folder, model.kind):
            return lora.settings_in(folder)
    return getattr(model, "lora", None)


def _bytes_frozen(model: Any, device: torch.device) -> float:
    """A frozen reader's weights are in the precision it computes in, an encoder's in fp32."""
    if getattr(model, "load_in_4bit", False):
        return BYTES_4BIT
    return 4 if MODEL_KINDS[model.kind].role != "reader" else resolve_precision(model.precision, device).itemsize


def hidden_size(model: Any) -> int | None:
    """Width of the vectors, where the architecture's configuration says it."""
    config = architecture_of(model)
    return getattr(config, "hidden_size", None) or getattr(config, "d_model", None)


def token_counts(model: Any, texts: Sequence[str]) -> list[int] | None:
    """Tokens of each text with the model's tokenizer; None where that is not on this disk."""
    tokenizer = tokenizer_of(model)
    if tokenizer is None:
        return None
    return [len(row) for row in tokenizer(list(texts), verbose=False)["input_ids"]]


def tokenizer_of(model: Any) -> Any:
    """The model's tokenizer; None where it is not on this disk."""
    path = sources.resolve(model.path, model.revision, weights=False).local
    if path is not None and is_adapter(path) and not has_vocabulary(path):
        path = sources.resolve(base_of_adapters(path), weights=False).local
    if path is None:
        return None
    try:
        return _read(AutoTokenizer, _weights_file(path))
    except (OSError, ValueError, ImportError, struct.error):  # the last: a GGUF that is cut short
        return None


def facts_of(model: Any) -> dict[str, Any]:
    """The settings that an earlier run saved beside the model; empty where there are none."""
    path = sources.resolve(model.path, model.revision, weights=False).local
    facts = read_facts(path) if model.init != "random" and path is not None and path.is_dir() else None
    return dict((facts or {}).get("config", {}))


def _weights_file(folder: Path) -> Path:
    """The GGUF in a folder that holds nothing else to read a tokenizer from; else the folder."""
    if folder.is_dir() and not has_vocabulary(folder):
        return next(iter(sorted(folder.glob("*.gguf"))), folder)
    return folder


def architecture_of(model: Any) -> Any:
    """The model's Hugging Face config; None where it cannot be had, or where a GGUF in the folder has it.

    Of a model that is still on the hub this small file alone is fetched.
    """
    if model.architecture is not None:
        fields = dict(model.architecture)
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    source = sources.resolve(model.path, model.revision)
    path = source.local
    if path is not None and is_adapter(path) and not (path / "config.json").is_file():
        source = sources.resolve(base_of_adapters(path))
        path = source.local
    if path is None:
        try:
            path = sources.hub_config(source).parent
        except RequestError:
            return None
    if not (path.is_file() or (path / "config.json").is_file()):
        return None
    return _read(AutoConfig, path)


def _read(auto: Any, local: Path) -> Any:
    """A configuration or a tokenizer of a folder, or of a GGUF file."""
    if local.is_file():
        return auto.from_pretrained(local.parent, gguf_file=local.name)
    return auto.from_pretrained(local)
