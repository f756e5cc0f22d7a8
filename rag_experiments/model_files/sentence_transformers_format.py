"""What a sentence-transformers folder says about its model, and how to write one.

Read: `modules.json` (the pipeline), `1_Pooling/config.json`, `2_Dense`, `2_Normalize`, prompts and similarity in
`config_sentence_transformers.json`, `max_seq_length` in `sentence_bert_config.json`. Ours adds `rag_experiments.json`,
which wins: it holds what that format cannot (two maximum lengths, a truncated dimension).
No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.model_files.metadata import read_facts, read_json

TRUNCATE_FOLDER = "2_Truncate"
"""A Dense layer that keeps the first components: the format has no other place for a truncated dimension."""

_POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_MODULES = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")


@dataclass(slots=True)
class FolderFacts:
    """Settings found in a model's folder; `None` where it does not say."""

    pooling: str | None = None
    similarity: str | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    max_query_length: int | None = None
    max_passage_length: int | None = None
    padding_side: str | None = None
    append_eos: bool = False
    dimension: int | None = None
    dense: list[str] = field(default_factory=list)
    """Sub-folders of the Dense layers after pooling, in order."""


def read_folder(folder: Path) -> FolderFacts:
    """Everything `folder` says about how its encoder is to be used.

    Raises `RequestError` for a part that is not supported (weighted pooling, a router, …), naming it.
    """
    facts = FolderFacts()
    modules_file = folder / "modules.json"
    if modules_file.is_file():
        _read_modules(folder, modules_file, facts)
        _read_prompts(folder, facts)
        length = _optional_json(folder / "sentence_bert_config.json").get("max_seq_length")
        facts.max_query_length = facts.max_passage_length = length
    own = read_facts(folder)
    if own is not None:
        if own["kind"] != "encoder":
            raise RequestError(
                f"model.path: {folder} holds a model of kind {own['kind']!r} where an encoder is needed."
            )
        for name, value in own["config"].items():
            if name in FolderFacts.__slots__ and value is not None:
                setattr(facts, name, value)
    return facts


def _read_modules(folder: Path, modules_file: Path, facts: FolderFacts) -> None:
    """The pipeline's pooling, Dense layers, and whether it ends in a normalisation."""
    try:
        modules = json.loads(modules_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{modules_file}: not valid JSON ({error}).") from None
    normalised = False
    for module in modules:
        name = module["type"].rpartition(".")[2]
        if name not in _MODULES:
            raise RequestError(
                f"{modules_file}: the module {name!r} is not supported; an encoder here is "
                "Transformer, Pooling, then Dense and Normalize."
            )
        if name == "Transformer" and module["path"]:
            raise RequestError(
                f"{modules_file}: the transformer lies in {module['path']!r}; open the model with "
                "sentence-transformers once and save it, which puts it beside modules.json."
            )
        if name == "Pooling":
            facts.pooling = _read_pooling(folder / module["path"] / "config.json")
        if name == "Dense":
            facts.dense.append(module["path"])
        normalised = normalised or name == "Normalize"
    similarity = _optional_json(folder / "config_sentence_transformers.json").get("similarity_fn_name")
    if normalised or similarity in ("cosine", "dot"):
        facts.similarity = "cosine" if normalised else similarity


def _read_pooling(file: Path) -> str:
    """`mean`, `cls` or `last`, in the old form of the file (one flag a mode) or the new (`pooling_mode`)."""
    config = read_json(file)
    mode = config.get("pooling_mode")
    if mode is None:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        if len(flags) == 1 and flags[0] in _POOLING_KEYS:
            return _POOLING_KEYS[flags[0]]
        mode = flags
    elif mode in _POOLING_NAMES:
        return _POOLING_NAMES[mode]
    raise RequestError(f"{file}: the pooling {mode} is not supported; mean, cls and lasttoken are.")


def _read_prompts(folder: Path, facts: FolderFacts) -> None:
    """The prefixes, under the names that sentence-transformers looks for."""
    prompts = _optional_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    facts.query_prefix = prompts.get("query")
    facts.passage_prefix = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), None)


def _optional_json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def write_folder(folder: Path, config: Any, *, hidden_size: int, dense: list[str]) -> None:
    """Write the sentence-transformers files of an encoder beside its backbone.

    `config` is a resolved `EncoderConfig`, `dense` the sub-folders already written. The types carry their old
    names, which every release since 2.0 opens.
    """
    steps: list[tuple[str, str]] = [("", "Transformer"), ("1_Pooling", "Pooling")]
    steps += [(path, "Dense") for path in dense]
    if config.similarity == "cosine":
        steps.append((f"{len(steps)}_Normalize", "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(steps)
    ]
    _write(folder / "modules.json", modules)
    pooling = {
        "word_embedding_dimension": hidden_size,
        **{key: mode == config.pooling for key, mode in _POOLING_KEYS.items()},
    }
    pooling |= {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    _write(folder / "1_Pooling" / "config.json", pooling)
    # One length there: the longer, so that no passage is cut shorter than it was here.
    length = max(config.max_query_length, config.max_passage_length)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    prompts = {"query": config.query_prefix, "document": config.passage_prefix}
    general = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": config.similarity}
    _write(folder / "config_sentence_transformers.json", general)
    for path, name in steps:
        if name == "Normalize":
            (folder / path).mkdir(exist_ok=True)


def _write(file: Path, value: Mapping[str, Any] | list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
