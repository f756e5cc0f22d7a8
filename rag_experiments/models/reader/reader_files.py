"""A reader's files: opened from any source, written as an ordinary Hugging Face folder.

Three things may lie in a folder: a whole model, adapters alone (then the facts beside them, or peft's own
`base_model_name_or_path`, say what they go onto), or a GGUF. Settings left `auto` or `None` by the
configuration are taken from the facts that an earlier run wrote.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)

from rag_experiments.config.schema import LoraConfig, PathsConfig, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.model_files.integrity import check_complete, check_tokenizer, has_vocabulary
from rag_experiments.model_files.metadata import base_of_adapters, is_adapter, read_facts, read_json, write_facts
from rag_experiments.model_files.sources import fetch, portable, resolve
from rag_experiments.models.reader import answer_tokens
from rag_experiments.models.shared.precision import resolve_precision
from rag_experiments.models.shared.quiet import without_bars

_INHERITED = ("instruction", "max_input_length", "template_date")
"""Settings that a run's model keeps when it is opened again and nothing else is said."""


@dataclass
class Loaded:
    """An opened reader; `base` is where its weights without adapters come from."""

    module: Any
    tokenizer: Any
    config: ReaderConfig
    base: str


def open_reader(config: ReaderConfig, device: Any, cache: Path | None, frozen: bool) -> Loaded:
    """See `Reader.load`."""
    cache = cache or Path(PathsConfig().cache).expanduser()
    device = torch.device(device) if device is not None else default_device()
    if config.init == "random":
        return _random(config, device, frozen)
    folder = model_folder(config.path, config.revision, cache)
    facts = (read_facts(folder) or {}).get("config", {})
    config = _with_facts(config, facts)
    base, adapters = config.path, None
    if is_adapter(folder):
        adapters, base = folder, base_of_adapters(folder)
        folder = model_folder(base, None, cache)
    elif facts.get("path"):
        base = portable(config.path)
    module = _read_module(folder, config, device, frozen or adapters is not None or config.lora is not None)
    # Adapters that peft saved alone have no tokenizer beside them.
    tokenizer = _read_tokenizer(adapters if adapters is not None and has_vocabulary(adapters) else folder)
    if adapters is not None or config.lora is not None:
        module, config = _with_adapters(module, config, adapters, frozen)
    if frozen:
        module.requires_grad_(False)
        module.eval()
    return Loaded(module, tokenizer, config, portable(base))


def save(module: Any, tokenizer: PreTrainedTokenizerBase, config: ReaderConfig, base: str, directory: Path) -> None:
    """Model (or adapters), tokenizer and facts into `directory`, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    whole = answer_tokens.base_module(module)
    if whole is not module:
        whole.config.save_pretrained(directory)
    with without_bars():
        module.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    write_facts(directory, config.kind, {**dataclasses.asdict(config), "path": base})


def load_weights(module: Any, directory: Path) -> None:
    """Weights of `directory` into `module`, in place. Raises `RequestError` when they are another model's."""
    if answer_tokens.base_module(module) is not module:
        from rag_experiments.models.shared.lora import load_adapter_weights

        load_adapter_weights(module, directory)
        return
    weights: dict[str, torch.Tensor] = {}
    for file in _weight_files(directory):
        weights |= load_file(file)
    missing, unexpected = module.load_state_dict(weights, strict=False)
    tied = set(getattr(module, "all_tied_weights_keys", None) or {})
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        raise RequestError(f"{directory}: these weights belong to another model ({(missing or unexpected)[0]}).")


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        return [directory / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    if not (directory / "model.safetensors").is_file():
        raise RequestError(f"{directory}: has no model.safetensors, so no weights can be loaded from it.")
    return [directory / "model.safetensors"]


def model_folder(path: str, revision: str | None, cache: Path) -> Path:
    """The local folder behind `path`; a GGUF is imported."""
    local = fetch(resolve(path, revision))
    if local.is_dir() and not (local / "config.json").is_file() and not is_adapter(local):
        local = next(iter(sorted(local.glob("*.gguf"))), local)
    if local.suffix == ".gguf":
        from rag_experiments.models.reader.gguf import import_gguf

        return import_gguf(local, cache)
    return local if local.is_dir() else local.parent


def _with_facts(config: ReaderConfig, facts: dict[str, Any]) -> ReaderConfig:
    inherited: dict[str, Any] = {key: facts.get(key) for key in _INHERITED if getattr(config, key) is None}
    if config.chat_template == "auto" and facts.get("chat_template"):
        inherited["chat_template"] = facts["chat_template"]
    return dataclasses.replace(config, **inherited)


def _with_adapters(module: Any, config: ReaderConfig, adapters: Path | None, frozen: bool) -> tuple[Any, ReaderConfig]:
    """`module` with the adapters of a folder, or fresh ones, and the configuration that says which."""
    from rag_experiments.models.shared import lora

    if adapters is None:
        assert config.lora is not None
        # Adapters that were never trained change nothing, so a frozen reader does without.
        return (module, config) if frozen else (lora.add_adapters(module, config.lora, config.kind), config)
    module = lora.open_adapters(module, adapters, trainable=not frozen)
    if frozen:
        return module, config
    return module, dataclasses.replace(config, lora=LoraConfig(**lora.settings_of(module)))


def _read_module(folder: Path, config: ReaderConfig, device: torch.device, frozen: bool) -> Any:
    """The model in `folder`. Weights that do not train are held in the precision that is computed in."""
    precision = resolve_precision(config.precision, device)
    arguments: dict[str, Any] = {"dtype": precision if frozen else torch.float32}
    if config.attn_implementation is not None:
        arguments["attn_implementation"] = config.attn_implementation
    if config.load_in_4bit:
        arguments["quantization_config"] = _four_bit(device, precision)
        arguments["device_map"] = {"": device}
    hf_config = AutoConfig.from_pretrained(folder)
    auto = _auto_class(hf_config, config)
    try:
        with without_bars():
            module, report = auto.from_pretrained(folder, output_loading_info=True, **arguments)
    except (OSError, ValueError, ImportError) as error:
        raise RequestError(f"model.path={config.path}: {_first_line(error)}") from error
    check_complete(report["missing_keys"], folder, hf_config.model_type)
    return module if config.load_in_4bit else module.to(device)


def check_four_bit(device: torch.device) -> None:
    """Raise `RequestError` where bitsandbytes cannot hold a model in 4 bits."""
    if device.type != "cuda":
        raise RequestError(
            "model.load_in_4bit=true needs a CUDA GPU, and this run is on the CPU: leave it out, "
            "or use a smaller model such as model=smollm2_135m."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RequestError("model.load_in_4bit=true needs bitsandbytes; run: pip install bitsandbytes")


def _four_bit(device: torch.device, precision: torch.dtype) -> BitsAndBytesConfig:
    """NF4 weights (Dettmers et al. 2023)."""
    check_four_bit(device)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision,
    )


def _auto_class(hf_config: Any, config: ReaderConfig) -> Any:
    """The class to open it with. Raises `RequestError` when the model is of another kind than asked."""
    if bool(getattr(hf_config, "is_encoder_decoder", False)) != (config.kind == "encoder_decoder"):
        is_kind = "an encoder-decoder" if config.kind == "decoder" else "no encoder-decoder"
        raise RequestError(f"model.kind={config.kind}, but the model at model.path={config.path} is {is_kind}.")
    return AutoModelForSeq2SeqLM if config.kind == "encoder_decoder" else AutoModelForCausalLM


def _random(config: ReaderConfig, device: torch.device, frozen: bool) -> Loaded:
    """The architecture with fresh weights, and the tokenizer at `path`."""
    folder = fetch(resolve(config.path, config.revision, weights=False))
    tokenizer = _read_tokenizer(folder if folder.is_dir() else folder.parent)
    if config.architecture is None:
        hf_config = AutoConfig.from_pretrained(folder)
    else:
        hf_config = _architecture(dict(config.architecture), tokenizer)
    module = _auto_class(hf_config, config).from_config(hf_config, attn_implementation=config.attn_implementation)
    module = module.to(device)
    if frozen:
        module.requires_grad_(False)
        module.eval()
    return Loaded(module, tokenizer, config, portable(config.path))


def _architecture(fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Any:
    """A Hugging Face config of `fields`, with the vocabulary and special tokens of the tokenizer."""
    model_type = fields.pop("model_type", None)
    if model_type is None:
        raise RequestError("model.architecture needs a model_type, such as t5 or llama.")
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    fields = {"vocab_size": len(tokenizer), "eos_token_id": end, "pad_token_id": pad, **fields}
    try:
        hf_config = AutoConfig.for_model(model_type, **fields)
    except ValueError as error:
        raise RequestError(f"model.architecture.model_type={model_type}: {_first_line(error)}") from error
    if hf_config.is_encoder_decoder and getattr(hf_config, "decoder_start_token_id", None) is None:
        hf_config.decoder_start_token_id = pad
    return hf_config


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder}: has no tokenizer that can be read ({_first_line(error)}).") from error
    check_tokenizer(tokenizer, folder)
    return tokenizer


def default_device() -> torch.device:
    """The accelerator of this process (its own where several run), else the CPU."""
    from accelerate import PartialState

    return PartialState().device


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else json.dumps(type(error).__name__)
