"""A composed configuration → a checked `RunConfig`. Imports no torch.

Two steps, so that what needs no torch is refused without it: `check_common` checks every group but
the algorithm; `check_algorithm` imports the one module that the algorithm's YAML names and checks its
keys and what it needs of the others. Both end in a `RequestError` that names the key.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import types
import typing
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from rag_experiments import schema
from rag_experiments.data.formats import FORMATS, config_class
from rag_experiments.errors import RequestError, did_you_mean
from rag_experiments.models import source
from rag_experiments.trainer_arguments import check_trainer_arguments

GROUPS = ("model", "algorithm", "data", "retriever", "trainer", "evaluation", "tracking", "sweep", "paths")
"""Top-level nodes of a configuration."""
OPTION_GROUPS = (
    "algorithm",
    "model",
    "data",
    "retriever",
    "trainer",
    "evaluation",
    "tracking",
    "experiment",
    "sweep",
)
"""Folders of `conf/`, of which an option is chosen with `group=option`; `--help` shows them in this order."""
MODEL_CLASSES = {
    "encoder": schema.EncoderConfig,
    "decoder": schema.ReaderConfig,
    "encoder_decoder": schema.ReaderConfig,
}


def conf_dir() -> Path:
    """The configuration tree: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def register() -> None:
    """Let any key of a group through Hydra without `+`: ours are checked here, with better messages.

    Hydra's struct flag stays on at the top, so a misspelt group or top-level key is still refused.
    """

    def open_node() -> DictConfig:
        return DictConfig({}, flags={"struct": False})

    ConfigStore.instance().store(name="open_groups", node=DictConfig({group: open_node() for group in GROUPS}))


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
    _refuse_keys_of_other_kinds(plain["model"])
    parts = {
        "model": _checked(_model_class(plain["model"], "model"), plain["model"], "model"),
        "data": _checked(config_class(data_format), plain["data"], "data"),
        "retriever": _checked(schema.RetrieverConfig, plain["retriever"], "retriever"),
        "trainer": check_trainer_arguments(plain["trainer"]),
        "evaluation": _checked(schema.EvaluationConfig, plain["evaluation"], "evaluation"),
        "tracking": _checked(schema.TrackingConfig, plain["tracking"], "tracking"),
        "sweep": _checked(schema.SweepConfig, plain["sweep"], "sweep"),
        "paths": _checked(schema.PathsConfig, plain["paths"], "paths"),
    }
    top = {key: plain[key] for key in ("seed", "name", "resume", "plan", "early_stopping")}
    config = _checked(schema.RunConfig, {**plain, **top}, "", already=parts)
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
    config.algorithm = _checked(trainer_class.Config, given, "algorithm")
    trains = trainer_class.trains if isinstance(trainer_class.trains, tuple) else (trainer_class.trains,)
    if config.model.kind not in trains:
        fitting = [name for name, kind in model_kinds().items() if kind in trains]
        raise RequestError(
            f"algorithm={given.get('name')} trains {_article(' or '.join(trains))}, but model.path="
            f"{config.model.path} is {_article(config.model.kind)}: choose model={'|'.join(fitting)}, "
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


def model_kinds() -> dict[str, str]:
    """Preset name to the kind of model it is, read from `conf/model/` without composing."""
    kinds = {}
    for file in sorted((conf_dir() / "model").glob("*.yaml")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("kind:"):
                kinds[file.stem] = line.split(":", 1)[1].split("#")[0].strip()
    return kinds


def _resolved(composed: DictConfig) -> dict[str, Any]:
    composed = without_hydra(composed)
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise RequestError(f"{missing[0]} has no value: set {missing[0]}=…")
    try:
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


def choices(group: str, folders: bool = False) -> list[str]:
    """The options of a config group that ship with the package, or the groups below it."""
    if folders:
        return sorted(entry.name for entry in (conf_dir() / group).glob("*/"))
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


def _settle_kinds(holder: dict[str, Any]) -> None:
    """`kind: auto` (model=run) becomes what the run's model is."""
    for value in holder.values():
        if isinstance(value, dict) and value.get("kind") == "auto":
            value["kind"] = source.kind_of(value["path"])


def _model_class(node: dict[str, Any], key: str) -> type:
    kind = node.get("kind")
    if kind not in MODEL_CLASSES:
        raise RequestError(f"{key}.kind={kind!r} is not a kind of model{did_you_mean(str(kind), MODEL_CLASSES)}")
    return MODEL_CLASSES[kind]


def _field_names(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def _refuse_keys_of_other_kinds(node: dict[str, Any]) -> None:
    """Raise `RequestError` where the model has a key that only models of another kind have."""
    own = _model_class(node, "model")
    for name in node:
        owners = [kind for kind, cls in MODEL_CLASSES.items() if name in _field_names(cls)]
        if owners and name not in _field_names(own):
            fitting = [preset for preset, kind in model_kinds().items() if kind in owners]
            raise RequestError(
                f"model.{name} is a key of {_article(' or '.join(owners))}, but model.path={node.get('path')} is "
                f"{_article(node['kind'])}: choose model={'|'.join(fitting)}"
            )


def _checked(cls: type, values: dict[str, Any], key: str, already: dict[str, Any] | None = None) -> Any:
    """`values` as an instance of dataclass `cls`; `already` holds fields that are checked."""
    already = already or {}
    refuse_unknown(cls, {name: value for name, value in values.items() if name not in already}, key)
    values = {**values, **already}
    try:
        return TypeAdapter(cls, config=None).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in _location(first["loc"], values))
        full = ".".join(part for part in (key, where) if part)
        if first["type"] == "missing":
            raise RequestError(f"{full} has no value: set {full}=…") from error
        reason = first["msg"].removeprefix("Value error, ")
        shown = "" if first["type"] == "value_error" and not where else f"={first['input']!r}"
        raise RequestError(f"{full}{shown}: {reason[0].lower()}{reason[1:]}") from error


def check_values(cls: type, values: Any, key: str) -> Any:
    """`values` as an instance of dataclass `cls`, for keys outside the run's own (those of a command).

    Raises:
        RequestError: an unknown key, a wrong type, a value out of range, named under `key`.
    """
    return _checked(cls, values, key)


def _location(loc: tuple[Any, ...], values: Any) -> list[Any]:
    """The keys of a pydantic location without the names of union members."""
    kept: list[Any] = []
    for part in loc:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            values = values[part]
        elif kept:
            continue
        kept.append(part)
    return kept


def refuse_unknown(cls: type, values: Any, key: str) -> None:
    """Raise `RequestError` for the first key, at any depth, that dataclass `cls` has no field for."""
    if not (dataclasses.is_dataclass(cls) and isinstance(values, dict)):
        return
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for name, value in values.items():
        full = f"{key}.{name}" if key else str(name)
        if name not in names:
            raise RequestError(f"{full} is an unknown key{did_you_mean(str(name), names)}")
        inner: list[Any] = [member for member in _members(hints[name]) if dataclasses.is_dataclass(member)]
        if len(inner) == 1:
            _refuse_other_kind(inner[0], value, full)
            refuse_unknown(inner[0], value, full)


def _refuse_other_kind(cls: type, value: Any, key: str) -> None:
    """Raise `RequestError` for a second model of a kind that cannot stand at `key`, before its keys look unknown."""
    if not (issubclass(cls, schema.ModelConfig) and isinstance(value, dict) and value.get("kind") in MODEL_CLASSES):
        return
    if MODEL_CLASSES[value["kind"]] is not cls:
        kinds = [kind for kind, known in MODEL_CLASSES.items() if known is cls]
        fitting = [name for name, kind in model_kinds().items() if kind in kinds]
        raise RequestError(
            f"{key} must be {_article(' or '.join(kinds))}, but {value.get('path')} is {_article(value['kind'])}: "
            f"choose model@{key}={'|'.join(fitting)}"
        )


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


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


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def check_writable(directory: Path, key: str) -> None:
    """Raise `RequestError` unless `directory` exists or can be made, and leave nothing behind."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    probe = existing / f".write_test_{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise RequestError(f"{key}={directory} cannot be written: {error.strerror} ({existing})") from error


def add_working_directory() -> None:
    """Console scripts see the modules of the working directory, as `python -m` does."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
