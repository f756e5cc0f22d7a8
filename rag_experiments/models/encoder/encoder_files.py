"""From a configuration and a folder to the parts of an encoder: settings, tokenizer, backbone, Dense layers."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import Sequence as ProcessorSequence
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rag_experiments.config.schema import EncoderConfig, ModelConfig
from rag_experiments.core.errors import RequestError, first_line
from rag_experiments.model_files.integrity import check_complete, check_tokenizer
from rag_experiments.model_files.sentence_transformers_format import TRUNCATE_FOLDER, FolderFacts
from rag_experiments.models.shared.quiet import without_bars

log = logging.getLogger(__name__)

DEFAULT_LENGTH = 512
"""Tokens a text where neither the configuration nor the model's folder says: more has to be asked for."""

# Encoder-decoders of which only the encoder is used; AutoModel would build both halves.
_ENCODER_HALVES = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
}

# Their positions start behind the padding index, so the table holds two more rows than a text may have tokens.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "xmod"}

_ACTIVATIONS: dict[str, type[nn.Module]] = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}


class Dense(nn.Module):
    """A linear layer after pooling, as sentence-transformers keeps it (`gtr`, `sentence-t5`)."""

    def __init__(self, in_features: int, out_features: int, bias: bool, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_name = activation
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, x_BD: Tensor) -> Tensor:
        """`[B, in_features]` to `[B, out_features]`."""
        return self.activation(self.linear(x_BD))


def load_model_config(config: ModelConfig, folder: Path, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The backbone's Hugging Face configuration: `architecture` where it is given, else the folder's.

    An `architecture` without a vocabulary size takes the tokenizer's.
    """
    if config.architecture is None:
        model_config = reading(folder, lambda: AutoConfig.from_pretrained(folder))
    else:
        fields = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **config.architecture}
        model_type = fields.pop("model_type", None)
        if model_type is None:
            raise RequestError("model.architecture: needs 'model_type' (bert, t5, qwen3, …).")
        try:
            model_config = AutoConfig.for_model(model_type, **fields)
        except (ValueError, TypeError) as error:
            raise RequestError(f"model.architecture: {first_line(error)}") from error
    if model_config.vocab_size < len(tokenizer):
        raise RequestError(
            f"model.path: the tokenizer in {folder} has {len(tokenizer)} tokens, the model's vocabulary only "
            f"{model_config.vocab_size}."
        )
    model_config.use_cache = False
    return model_config


def resolve_config(
    config: EncoderConfig, facts: FolderFacts, model_config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> EncoderConfig:
    """`config` with every `auto` and `None` that decides a vector filled: the request, else the folder, else a default.

    The defaults: last-token pooling for a decoder, mean for the rest; cosine, as sentence-transformers compares where
    a model does not say; no prefixes. Where request and folder differ, and where a length is cut to the positions the
    model has, the log says so: both happen when a preset is given another model's path.
    """
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in model_config.architectures or [])
    limit = position_limit(model_config)
    length = min(tokenizer.model_max_length, limit or DEFAULT_LENGTH, DEFAULT_LENGTH)
    defaults: dict[str, Any] = {
        "pooling": "last" if causal else "mean",
        "similarity": "cosine",
        "query_prefix": "",
        "passage_prefix": "",
        "max_query_length": length,
        "max_passage_length": length,
        "padding_side": tokenizer.padding_side,
        "dimension": None,
    }
    chosen = {}
    for name, default in defaults.items():
        wanted, found = getattr(config, name), getattr(facts, name)
        wanted = None if wanted == "auto" else wanted
        chosen[name] = next((value for value in (wanted, found) if value is not None), default)
        if wanted is not None and found is not None and wanted != found and not name.startswith("max_"):
            log.warning("model.%s: %r is used, where %s says %r", name, wanted, config.path, found)
        if name.startswith("max_") and limit is not None and chosen[name] > limit:
            log.warning("model.%s: %d is cut to the %d tokens that %s takes", name, chosen[name], limit, config.path)
            chosen[name] = limit
    return dataclasses.replace(config, **chosen, append_eos=config.append_eos or facts.append_eos)


def position_limit(model_config: PretrainedConfig) -> int | None:
    """Tokens a text may have, special ones included; `None` for relative positions without a limit (T5)."""
    limit = getattr(model_config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    return limit - 2 if model_config.model_type in _OFFSET_POSITIONS else limit


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, with a padding token: the end token where it has none of its own (most decoders)."""
    tokenizer = reading(folder, lambda: AutoTokenizer.from_pretrained(folder))
    check_tokenizer(tokenizer, folder)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise RequestError(f"model.path: the tokenizer in {folder} has neither a padding nor an end token.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def ensure_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the tokenizer end every text with its end token, within the maximum length, and keep doing so when saved."""
    if tokenizer.eos_token is None:
        raise RequestError("model.append_eos: this model's tokenizer has no end token to append.")
    if tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        return
    if {"add_eos_token", "add_bos_token"} & set(tokenizer.init_kwargs):
        tokenizer.add_eos_token = True  # such a tokenizer rebuilds its post-processor from this flag when it is opened
        tokenizer.init_kwargs["add_eos_token"] = True
        return
    backend = tokenizer.backend_tokenizer
    eos = tokenizer.eos_token
    ending = TemplateProcessing(
        single=f"$A {eos}", pair=f"$A $B:1 {eos}:1", special_tokens=[(eos, tokenizer.eos_token_id)]
    )
    backend.post_processor = ProcessorSequence([p for p in (backend.post_processor, ending) if p is not None])


def load_backbone(config: EncoderConfig, folder: Path, model_config: PretrainedConfig) -> PreTrainedModel:
    """The transformer in fp32, pretrained or random (torch's global seed decides), its unused pooler frozen.

    Raises `RequestError` when the folder's weights are not this architecture's: transformers would only warn
    and start the missing ones at random.
    """
    model_class = _model_class(model_config)
    extra = {"attn_implementation": config.attn_implementation} if config.attn_implementation else {}
    if config.init == "random":
        make = model_class.from_config if model_class is AutoModel else model_class._from_config
        backbone = reading(folder, lambda: make(model_config, dtype=torch.float32, **extra))
    else:
        backbone, report = reading(
            folder,
            lambda: model_class.from_pretrained(
                folder, config=model_config, dtype=torch.float32, output_loading_info=True, **extra
            ),
        )
        missing = [name for name in report["missing_keys"] if "pooler" not in name]
        check_complete(missing, folder, model_config.model_type)
    # The pooler (a layer on the first token for BERT's own pre-training task) is kept so that the saved model is
    # whole, and frozen since no vector depends on it.
    pooler = getattr(backbone, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)
    return backbone


def load_dense(folder: Path, facts: FolderFacts, config: EncoderConfig) -> nn.ModuleList:
    """The Dense layers after pooling, in order; none for a random start from a bare architecture."""
    layers = nn.ModuleList()
    for path in facts.dense if config.architecture is None else []:
        if path == TRUNCATE_FOLDER:
            continue
        settings = json.loads((folder / path / "config.json").read_text(encoding="utf-8"))
        activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")[2]
        if activation not in _ACTIVATIONS or settings.get("use_residual"):
            raise RequestError(
                f"{folder / path / 'config.json'}: this kind of Dense layer ({activation}) is not supported."
            )
        layer = Dense(settings["in_features"], settings["out_features"], settings.get("bias", True), activation)
        if config.init == "pretrained":
            layer.load_state_dict(_dense_weights(folder / path))
        layers.append(layer)
    return layers


def save_dense(layers: nn.ModuleList, folder: Path, *, width: int, dimension: int | None) -> list[str]:
    """Write the Dense layers, and the truncation to `dimension` as one more; returns their sub-folders."""
    written = []
    for i, layer in enumerate(layers):
        written.append(
            _save_one(
                layer,
                folder / f"{i + 2}_Dense",
                f"torch.nn.modules.linear.{layer.activation_name}"
                if layer.activation_name == "Identity"
                else f"torch.nn.modules.activation.{layer.activation_name}",
            )
        )
    if dimension is not None and dimension < width:
        layer = Dense(width, dimension, bias=False, activation="Identity")
        with torch.no_grad():
            layer.linear.weight.copy_(torch.eye(dimension, width))
        written.append(_save_one(layer, folder / TRUNCATE_FOLDER, "torch.nn.modules.linear.Identity"))
    return written


def _save_one(layer: Any, folder: Path, activation: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "in_features": layer.linear.in_features,
        "out_features": layer.linear.out_features,
        "bias": layer.linear.bias is not None,
        "activation_function": activation,
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    save_file({k: v.detach().cpu().contiguous() for k, v in layer.state_dict().items()}, folder / "model.safetensors")
    return folder.name


def _dense_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of one Dense layer: safetensors, or a PyTorch file read without running what it holds."""
    file = folder / "model.safetensors"
    if file.is_file():
        return load_file(file)
    return torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)


def _model_class(model_config: PretrainedConfig) -> Any:
    """AutoModel, or the class of the encoder half."""
    import transformers

    half = half_class(model_config)
    return getattr(transformers, half) if half else AutoModel


def half_class(model_config: PretrainedConfig) -> str | None:
    """The class of transformers that opens the encoder half of an encoder-decoder; None for any other model."""
    return _ENCODER_HALVES.get(model_config.model_type)


def reading(folder: Path, read: Any, what: str = "an encoder") -> Any:
    """Run `read`, turning what transformers and safetensors raise for a bad folder into one sentence."""
    try:
        with without_bars():
            return read()
    except RequestError:
        raise
    except (
        Exception
    ) as error:  # transformers raises OSError, ValueError, KeyError, SafetensorError, … for the same thing
        raise RequestError(f"model.path: {folder} cannot be read as {what}: {first_line(error)}") from error
