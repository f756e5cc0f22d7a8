"""Optuna's samplers and pruners by name. Imports optuna when used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rag_experiments.core.errors import RequestError, did_you_mean

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
    "nsga2": "NSGAIISampler",
    "brute_force": "BruteForceSampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "patient": "PatientPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}


def optuna_module() -> Any:
    """The `optuna` package.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise RequestError("a search needs optuna: pip install 'rag_experiments[optuna]'") from error
    return optuna


def make_sampler(name: str, options: Mapping[str, Any], seed: int | None, parallel: bool) -> Any:
    """The sampler `name` (a short name, or a class of `optuna.samplers`), seeded.

    Raises:
        RequestError: there is no such sampler, or it does not take these options.
    """
    sampler_class = _class(optuna_module().samplers, SAMPLERS, name, "sampler")
    takes = inspect.signature(sampler_class.__init__).parameters
    defaults: dict[str, Any] = {"seed": seed}
    if parallel:
        defaults["constant_liar"] = True  # trials that run are taken into account, or places would try the same
    return _instance(
        sampler_class, {**{key: value for key, value in defaults.items() if key in takes}, **options}, "sampler"
    )


def make_pruner(name: str, options: Mapping[str, Any]) -> Any:
    """The pruner `name` (a short name, or a class of `optuna.pruners`).

    Raises:
        RequestError: there is no such pruner, or it does not take these options.
    """
    return _instance(_class(optuna_module().pruners, PRUNERS, name, "pruner"), dict(options), "pruner")


def _class(module: Any, short: Mapping[str, str], name: str, what: str) -> Any:
    full = short.get(str(name).lower(), str(name))
    if full not in module.__all__ or full.startswith("Base"):
        raise RequestError(
            f"hydra.sweeper.{what}={name} is unknown{did_you_mean(str(name), [*short, *module.__all__])}"
        )
    return getattr(module, full)


def _instance(part_class: Any, options: Mapping[str, Any], what: str) -> Any:
    try:
        return part_class(**options)
    except (TypeError, ValueError) as error:
        raise RequestError(f"hydra.sweeper.{what}_options: {error}") from error
