"""Search spaces in Hydra's own syntax, and Optuna's samplers and pruners by name. Imports optuna when used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)

from rag_experiments.errors import RequestError, did_you_mean

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


def search_space(overrides: Sequence[Override]) -> tuple[dict[str, Any], list[str]]:
    """(key → Optuna distribution, overrides that are fixed).

    `interval(a, b)` is a range of numbers, `int(interval(a, b))` of whole ones; `tag(log, interval(…))` is
    searched by its logarithm; `range(a, b, step)` is whole numbers; `a,b` and `choice(a, b)` are categories.

    Raises:
        RequestError: a value that cannot be searched.
    """
    space: dict[str, Any] = {}
    fixed: list[str] = []
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            space[key] = _distribution(key, override)
        else:
            fixed.append(override.input_line or f"{key}={override.get_value_element_as_str()}")
    return space, fixed


def _distribution(key: str, override: Override) -> Any:
    distributions = optuna_module().distributions
    value = override.value()
    tags = set(getattr(value, "tags", ()))
    unknown = tags - {"log", "int", "float"}
    if unknown:
        raise RequestError(
            f"{key}: tag {sorted(unknown)[0]!r} is not known{did_you_mean(sorted(unknown)[0], ('log', 'int'))}"
        )
    try:
        if isinstance(value, IntervalSweep):
            start, end = value.start, value.end
            assert start is not None
            assert end is not None
            whole = isinstance(start, int) and isinstance(end, int) and "float" not in tags
            if whole or "int" in tags:
                return distributions.IntDistribution(int(start), int(end), log="log" in tags)
            return distributions.FloatDistribution(float(start), float(end), log="log" in tags)
        if isinstance(value, RangeSweep) and isinstance(value.start, int) and isinstance(value.step, int):
            return distributions.IntDistribution(value.start, int(value.stop or 0) - 1, step=value.step)
        assert isinstance(value, ChoiceSweep | RangeSweep) or override.is_sweep_override()
        # Encoded: a text with special characters is quoted, as it must stand on the job's command line.
        return distributions.CategoricalDistribution(list(override.sweep_iterator(transformer=Transformer.encode)))
    except ValueError as error:
        raise RequestError(f"{key}={override.input_line or value}: {error}") from error


def override_of(key: str, value: Any) -> str:
    """A trial's value as an override that reads back exactly."""
    if value is None:
        return f"{key}=null"
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"


def short_value(value: Any) -> str:
    """A trial's value in a folder's name."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def make_sampler(name: str, options: Mapping[str, Any], seed: int | None, parallel: bool) -> Any:
    """The sampler `name` (a short name, or a class of `optuna.samplers`), seeded.

    Raises:
        RequestError: there is no such sampler, or it does not take these options.
    """
    found = _class(optuna_module().samplers, SAMPLERS, name, "sampler")
    takes = inspect.signature(found.__init__).parameters
    defaults: dict[str, Any] = {"seed": seed}
    if parallel:
        defaults["constant_liar"] = True  # trials that run are taken into account, or places would try the same
    return _made(found, {**{key: value for key, value in defaults.items() if key in takes}, **options}, "sampler")


def make_pruner(name: str, options: Mapping[str, Any]) -> Any:
    """The pruner `name` (a short name, or a class of `optuna.pruners`).

    Raises:
        RequestError: there is no such pruner, or it does not take these options.
    """
    return _made(_class(optuna_module().pruners, PRUNERS, name, "pruner"), dict(options), "pruner")


def _class(module: Any, short: Mapping[str, str], name: str, what: str) -> Any:
    full = short.get(str(name).lower(), str(name))
    if full not in module.__all__ or full.startswith("Base"):
        raise RequestError(
            f"hydra.sweeper.{what}={name} is unknown{did_you_mean(str(name), [*short, *module.__all__])}"
        )
    return getattr(module, full)


def _made(found: Any, options: Mapping[str, Any], what: str) -> Any:
    try:
        return found(**options)
    except (TypeError, ValueError) as error:
        raise RequestError(f"hydra.sweeper.{what}_options: {error}") from error
