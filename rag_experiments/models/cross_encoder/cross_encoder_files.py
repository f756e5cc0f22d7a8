"""From a configuration and a folder to the parts of a reranker: settings, tokenizer, backbone; and back into a folder.

What a folder holds decides the form: a head of one output, a language model, or an encoder that gets a new head. A
saved folder opens with `sentence_transformers.CrossEncoder(folder)` and gives the same scores: no activation after the
logit, the same maximum length, and for `yes_no` the prompt as a chat template.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.core.errors import RequestError, with_article
from rag_experiments.core.files import atomic_write_json
from rag_experiments.model_files.integrity import check_complete
from rag_experiments.model_files.metadata import read_facts
from rag_experiments.models.cross_encoder.pair_tokens import INSTRUCTION
from rag_experiments.models.encoder.encoder_files import DEFAULT_LENGTH, position_limit, reading
from rag_experiments.models.shared.adapter_folder import ModelFolders, goes_on
from rag_experiments.models.shared.wrapped import Fp32Linear

log = logging.getLogger(__name__)

WHAT = "a cross-encoder"
SAVED_SETTINGS = ("form", "max_length", "instruction")
_NO_ACTIVATION = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0.0"}
"""sentence-transformers would otherwise put a logit through a sigmoid. `version` is that of the file's form."""


def folder_facts(folder: Path) -> dict[str, Any]:
    """The settings that an earlier run wrote. Raises `RequestError` where it wrote a model of another kind."""
    facts = read_facts(folder)
    if facts is None or facts["kind"] == "encoder":  # an encoder's run: its weights get a head
        return {}
    if facts["kind"] != "cross_encoder":
        raise RequestError(
            f"model.path: {folder} holds {with_article(facts['kind'])}, where a cross_encoder or an encoder is needed; "
            "a decoder becomes one from the model it was trained from, or from the hub"
        )
    return facts["config"]


def form_of(config: CrossEncoderConfig, facts: dict[str, Any], found: PretrainedConfig) -> Literal["head", "yes_no"]:
    """Where the logit comes from: what is asked for, else what the folder says, else what the model is.

    Raises:
        RequestError: a head of several outputs, an encoder-decoder, or a form that the model cannot take.
    """
    names = found.architectures or []
    language_model = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)
    if found.is_encoder_decoder:
        raise RequestError(
            f"model.path={config.path} is an encoder-decoder; a cross_encoder is made of an encoder or a decoder"
        )
    if has_head(found) and found.num_labels != 1:
        raise RequestError(f"model.path={config.path} has {found.num_labels} outputs; a cross_encoder has one")
    said = config.form if config.form != "auto" else facts.get("form", "yes_no" if language_model else "head")
    if said == "yes_no" and not language_model and config.init == "pretrained":
        raise RequestError(f"model.form=yes_no: model.path={config.path} is no language model, which could say yes")
    if said == "head" and language_model:
        raise RequestError(f"model.form=head: model.path={config.path} is a decoder; it judges with model.form=yes_no")
    return said


def has_head(found: PretrainedConfig) -> bool:
    """Whether the folder holds a model with a classification head."""
    return any(name.endswith("ForSequenceClassification") for name in found.architectures or [])


def check_learnt(config: CrossEncoderConfig, found: PretrainedConfig, adapters: bool) -> None:
    """Raise `RequestError` for a reranker whose head would be new: its scores mean nothing before training.

    Args:
        config: with its `form` decided.
        adapters: the folder's adapters are a reranker's, so its head is saved with them.
    """
    if config.form == "head" and (config.init == "random" or not (has_head(found) or adapters)):
        raise RequestError(
            f"model.path={config.path} is an encoder without a head that scores; train it first "
            "(algorithm=rerank) and give that run, or take a reranker such as minilm_reranker_msmarco"
        )


def resolve_config(
    config: CrossEncoderConfig, facts: dict[str, Any], found: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> CrossEncoderConfig:
    """`config` with everything filled that decides a score: the request, else the folder, else a default."""
    limit = position_limit(found)
    default = min(tokenizer.model_max_length, limit or DEFAULT_LENGTH, DEFAULT_LENGTH)
    length = config.max_length or facts.get("max_length") or default
    if limit is not None and length > limit:
        log.warning("model.max_length: %d is cut to the %d tokens that %s takes", length, limit, config.path)
        length = limit
    form = form_of(config, facts, found)
    instruction = None
    if form == "yes_no":
        instruction = config.instruction or facts.get("instruction") or INSTRUCTION
    elif config.instruction is not None:
        raise RequestError("model.instruction is read by a language model only (model.form=yes_no): leave it out")
    return dataclasses.replace(config, form=form, max_length=length, instruction=instruction)


def encoders_adapters(folders: ModelFolders, config: CrossEncoderConfig) -> Path | None:
    """The folder's adapters, where they are an encoder's: they are merged before the encoder gets its head.

    Raises:
        RequestError: adapters are asked for on top of them.
    """
    if folders.adapters is None or goes_on(folders.adapters, config.kind):
        return None
    if config.lora is not None:
        raise RequestError(
            f"model.lora: model.path={config.path} holds an encoder's adapters, and a reranker's need a whole model "
            "below them: write one with rag-export run=<that run> DIR, and take model.path=DIR/model"
        )
    return folders.adapters


def load_backbone(
    config: CrossEncoderConfig, folder: Path, found: PretrainedConfig, tokenizer: PreTrainedTokenizerBase,
    of_encoder: Path | None = None,
) -> PreTrainedModel:  # fmt: skip
    """The transformer with its head, in fp32; a new head, or all of it with `init: random`, by torch's global seed.

    Args:
        of_encoder: adapters to merge into the encoder below the head.

    Raises `RequestError` where the folder's weights are not this architecture's.
    """
    auto: Any = AutoModelForCausalLM if config.form == "yes_no" else AutoModelForSequenceClassification
    extra = {"attn_implementation": config.attn_implementation} if config.attn_implementation else {}
    new_head = config.form == "head" and not has_head(found)
    if config.form == "head":
        found.num_labels = 1
        found.pad_token_id = tokenizer.pad_token_id
    if hasattr(found, "sentence_transformers"):  # what `save` writes there is no part of the model
        del found.sentence_transformers
    reads = {"config": found, "dtype": torch.float32, "output_loading_info": True}
    if config.init == "random":
        backbone = reading(folder, lambda: auto.from_config(found, dtype=torch.float32, **extra), WHAT)
    else:
        with _without_report() if new_head else nullcontext():
            backbone, report = reading(folder, lambda: auto.from_pretrained(folder, **reads, **extra), WHAT)
        missing = report["missing_keys"]
        if new_head:
            # What the encoder itself has; its pooler, where the folder has none, is a part of the new head.
            own = f"{backbone.base_model_prefix}."
            missing = [name for name in missing if name.startswith(own) and "pooler" not in name]
        check_complete(missing, folder, found.model_type)
    if of_encoder is not None:
        from rag_experiments.models.shared.lora import open_adapters

        inner = backbone.base_model_prefix
        setattr(backbone, inner, open_adapters(getattr(backbone, inner), of_encoder, trainable=False))
        backbone.requires_grad_(True)
    for layer in _last_layers(backbone, config.form):
        layer.__class__ = Fp32Linear
    return backbone


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from warning of a new head that was asked for; what must not be missing is checked here."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _last_layers(backbone: PreTrainedModel, form: str) -> list[nn.Linear]:
    """The layers that a logit comes out of."""
    if form == "yes_no":
        found: Any = [backbone.get_output_embeddings()]
    else:
        found = [module for module in backbone.modules() if getattr(module, "out_features", None) == 1]
    return [layer for layer in found if type(layer) is nn.Linear]


def save_backbone(backbone: PreTrainedModel, folder: Path) -> None:
    """The whole model, so that sentence-transformers opens it as a `CrossEncoder`."""
    own: Any = backbone.config
    try:
        own.sentence_transformers = _NO_ACTIVATION
        backbone.save_pretrained(folder)
    finally:
        del own.sentence_transformers


def save_tokenizer(
    tokenizer: PreTrainedTokenizerBase, config: CrossEncoderConfig, template: str | None, folder: Path
) -> None:
    """The tokenizer with the reranker's maximum length and, for `yes_no`, its prompt as the chat template."""
    before = (tokenizer.model_max_length, tokenizer.chat_template)
    try:
        tokenizer.model_max_length = config.max_length or before[0]
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.model_max_length, tokenizer.chat_template = before


def save_beside_adapters(folder: Path, form: str, answer_ids: list[int]) -> None:
    """What tells sentence-transformers (5.4 or newer) how to use adapters: the base's own files do not say it.

    Args:
        answer_ids: the tokens `yes` and `no`, of a `yes_no` reranker.
    """
    library = "sentence_transformers"
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{library}.base.modules.transformer.Transformer"}]
    text = {"method": "forward", "method_output_name": "logits"}
    settings: dict[str, Any]
    if form == "head":
        task, settings = "sequence-classification", {"text": text}
        output = "scores"
    else:
        task, settings = "text-generation", {"text": text, "message": {**text, "format": "flat"}}
        output = "causal_logits"
        score = f"{library}.cross_encoder.modules.logit_score.LogitScore"
        modules.append({"idx": 1, "name": "1", "path": "1_LogitScore", "type": score})
        (folder / "1_LogitScore").mkdir(exist_ok=True)
        tokens = dict(zip(("true_token_id", "false_token_id"), answer_ids, strict=True))
        atomic_write_json(folder / "1_LogitScore" / "config.json", {**tokens, "module_input_name": output})
    described = {"transformer_task": task, "modality_config": settings, "module_output_name": output}
    atomic_write_json(folder / "sentence_bert_config.json", described)
    general = {"model_type": "CrossEncoder", "activation_fn": _NO_ACTIVATION["activation_fn"], "prompts": {}}
    atomic_write_json(folder / "config_sentence_transformers.json", general)
    atomic_write_json(folder / "modules.json", modules)
