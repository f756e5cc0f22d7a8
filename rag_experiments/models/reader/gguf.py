"""A GGUF file → an ordinary model folder (safetensors), made once and kept in the cache.

transformers reads GGUF and unpacks its 4-bit blocks to fp32, which takes about half a minute, and marks
the result as quantised: `Trainer` then refuses it and `save_pretrained` fails. The marks are dropped, since
the weights are plain numbers by then, and the model is saved under a key made of the file's content. What
was saved is opened again and compared with what was read before it is given a name that anyone will find.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rag_experiments.core import cache as disk_cache
from rag_experiments.core.digest import digest, files_digest
from rag_experiments.core.errors import RequestError
from rag_experiments.models.shared.quiet import without_bars

_VERSION = 1
"""Counted up when what is written changes, so that folders of an older version are not taken for it."""
_MARKS = ("hf_quantizer", "quantization_method", "is_quantized")
_PROBE = "The capital of France is Paris, and the capital of Italy is"


def import_gguf(file: Path, cache: Path) -> Path:
    """The folder that holds the model of `file`, imported on first use; several processes may ask at once.

    Raises `RequestError` when the `gguf` package is missing or transformers cannot read the file.
    """
    key = f"{file.stem}-{digest(_VERSION, files_digest([file]))}"
    return disk_cache.entry(cache, "models", key, lambda making: _write(file, making))


def _write(file: Path, folder: Path) -> None:
    """Import `file` into a folder, and check it."""
    with without_bars():
        model, tokenizer = _read(file)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _check(model, folder, tokenizer, file)


def _read(file: Path) -> tuple[PreTrainedModel, Any]:
    """The model in fp32 and its tokenizer, without the marks of a quantised model."""
    if importlib.util.find_spec("gguf") is None:
        raise RequestError(f"model.path: reading {file.name} needs the package gguf; run: pip install gguf")
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, KeyError, OSError, NotImplementedError) as error:
        raise RequestError(f"model.path: transformers cannot read {file}: {error}") from error
    for mark in _MARKS:
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.eval(), tokenizer


def _check(model: PreTrainedModel, folder: Path, tokenizer: Any, file: Path) -> None:
    """The saved model says what the one read says, in finite numbers, and better than by chance."""
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids_1L = tokenizer(_PROBE, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        first_LV, second_LV = model(ids_1L).logits[0], again(ids_1L).logits[0]
    if not torch.equal(first_LV, second_LV):
        raise RequestError(f"model.path: the import of {file} changed its outputs; nothing was kept.")
    loss = torch.nn.functional.cross_entropy(first_LV[:-1], ids_1L[0, 1:])
    chance = torch.log(torch.tensor(float(first_LV.shape[-1])))
    if not loss < chance:
        raise RequestError(f"model.path: {file} gives nonsense when read (loss {loss:.1f} on a plain sentence).")
