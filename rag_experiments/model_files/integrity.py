"""Whether a local model's files are whole, seen without reading weights: copies and downloads break off. No torch here.

What is looked at costs milliseconds: names, JSON files, and of each weights file its size against its header.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import safetensors_size
from rag_experiments.model_files.metadata import ADAPTER_CONFIG, is_adapter, parse_json, read_json

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")
"""In this order, where a folder has several."""

# Written by Trainer beside the weights; pickles that nothing here opens.
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")

_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.vocab", "*.model", "*.spm", "*.tiktoken", "tekken.json")
# Tokenizers that need no vocabulary: their tokens are bytes or code points.
_WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")

_GIT_LFS = b"version https://git-lfs"


def check_folder(name: str, folder: Path, weights: bool) -> None:
    """Raise `RequestError` where `folder` lacks a file that a model needs, or holds one that is cut short.

    Args:
        name: the folder as the user wrote it.
        weights: False where a configuration or a tokenizer is enough.
    """
    if not folder.is_dir():
        raise RequestError(f"model.path: {name!r} is neither a folder nor a file of weights.")
    adapters = is_adapter(folder)
    gguf = any(folder.glob("*.gguf"))
    has_config = (folder / "config.json").is_file() or adapters or gguf
    if weights and not has_config:
        raise RequestError(f"model.path: the folder {name!r} has no config.json, so it holds no model.")
    files = _weights_read(folder)
    if weights and not files:
        raise RequestError(f"model.path: the folder {name!r} has no weights (model.safetensors).")
    if not has_config and not (folder / "tokenizer_config.json").is_file():
        raise RequestError(f"model.path: the folder {name!r} has neither config.json nor tokenizer_config.json.")
    for settings in ("config.json", "modules.json", "tokenizer_config.json", ADAPTER_CONFIG):
        if (folder / settings).is_file():
            parse_json(folder / settings)
    if weights:
        for file in files:
            check_file(file)
        _check_shards(folder, files[0].suffix)
    if not (adapters or gguf or has_vocabulary(folder)):
        raise RequestError(_no_tokenizer(name))


def check_file(file: Path) -> None:
    """Raise `RequestError` where a file of weights is cut short, or only stands for one."""
    with file.open("rb") as stream:
        start = stream.read(len(_GIT_LFS))
    if start == _GIT_LFS:
        raise RequestError(f"{file}: is a Git LFS pointer, not weights; run 'git lfs pull' in its repository.")
    if file.suffix == ".gguf" and start[:4] != b"GGUF":
        raise RequestError(f"{file}: is no GGUF file (it does not start with GGUF).")
    if file.suffix == ".safetensors":
        try:
            whole, size = safetensors_size(file), file.stat().st_size
        except ValueError as error:  # of a header that is not JSON, too
            raise RequestError(f"{file}: is not a whole safetensors file ({error}).") from None
        if size != whole:
            raise RequestError(f"{file}: has {size:,} bytes where its header promises {whole:,}; fetch it anew.")


def _weights_read(folder: Path) -> list[Path]:
    """Of several forms of the weights the one that is read; the others may be pointers, or an index without shards."""
    files = [file for file in sorted(folder.iterdir()) if file.name not in _NOT_WEIGHTS]
    forms = [[file for file in files if file.suffix == suffix] for suffix in WEIGHT_SUFFIXES]
    return next((form for form in forms if form), [])


def _check_shards(folder: Path, suffix: str) -> None:
    for index in sorted(folder.glob(f"*{suffix}.index.json")):
        named = read_json(index).get("weight_map")
        if not isinstance(named, dict):
            raise RequestError(f"{index}: has no 'weight_map' that says which file holds which weights.")
        for name in sorted(set(named.values())):
            if not (folder / name).is_file():
                raise RequestError(f"{folder}: has no {name}, which {index.name} names; copy or download it.")


def has_vocabulary(folder: Path) -> bool:
    """Whether a tokenizer lies in `folder` that knows words, bytes or characters."""
    if any(True for pattern in _VOCABULARIES for _ in folder.glob(pattern)):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and read_json(config).get("tokenizer_class") in _WITHOUT_VOCABULARY


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raise `RequestError` for a tokenizer of nothing but special tokens, to which every word is unknown.

    transformers makes one without a word where the folder has no vocabulary.
    """
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
        raise RequestError(_no_tokenizer(str(folder)))


def _no_tokenizer(folder: str) -> str:
    return (
        f"model.path: the folder {folder!r} has no tokenizer (tokenizer.json); save it beside the model with "
        "tokenizer.save_pretrained."
    )


def check_complete(missing: Iterable[str], folder: Path, model_type: str) -> None:
    """Raise `RequestError` where weights lack tensors of the architecture: transformers would start them at random.

    Args:
        missing: the tensors that transformers reports as missing.
    """
    lacking = sorted(missing)
    if lacking:
        raise RequestError(
            f"model.path: the weights in {folder} lack {len(lacking)} tensors of a {model_type} model "
            f"({lacking[0]}, …), so they are not this model's."
        )
