"""Where a model is read from, when its folder may hold a whole model or adapters alone. No peft here.

An encoder's or reranker's adapters lie without a `config.json`: beside one, transformers and sentence-transformers
would look for the whole weights in the same folder and not for the base that `adapter_config.json` names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_experiments.config.schema import ModelConfig
from rag_experiments.core.errors import RequestError, with_article
from rag_experiments.model_files.integrity import has_vocabulary
from rag_experiments.model_files.metadata import ADAPTER_CONFIG, base_of_adapters, is_adapter, read_facts, read_json
from rag_experiments.model_files.sources import ResolvedSource, fetch, portable, resolve

TASKS = {
    "encoder": "FEATURE_EXTRACTION",
    "cross_encoder": "SEQ_CLS",
    "decoder": "CAUSAL_LM",
    "encoder_decoder": "SEQ_2_SEQ_LM",
}
"""A kind of model to peft's name of what its adapters are for; a cross_encoder that says yes or no is a decoder."""


@dataclass(frozen=True, slots=True)
class ModelFolders:
    """What of a model lies where; the same folder throughout for a whole model."""

    weights: Path
    """The whole model: the base of adapters."""
    settings: Path
    """What says how the model is used: pooling, prefixes, lengths."""
    tokenizer: Path
    adapters: Path | None
    base: str
    """The whole model in the words of `model.path`, right from any working directory."""
    base_for_others: str
    """The same for libraries that know folders and hub ids only."""


def model_folders(config: ModelConfig) -> ModelFolders:
    """The folders of an encoder or a reranker, fetched where they are not on this disk.

    Raises:
        RequestError: a source that is missing, or one file.
    """
    source = resolve(config.path, config.revision, weights=config.init == "pretrained")
    folder = fetch(source)
    if folder.is_file():
        raise RequestError(
            f"model.path: {config.path!r} is one file; {with_article(config.kind)} is opened from a folder."
        )
    if config.init != "pretrained" or not is_adapter(folder):
        return ModelFolders(folder, folder, folder, None, *_words(source, folder))
    source = resolve(base_of_adapters(folder))
    weights = fetch(source)
    says = (folder / "modules.json").is_file() or read_facts(folder) is not None
    tokenizer = folder if has_vocabulary(folder) else weights
    return ModelFolders(weights, folder if says else weights, tokenizer, folder, *_words(source, weights))


def task_of(adapters: Path) -> str | None:
    """peft's name of what the adapters in a folder were trained for."""
    return read_json(adapters / ADAPTER_CONFIG).get("task_type")


def goes_on(adapters: Path, kind: str) -> bool:
    """Whether a model of this kind takes up these adapters; a cross_encoder is also made of an encoder's."""
    return not (kind == "cross_encoder" and task_of(adapters) == TASKS["encoder"])


def whole(backbone: Any) -> Any:
    """The Hugging Face model inside adapters."""
    return backbone.get_base_model() if has_adapters(backbone) else backbone


def has_adapters(backbone: Any) -> bool:
    """Whether `backbone` is a model of peft."""
    return hasattr(backbone, "get_base_model") and hasattr(backbone, "peft_config")


def _words(source: ResolvedSource, folder: Path) -> tuple[str, str]:
    """`base` and `base_for_others`: neither keeps a revision, so one that was asked for is named by its folder."""
    local = str(folder.resolve())
    if source.revision is not None:
        return local, local
    return portable(source.given), source.given if source.hub_id is not None else local
