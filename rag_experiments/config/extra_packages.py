"""Settings that need a package which the install does not bring: said before weights are read, with its name.

The libraries say it too, each in its own place: most after the model was read and evaluated. Imports no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from rag_experiments.core.errors import RequestError

# transformers' names of optimisers: what a name has in it → the module that is imported, and what pip installs.
_OPTIMISERS = (
    (("galore",), "galore_torch", "galore-torch"),
    (("apollo",), "apollo_torch", "apollo-torch"),
    (("lomo",), "lomo_optim", "lomo-optim"),
    (("grokadamw",), "grokadamw", "grokadamw"),
    (("schedule_free",), "schedulefree", "schedulefree"),
    (("stable_adamw",), "optimi", "torch-optimi"),
    (("adamw_torch_4bit", "adamw_torch_8bit"), "torchao", "torchao"),
    (("anyprecision",), "torchdistx", "torchdistx"),
    (("torch_xla",), "torch_xla", "torch-xla"),
    (("torch_npu",), "torch_npu", "torch-npu"),
    (("bnb", "8bit", "paged_", "lion_", "ademamix"), "bitsandbytes", "bitsandbytes"),
)
# Attention: what a name begins with → module and package. `kernels-community/…` and other paths need `kernels`.
_ATTENTION = (
    ("flash_attention_4", "flash_attn.cute", "flash-attn-4"),
    ("flash_attention_3", "flash_attn_interface", "flash-attn-3"),
    ("flash_attention_2", "flash_attn", "flash-attn --no-build-isolation"),
    ("sage_attention", "sageattention", "sageattention"),
)


def check_packages(trainer: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `RequestError` for the first setting whose package is not installed.

    Args:
        trainer: `trainer.*`.
        models: each model of the configuration under its key, such as `model` or `retriever.encoder`.
    """
    optimiser = str(trainer.get("optim") or "")
    for parts, module, package in _OPTIMISERS:
        if any(part in optimiser for part in parts):
            _need(f"trainer.optim={optimiser}", module, package)
            break
    if trainer.get("use_liger_kernel"):
        _need("trainer.use_liger_kernel=true", "liger_kernel", "liger-kernel")
    for key, model in models.items():
        attention = str(model.get("attn_implementation") or "")
        for name, module, package in _ATTENTION:
            if attention.startswith(name):
                _need(f"{key}.attn_implementation={attention}", module, package)
        if "/" in attention:
            _need(f"{key}.attn_implementation={attention}", "kernels", "kernels")
        if model.get("load_in_4bit"):
            _need(f"{key}.load_in_4bit=true", "bitsandbytes", "bitsandbytes")


def _need(setting: str, module: str, package: str) -> None:
    if not _is_installed(module):
        raise RequestError(f"{setting} needs a package that is not installed: pip install {package}")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a submodule's parent
        return False
