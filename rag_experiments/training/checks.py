"""A composed configuration → a checked `RunConfig`. Imports no torch.

Two steps, so that what needs no torch is refused without it: `check_common` checks every group but
the algorithm; `check_algorithm` imports the one module that the algorithm's YAML names and checks its
keys and what it needs of the others. Both end in a `RequestError` that names the key.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rag_experiments.config import schema
from rag_experiments.config.groups import GROUPS, choices, model_kinds
from rag_experiments.config.trainer_keys import check_trainer_arguments
from rag_experiments.config.validation import check_values, model_class, refuse_keys_of_other_kinds
from rag_experiments.core.errors import RequestError, did_you_mean, with_article
from rag_experiments.data.data_formats import FORMATS, config_class
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
    models = [plain, plain["retriever"], plain["algorithm"]]
    for holder in models:
        _settle_kinds(holder)
    data_format = plain["data"].get("format")
    if data_format not in FORMATS:
        raise RequestError(f"data.format={data_format!r} is unknown{did_you_mean(str(data_format), FORMATS)}")
    refuse_keys_of_other_kinds(plain["model"])
    parts = {
        "model": check_values(model_class(plain["model"], "model"), plain["model"], "model"),
        "data": check_values(config_class(data_format), plain["data"], "data"),
        "retriever": check_values(schema.RetrieverConfig, plain["retriever"], "retriever"),
        "trainer": check_trainer_arguments(plain["trainer"]),
        "evaluation": check_values(schema.EvaluationConfig, plain["evaluation"], "evaluation"),
        "tracking": check_values(schema.TrackingConfig, plain["tracking"], "tracking"),
        "sweep": check_values(schema.SweepConfig, plain["sweep"], "sweep"),
        "paths": check_values(schema.PathsConfig, plain["paths"], "paths"),
    }
    top = {key: plain[key] for key in ("seed", "name", "resume", "plan", "early_stopping")}
    config = check_values(schema.RunConfig, {**plain, **top}, "", already=parts)
    _check_metric_name(config)
    # A default that is typed out and one that is left out are one configuration: one hash, no column apart.
    filled = {name: dataclasses.asdict(part) for name, part in parts.items() if not isinstance(part, dict)}
    return config, {**plain, **filled}


def check_algorithm(config: schema.RunConfig) -> Any:
    """Replace `config.algorithm` by its checked dataclass and return the trainer class.

    Raises:
        RequestError: no such class, a wrong key or value, a model of the wrong kind, something needed and missing.
    """
    given = dict(config.algorithm)
    trainer_class = import_algorithm(given.pop("_target_", None))
    config.algorithm = check_values(trainer_class.Config, given, "algorithm")
    trains = trainer_class.trains if isinstance(trainer_class.trains, tuple) else (trainer_class.trains,)
    if config.model.kind not in trains:
        fitting = [name for name, kind in model_kinds().items() if kind in trains]
        raise RequestError(
            f"algorithm={given.get('name')} trains {with_article(' or '.join(trains))}, but model.path="
            f"{config.model.path} is {with_article(config.model.kind)}: choose model={'|'.join(fitting)}, "
            "or model=run with the path of such a run"
        )
    _check_retriever(config, trainer_class)
    check = getattr(trainer_class, "check_config", None)
    if check is not None:
        check(config)
    return trainer_class


def import_algorithm(target: str | None) -> Any:
    """The trainer class that an algorithm's YAML names as `_target_`.

    Raises:
        RequestError: no name, no such module or class, or a class that is no `AlgorithmTrainer`.
    """
    if not target or "." not in target:
        raise RequestError(
            f"algorithm._target_={target!r} must name a class, such as rag_experiments.algorithms.ctl.CTLTrainer"
        )
    module_name, class_name = target.rsplit(".", 1)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise RequestError(
            f"algorithm._target_={target}: there is no module {error.name} on the Python path"
        ) from error
    found = getattr(module, class_name, None)
    base = importlib.import_module("rag_experiments.algorithms.base").AlgorithmTrainer
    if not (isinstance(found, type) and issubclass(found, base)):
        raise RequestError(
            f"algorithm._target_={target}: {class_name} in {module_name} is no subclass of "
            "rag_experiments.algorithms.base.AlgorithmTrainer"
        )
    return found


def _resolved(composed: DictConfig) -> dict[str, Any]:
    composed = without_hydra(composed)
    try:
        missing = sorted(OmegaConf.missing_keys(composed))  # looks behind ${…} too
        if missing:
            raise RequestError(f"{missing[0]} has no value: set {missing[0]}=…")
        plain: Any = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise RequestError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from error
    for group in GROUPS:
        value = plain.get(group)
        if not isinstance(value, dict):
            options = choices(group)
            right = f"choose one of {', '.join(options)}" if options else f"set its keys, as {group}.<key>=…"
            raise RequestError(f"{group}={value!r} is no configuration: {right}")
    return plain


def _settle_kinds(holder: dict[str, Any]) -> None:
    """`kind: auto` (model=run) becomes what the run's model is."""
    for value in holder.values():
        if isinstance(value, dict) and value.get("kind") == "auto":
            value["kind"] = sources.kind_of(value["path"])


def _check_metric_name(config: schema.RunConfig) -> None:
    metric = config.trainer.get("metric_for_best_model")
    if metric is not None and not metric.startswith("dev/"):
        raise RequestError(
            f"trainer.metric_for_best_model={metric!r}: checkpoints are chosen on dev, so the name starts with "
            "'dev/', such as dev/recall@4, dev/ndcg@10 or dev/exact_match"
        )


def _check_retriever(config: schema.RunConfig, trainer_class: type) -> None:
    retriever = config.retriever
    if config.model.kind == "encoder":
        if retriever.encoder is not None:
            raise RequestError(
                "retriever.encoder is set, but this algorithm trains the retriever's encoder: choose it with model=…"
            )
        if retriever.type == "bm25":
            raise RequestError(
                "retriever=bm25 has no encoder, and this algorithm trains one: use retriever=faiss_flat, faiss_ivf, "
                "faiss_hnsw or hybrid"
            )
    elif retriever.type != "bm25" and retriever.encoder is None:
        raise RequestError("the retriever has no encoder: add model@retriever.encoder=minilm, or use retriever=bm25")
