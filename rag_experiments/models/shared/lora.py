"""Low-rank adapters (Hu et al. 2021) around a model, through `peft`: put on, saved alone, put back.

Only adapters are saved: a folder of some megabytes with `adapter_config.json`, and beside it the facts that say where
the base weights come from. A reranker's head is trained and saved whole with its adapters.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from rag_experiments.config.schema import LoraConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.models.shared.adapter_folder import TASKS

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def add_adapters(module: PreTrainedModel, config: LoraConfig, kind: str) -> PeftModel:
    """`module` frozen, with fresh adapters on it. Raises `RequestError` where no layer is of the names asked for."""
    if getattr(module, "is_quantized", False):
        module = prepare_model_for_kbit_training(module)
    task = TASKS[kind]
    if kind == "cross_encoder" and module.get_output_embeddings() is not None:
        task = TASKS["decoder"]
    peft_config = PeftLoraConfig(
        task_type=task,
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        modules_to_save=_head(module) if task == TASKS["cross_encoder"] else None,
        exclude_modules=_not_adapted(module, task),
    )
    try:
        with _renamed_attribute():
            return get_peft_model(module, peft_config)
    except ValueError as error:
        raise RequestError(f"model.lora.target_modules={config.target_modules}: {error}") from error


def _head(module: Any) -> list[str]:
    """The parts between the encoder and the logit: they may be new, so they are trained and saved whole."""
    inner = module.base_model_prefix
    parts = [name for name, part in module.named_children() if name != inner and any(True for _ in part.parameters())]
    return [*parts, *(f"{inner}.{name}" for name in _pooler(getattr(module, inner)))]


def _not_adapted(module: Any, task: str) -> str | None:
    """A pattern of the layers that get no adapters: a head that is trained whole; what no vector depends on, where they
    would have no gradient."""
    names = {TASKS["encoder"]: _pooler, TASKS["cross_encoder"]: _head}.get(task, lambda _: [])(module)
    return rf"({'|'.join(map(re.escape, names))})(\..*)?" if names else None


def _pooler(encoder: Any) -> list[str]:
    return ["pooler"] if isinstance(getattr(encoder, "pooler", None), nn.Module) else []


def open_adapters(module: PreTrainedModel, folder: Path, trainable: bool) -> PeftModel | PreTrainedModel:
    """`module` with the adapters of `folder`; merged into its weights when they will not be trained."""
    with _renamed_attribute():
        with_adapters = PeftModel.from_pretrained(module, str(folder), is_trainable=trainable)
    return with_adapters if trainable else with_adapters.merge_and_unload()


def save_adapters(module: PeftModel, folder: Path, base: str) -> None:
    """Adapters alone into `folder`; `base` is where other libraries find the model that they go onto."""
    module.peft_config[module.active_adapter].base_model_name_or_path = base
    # `auto` would look for the base on the hub to see whether the vocabulary grew, which it never does here.
    module.save_pretrained(str(folder), save_embedding_layers=False)


def load_adapter_weights(module: PeftModel, folder: Path) -> None:
    """Replace the adapters' weights in place by those in `folder`."""
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise RequestError(f"{folder}: has no {ADAPTER_WEIGHTS}, so no adapters can be loaded from it.")
    outcome: Any = set_peft_model_state_dict(module, load_file(file))
    if outcome.unexpected_keys:
        raise RequestError(f"{file}: these adapters belong to another model ({outcome.unexpected_keys[0]}).")


def settings_of(module: PeftModel) -> dict[str, Any]:
    """The fields of `LoraConfig` that adapters on a module were made with."""
    return dataclasses.asdict(_settings(module.peft_config[module.active_adapter]))


def settings_in(folder: Path) -> LoraConfig:
    """What the adapters in `folder` were made with."""
    return _settings(PeftLoraConfig.from_pretrained(str(folder)))


@contextmanager
def _renamed_attribute() -> Iterator[None]:
    """peft (0.21) asks for an attribute by the name it had before transformers renamed it, which warns the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _settings(peft_config: Any) -> LoraConfig:
    targets = peft_config.target_modules
    return LoraConfig(
        r=peft_config.r,
        alpha=peft_config.lora_alpha,
        dropout=peft_config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else sorted(targets),
    )
