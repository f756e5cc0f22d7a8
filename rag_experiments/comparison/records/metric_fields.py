"""Names for the values of a run: config keys, group choices, metrics, and properties of the run itself.

`algorithm`, `model`, `learning_rate`, `recall@4` are short for `algorithm.name`, the model's group choice,
`trainer.learning_rate`, `test/recall@4`. Users type short names; files hold the full ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.errors import RequestError, did_you_mean

OWN = ("name", "path", "state", "seed")
GROUPS = ("algorithm", "model", "data", "retriever", "trainer", "evaluation", "experiment")
STAGES = ("test", "dev", "zero_shot/test", "zero_shot/dev")
LOWER_IS_BETTER = ("seconds", "loss", "memory", "truncat", "dropped", "latency", "perplexity")
_STAGE = re.compile(r"((?:zero_shot/|baseline/[^/]+/)?(?:dev|test))/")
_IDENTITY = {"algorithm": "name", "model": "path", "retriever": "type", "data": "format"}
"""The key that identifies a group's option if Hydra's choices were not recorded."""


class Fields:
    """Resolves short names for a set of runs."""

    def __init__(self, runs: Sequence[RunRecord]):
        self.keys = {key for run in runs for key in run.flat}
        self.metrics = {name for run in runs for name in run.metrics}
        self.groups = {group for group in GROUPS for run in runs if group in run.choices or group in run.config}

    def resolve(self, name: str) -> str:
        """The full name: a config key, a metric, one of `OWN`, or a group.

        Raises:
            RequestError: no run has the name, or it is short for several names.
        """
        if name in OWN or name in self.groups or name in self.keys or name in self.metrics:
            return name
        for stage in STAGES:
            if f"{stage}/{name}" in self.metrics:
                return f"{stage}/{name}"
        ends = sorted(key for key in self.keys if key.endswith(f".{name}"))
        if len(ends) == 1:
            return ends[0]
        if ends:
            raise RequestError(f"{name} is short for several keys: {', '.join(ends)}")
        names = {*OWN, *self.groups, *self.keys, *self.metrics}
        short = {key.rpartition(".")[2] for key in self.keys} | {m.rpartition("/")[2] for m in self.metrics}
        raise RequestError(f"no run has {name}{did_you_mean(name, names | short)}")

    def metric(self, name: str) -> str:
        """The full name of a metric.

        Raises:
            RequestError: no completed run has the metric.
        """
        if name in self.metrics:
            return name
        for stage in STAGES:
            if f"{stage}/{name}" in self.metrics:
                return f"{stage}/{name}"
        if not self.metrics:
            raise RequestError(f"--metric {name}: none of these runs has finished, so there are no final figures yet")
        short = {bare(metric) for metric in self.metrics if not metric.endswith(("_ci_low", "_ci_high"))}
        raise RequestError(f"--metric {name}: no run has it{did_you_mean(name, short | self.metrics)}")


def value_of(run: RunRecord, name: str) -> Any:
    """The value of the run under a full name; None if it has none."""
    if name in OWN:
        return str(run.path) if name == "path" else getattr(run, name)
    if name in run.flat:
        return run.flat[name]
    if name in GROUPS:
        return group_value(run, name)
    return run.metrics.get(name)


def group_value(run: RunRecord, group: str) -> Any:
    """The group's option as it was typed, or else the value that identifies it in the config."""
    if group == "algorithm":
        return run.algorithm
    identity = run.flat.get(f"{group}.{_IDENTITY.get(group, 'name')}")
    return run.choices.get(group) or (short_value(identity) if identity is not None else None)


def split_metric(name: str) -> tuple[str, str]:
    """`zero_shot/test/recall@4` → (`zero_shot/test`, `recall@4`); a metric without a stage has the stage ``."""
    stage_match = _STAGE.match(name)
    return (stage_match[1], name[stage_match.end() :]) if stage_match else ("", name)


def bare(metric: str) -> str:
    """The metric's name without its stage."""
    return split_metric(metric)[1]


def higher_is_better(metric: str) -> bool:
    """False for costs and for counts of problems."""
    if "tokens_per_second" in metric:
        return True
    return not any(word in metric for word in LOWER_IS_BETTER)


def short_value(value: Any) -> str:
    """A value as a table shows it: the last part of paths and sources, short numbers, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(short_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {short_value(item)}" for key, item in value.items()) + "}"
    text = str(value)
    if "://" in text or text.startswith(("/", "./", "~")):
        return text.rstrip("/").removesuffix("/model").rpartition("/")[2]  # every run's model is called `model`
    return text


def short_labels(keys: Iterable[str]) -> dict[str, str]:
    """The shortest ending of each key that no other key has; `x.name` and `x.path` become `x`."""
    keys = list(keys)

    def candidates(key: str) -> list[str]:
        parts = key.split(".")
        if len(parts) > 1 and parts[-1] in ("name", "path", "type", "format"):
            parts = parts[:-1]
        return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)] + [key]

    labels: dict[str, str] = {}
    for key in keys:
        others = {option for other in keys if other != key for option in candidates(other)}
        labels[key] = next((option for option in candidates(key) if option not in others), key)
    return labels
