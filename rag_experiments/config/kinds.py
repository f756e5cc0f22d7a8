"""Which kinds of models and of retrievers there are, and how one from outside plugs in. Imports no torch.

A kind is an entry of `MODEL_KINDS` or `RETRIEVER_KINDS`. What is heavy stands in it as `module:name` and is imported
when it is needed. A kind from outside the package is an object of the same class that a preset names as `_target_`:

    # my_conf/model/colbert.yaml                    # my_conf/retriever/late.yaml
    _target_: my_package.COLBERT                    _target_: my_package.LATE
    path: …                                         k: 4
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from rag_experiments.config import schema
from rag_experiments.core.errors import RequestError, did_you_mean, with_article


@dataclass(frozen=True, kw_only=True)
class ModelKind:
    """One kind of model: its keys, how it is opened, how a run of it is evaluated."""

    name: str
    """The value of `kind:`; also kept with every saved model."""
    config: type[schema.ModelConfig]
    role: str
    """What such a model is in a run: `encoder` embeds for the retriever, `reranker` orders what was retrieved, `reader`
    answers; others as they like."""
    load: str
    """`module:function` of `(config, cache, frozen=False)` → a `models.component.Component`."""
    evaluator: str
    """`module:class`, an `evaluation.results.Evaluator`: measures runs whose `model` is of this kind."""
    auto_class: str = "AutoModel"
    """The class of transformers that makes the architecture: for counting parameters without weights."""
    any_architecture: bool = True
    """Whether a model of any architecture can be opened so. False: what the folder says of itself must be this kind."""
    check_frozen: str | None = None
    """`module:function` of the config that raises `RequestError`, before weights are read, for a model that the run
    does not train and that is of no use untrained."""


@dataclass(frozen=True, kw_only=True)
class RetrieverKind:
    """One kind of retriever: its keys and how it is built."""

    name: str
    """The value of `retriever.type`."""
    build: str
    """`module:function` of `(config, passages, encoder, cache)` → a `retrieval.retriever.Retriever`."""
    config: type[schema.RetrieverConfig] = schema.RetrieverConfig
    needs_encoder: bool = True
    encoder_role: str = "encoder"
    """The trained role whose model it searches with, where a run trains one."""


_LOADERS = "rag_experiments.models.component"
_EVALUATION = "rag_experiments.evaluation"

MODEL_KINDS: dict[str, ModelKind] = {
    kind.name: kind
    for kind in (
        ModelKind(
            name="encoder",
            config=schema.EncoderConfig,
            role="encoder",
            load=f"{_LOADERS}:load_encoder",
            evaluator=f"{_EVALUATION}.retrieval_evaluator:RetrievalEvaluator",
        ),
        ModelKind(
            name="cross_encoder",
            config=schema.CrossEncoderConfig,
            role="reranker",
            load=f"{_LOADERS}:load_cross_encoder",
            evaluator=f"{_EVALUATION}.retrieval_evaluator:RetrievalEvaluator",
            auto_class="AutoModelForSequenceClassification",
            check_frozen=f"{_LOADERS}:check_frozen_cross_encoder",
        ),
        ModelKind(
            name="decoder",
            config=schema.ReaderConfig,
            role="reader",
            load=f"{_LOADERS}:load_reader",
            evaluator=f"{_EVALUATION}.generation_evaluator:GenerationEvaluator",
            auto_class="AutoModelForCausalLM",
            any_architecture=False,
        ),
        ModelKind(
            name="encoder_decoder",
            config=schema.ReaderConfig,
            role="reader",
            load=f"{_LOADERS}:load_reader",
            evaluator=f"{_EVALUATION}.generation_evaluator:GenerationEvaluator",
            auto_class="AutoModelForSeq2SeqLM",
            any_architecture=False,
        ),
    )
}

_BUILDERS = "rag_experiments.retrieval.factory"

RETRIEVER_KINDS: dict[str, RetrieverKind] = {
    kind.name: kind
    for kind in (
        RetrieverKind(name="faiss", build=f"{_BUILDERS}:build_dense"),
        RetrieverKind(name="bm25", build=f"{_BUILDERS}:build_bm25", needs_encoder=False),
        RetrieverKind(name="hybrid", build=f"{_BUILDERS}:build_hybrid"),
    )
}


def model_kind(node: dict[str, Any], key: str) -> ModelKind:
    """The kind of the model whose keys are `node`; one named by `_target_` is taken into the registry first.

    Raises:
        RequestError: there is no such kind, or `_target_` names something else.
    """
    if "_target_" in node:
        kind = _registered(node.pop("_target_"), f"{key}._target_", MODEL_KINDS, ModelKind)
        if node.setdefault("kind", kind.name) != kind.name:
            raise RequestError(f"{key}.kind={node['kind']!r}: the kind that {key}._target_ names is {kind.name!r}")
    name = node.get("kind")
    if not isinstance(name, str) or name not in MODEL_KINDS:
        raise RequestError(f"{key}.kind={name!r} is not a kind of model{did_you_mean(str(name), MODEL_KINDS)}")
    return MODEL_KINDS[name]


def retriever_kind(node: dict[str, Any]) -> RetrieverKind:
    """The kind of the retriever whose keys are `node`; one named by `_target_` is taken into the registry first.

    Raises:
        RequestError: there is no such kind, or `_target_` names something else.
    """
    if "_target_" in node:
        kind = _registered(node.pop("_target_"), "retriever._target_", RETRIEVER_KINDS, RetrieverKind)
        if node.setdefault("type", kind.name) != kind.name:
            raise RequestError(f"retriever.type={node['type']!r}: the retriever of _target_ is {kind.name!r}")
    name = node.get("type")
    if not isinstance(name, str) or name not in RETRIEVER_KINDS:
        raise RequestError(f"retriever.type={name!r} is not a retriever{did_you_mean(str(name), RETRIEVER_KINDS)}")
    return RETRIEVER_KINDS[name]


def kinds_of_role(role: str) -> list[str]:
    """Names of the kinds that can take a role."""
    return [kind.name for kind in MODEL_KINDS.values() if kind.role == role]


def imported(place: str) -> Any:
    """What `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def import_target(target: Any, key: str, what: str) -> Any:
    """What the `_target_` under `key` names: `package.module.name`.

    Raises:
        RequestError: no such module or name. `what` says what it should be, with an example.
    """
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise RequestError(f"{key}={target!r} must name {what}")
    module_name, name = target.rsplit(".", 1)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise RequestError(f"{key}={target}: there is no module {error.name} on the Python path") from error
    except (ImportError, TypeError, ValueError) as error:  # 'a..b', '.a.b'
        raise RequestError(f"{key}={target} cannot be imported: {error}") from error
    return getattr(module, name, None)


def _registered(target: Any, key: str, registry: dict[str, Any], cls: type) -> Any:
    entry = import_target(target, key, f"{with_article(cls.__name__)}, such as my_package.MY_KIND")
    if not isinstance(entry, cls):
        raise RequestError(f"{key}={target} is no {cls.__name__} of rag_experiments.config.kinds")
    name = str(getattr(entry, "name", ""))
    registered = registry.setdefault(name, entry)
    if registered is not entry and registered != entry:
        raise RequestError(f"{key}={target}: there is another kind of the name {name!r}; give it its own name")
    return registered
