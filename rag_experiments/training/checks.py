"""A composed configuration → a checked `RunConfig`. Imports no torch.

Two steps, so that what needs no torch is refused without it: `check_common` checks every group but
the algorithm; `check_algorithm` imports the one module that the algorithm's YAML names and checks its
keys and what it needs of the others. Both end in a `RequestError` that names the key.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rag_experiments.config import roles, schema
from rag_experiments.config.data_formats import config_class, registered_format
from rag_experiments.config.groups import GROUPS, TOP, choices, preset_kinds
from rag_experiments.config.hydra_errors import value_sentence
from rag_experiments.config.kinds import (
    MODEL_KINDS,
    RETRIEVER_KINDS,
    import_target,
    imported,
    kinds_of_role,
    model_kind,
    retriever_kind,
)
from rag_experiments.config.trainer_keys import check_trainer_arguments
from rag_experiments.config.validation import check_values, refuse_keys_of_other_kinds
from rag_experiments.core.errors import RequestError, did_you_mean, first_of, with_article
from rag_experiments.model_files import sources


def without_hydra(composed: DictConfig) -> DictConfig:
    """The configuration of a run: without Hydra's own node, and without the plan of a chain of runs."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in ("hydra", "chain")])


def check_common(composed: DictConfig) -> tuple[schema.RunConfig, dict[str, Any]]:
    """The run configuration with `algorithm` still a plain dict, and the whole resolved configuration.

    Raises:
        RequestError: an unresolved or missing value, an unknown key, a wrong type, a value out of range.
    """
    plain = _resolved(composed)
    for key, node in roles.model_nodes(plain):
        _settle_kind(node, key)
        model_kind(node, key)
        _check_adapters(node, key)
    retriever = retriever_kind(plain["retriever"])
    data_format = registered_format(plain["data"])
    refuse_keys_of_other_kinds(plain["model"])
    parts = {
        "model": check_values(model_kind(plain["model"], "model").config, plain["model"], "model"),
        "data": check_values(config_class(data_format), plain["data"], "data"),
        "retriever": check_values(retriever.config, plain["retriever"], "retriever"),
        "trainer": check_trainer_arguments(plain["trainer"]),
        "evaluation": check_values(schema.EvaluationConfig, plain["evaluation"], "evaluation"),
        "tracking": check_values(schema.TrackingConfig, plain["tracking"], "tracking"),
        "sweep": check_values(schema.SweepConfig, plain["sweep"], "sweep"),
        "paths": check_values(schema.PathsConfig, plain["paths"], "paths"),
    }
    top = {key: plain[key] for key in TOP}
    config = check_values(schema.RunConfig, {**plain, **top}, "", already=parts)
    _check_metric_name(config)
    _check_baselines(config)
    # A default that is typed out and one that is left out are one configuration: one hash, no column apart.
    filled = {name: dataclasses.asdict(part) for name, part in parts.items() if not isinstance(part, dict)}
    return config, {**plain, **filled}


def _check_baselines(config: schema.RunConfig) -> None:
    """Raise `RequestError` for a baseline that is no retriever, or one that needs an encoder."""
    for name in config.evaluation.baselines:
        if name not in RETRIEVER_KINDS:
            raise RequestError(
                f"evaluation.baselines: {name!r} is not a retriever{did_you_mean(name, RETRIEVER_KINDS)}"
            )
        if RETRIEVER_KINDS[name].needs_encoder:
            fitting = [kind.name for kind in RETRIEVER_KINDS.values() if not kind.needs_encoder]
            raise RequestError(
                f"evaluation.baselines: {name} needs an encoder, and a baseline has none; take {' or '.join(fitting)}"
            )


def check_algorithm(config: schema.RunConfig, training: bool = True) -> Any:
    """Replace `config.algorithm` by its checked dataclass and return the trainer class.

    Args:
        training: false for a finished run, beside whose encoder a retriever without one may be measured.

    Raises:
        RequestError: no such class, a wrong key or value, a model of the wrong kind, something needed and missing.
    """
    settings = dict(config.algorithm)
    trainer_class = import_algorithm(settings.pop("_target_", None))
    _check_roles_given(trainer_class.Config, settings)
    config.algorithm = check_values(trainer_class.Config, settings, "algorithm")
    role = roles.primary_role(trainer_class)
    kinds = kinds_of_role(role)
    if config.model.kind not in kinds:
        presets = [name for name, kind in preset_kinds().items() if kind in kinds]
        some = first_of(presets, "|", "--help model")
        right = f"choose model={some}, or model=run with the path of such a run" if presets else "see docs"
        raise RequestError(
            f"algorithm={settings.get('name')} trains {with_article(' or '.join(kinds) or role)}, but model.path="
            f"{config.model.path} is {with_article(config.model.kind)}: {right}"
        )
    _check_reranker(config, trainer_class)
    _check_retriever(config, trainer_class, training)
    trainer_class.check_config(config)
    return trainer_class


def import_algorithm(target: str | None) -> Any:
    """The trainer class that an algorithm's YAML names as `_target_`.

    Raises:
        RequestError: no name, no such module or class, or a class that is no `AlgorithmTrainer`.
    """
    trainer_class = import_target(
        target, "algorithm._target_", "a class, such as rag_experiments.algorithms.ctl.CTLTrainer"
    )
    base = imported("rag_experiments.algorithms.base:AlgorithmTrainer")
    if not (isinstance(trainer_class, type) and issubclass(trainer_class, base)):
        module, _, name = str(target).rpartition(".")
        raise RequestError(
            f"algorithm._target_={target}: {name} in {module} is no subclass of "
            "rag_experiments.algorithms.base.AlgorithmTrainer"
        )
    return trainer_class


def _check_roles_given(config_class: type, settings: dict[str, Any]) -> None:
    """Raise `RequestError` for a further model that the algorithm cannot do without."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for role, types in roles.config_roles(config_class).items():
        field = fields[role]
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if optional or settings.get(role) is not None:
            continue
        kinds = [kind.name for kind in MODEL_KINDS.values() if issubclass(kind.config, tuple(types))]
        presets = [name for name, kind in preset_kinds().items() if kind in kinds]
        raise RequestError(
            f"algorithm={settings.get('name')} needs a model as its {role}: add "
            f"model@algorithm.{role}={first_of(presets, '|', '--help model')}"
        )


def _resolved(composed: DictConfig) -> dict[str, Any]:
    composed = without_hydra(composed)
    try:
        missing = sorted(OmegaConf.missing_keys(composed))  # looks behind ${…} too
        if missing:
            raise RequestError(f"{missing[0]} has no value: set {missing[0]}=…")
        plain: Any = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise RequestError(value_sentence(error)) from error
    for key in TOP:
        if key not in plain:
            raise RequestError(f"{key} has no value: leave ~{key} out, or set {key}=…")
    for group in GROUPS:
        value = plain.get(group)
        if not isinstance(value, dict):
            options = choices(group)
            right = (
                f"choose one of {first_of(options, ', ', f'--help {group}')}"
                if options
                else f"set its keys, as {group}.<key>=…"
            )
            raise RequestError(f"{group}={value!r} is no configuration: {right}")
    return plain


def _settle_kind(node: dict[str, Any], key: str) -> None:
    """`kind: auto` (model=run) becomes what the run's model is."""
    if node.get("kind") == "auto":
        with roles.under_key(key):
            node["kind"] = sources.kind_of(node["path"])


def _check_adapters(node: dict[str, Any], key: str) -> None:
    """Raise `RequestError` for adapters on weights that are fresh: they are saved alone, and these nowhere."""
    if node.get("lora") is not None and node.get("init") == "random":
        raise RequestError(
            f"{key}.lora: adapters are put on a pretrained model, and {key}.init=random has none: leave one of them out"
        )


def _check_metric_name(config: schema.RunConfig) -> None:
    metric = config.trainer.get("metric_for_best_model")
    if metric is not None and not metric.startswith("dev/"):
        raise RequestError(
            f"trainer.metric_for_best_model={metric!r}: checkpoints are chosen on dev, so the name starts with "
            "'dev/', such as dev/recall@4, dev/ndcg@10 or dev/exact_match"
        )


def _check_reranker(config: schema.RunConfig, trainer_class: Any) -> None:
    """Raise `RequestError` for a frozen reranker where one is trained."""
    if config.retriever.reranker is not None and "reranker" in roles.trained_roles(trainer_class):
        raise RequestError(
            "retriever.reranker is set, but this algorithm trains the retriever's reranker: choose it with model=…"
        )


def _check_retriever(config: schema.RunConfig, trainer_class: Any, training: bool) -> None:
    """Raise `RequestError` where retriever and trained models do not go together; an own `make_retriever` decides."""
    if (
        trainer_class.make_retriever.__func__
        is not imported("rag_experiments.algorithms.base:AlgorithmTrainer").make_retriever.__func__
    ):
        return
    retriever, kind = config.retriever, RETRIEVER_KINDS[config.retriever.type]
    trained = roles.trained_roles(trainer_class)
    if not trained & {entry.encoder_role for entry in RETRIEVER_KINDS.values()}:
        if kind.needs_encoder and retriever.encoder is None:
            raise RequestError(
                "the retriever has no encoder: add model@retriever.encoder=minilm, or use retriever=bm25"
            )
        return
    if retriever.encoder is not None:
        raise RequestError(
            "retriever.encoder is set, but this algorithm trains the retriever's encoder: choose it with model=…"
        )
    if not training and not kind.needs_encoder:
        return
    if not kind.needs_encoder or kind.encoder_role not in trained:
        raise RequestError(
            f"retriever={kind.name} has no encoder, and this algorithm trains one: use retriever=faiss_flat, "
            "faiss_ivf, faiss_hnsw or hybrid"
        )
