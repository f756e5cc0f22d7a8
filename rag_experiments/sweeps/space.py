"""Search spaces in Hydra's syntax. optuna is imported only when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)

from rag_experiments.core.errors import RequestError, did_you_mean
from rag_experiments.training.optuna_parts import optuna_module


def search_space(overrides: Sequence[Override]) -> tuple[dict[str, Any], list[str]]:
    """The Optuna distribution of each searched key, and the fixed overrides.

    `interval(a, b)` is a range of numbers, `int(interval(a, b))` a range of whole numbers; `tag(log, interval(…))` is
    searched on a logarithmic scale; `range(a, b, step)` gives whole numbers; `a,b` and `choice(a, b)` are categories.

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
        # Encoded: a text with special characters is quoted as on the job's command line.
        return distributions.CategoricalDistribution(list(override.sweep_iterator(transformer=Transformer.encode)))
    except ValueError as error:
        raise RequestError(f"{key}={override.input_line or value}: {error}") from error


def override_of(key: str, value: Any) -> str:
    """A trial's value as an override that is parsed to exactly the same value."""
    if value is None:
        return f"{key}=null"
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"


def short_value(value: Any) -> str:
    """A trial's value as part of a folder's name."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
