"""Choose the config keys and metrics that become columns."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rag_experiments.comparison.records.metric_fields import bare, split_metric
from rag_experiments.comparison.records.run_records import RunRecord

NOT_COMPARED = ("name", "paths", "tracking", "plan", "resume", "sweep", "hydra")
"""Top-level keys that do not change a figure. `seed` is handled separately: the seeds of one config are a group."""
_SELECTORS = {
    "algorithm.": "algorithm.name",
    "model.fid.": "algorithm.name",
    "model.": "model.path",
    "retriever.": "retriever.type",
    "data.": "data.format",
}
_ROLE_PATH = re.compile(r"((?:algorithm|retriever)\.\w+)\.path")
BOOKKEEPING = (
    "eval_",
    "save_",
    "logging_",
    "dataloader_",
    "load_best",
    "greater_is",
    "metric_for_best",
    "disable_tqdm",
)
"""`trainer.*` keys that the algorithm's preset sets and that decide when to evaluate or save, not how to train."""
ANSWERS = ("exact_match", "f1", "rouge_l", "answer_in_passages")
RANKINGS = ("recall@1", "recall@4", "recall@20", "mrr@10", "ndcg@10")
PRIMARY = ("f1", "recall@4", "exact_match", "ndcg@10", "recall@1", "mrr@10")
MAX_SHOWN = 7
"""Maximum number of config columns in a terminal. A note names the others; CSV, JSON and HTML contain them."""


@dataclass(frozen=True)
class ConfigColumns:
    """`shown` keys differ between runs. `hidden` keys differ only together with another key, their selector."""

    shown: tuple[str, ...]
    hidden: dict[str, str]


def config_columns(runs: Sequence[RunRecord]) -> ConfigColumns:
    """The keys that differ between the runs, the most informative first."""
    values: dict[str, list[str]] = {}
    keys = dict.fromkeys(key for run in runs for key in run.flat)
    for key in keys:
        if key.split(".")[0] in (*NOT_COMPARED, "seed") or key.endswith("_target_"):
            continue
        column = [_frozen(run.flat.get(key)) for run in runs]
        if len(set(column)) > 1:
            values[key] = column
    hidden = {key: selector for key in values if (selector := _follows(key, values))}
    order = {"algorithm": 0, "model": 1, "retriever": 2, "data": 3}
    shown = [key for key in values if key not in hidden]
    chosen = selectors(values).values()
    shown.sort(key=lambda key: (key not in chosen, order.get(key.split(".")[0], 4)))
    return ConfigColumns(tuple(shown), hidden)


def selectors(keys: Iterable[str]) -> dict[str, str]:
    """For each prefix, the key that usually decides all keys below it (they are then hidden); longest prefix first."""
    paths = {f"{holder}.": f"{holder}.path" for holder in role_places(keys)}
    return {**paths, **_SELECTORS}


def role_places(keys: Iterable[str]) -> list[str]:
    """The keys that hold further models: `algorithm.teacher`, `retriever.encoder`."""
    return sorted(found.group(1) for key in keys if (found := _ROLE_PATH.fullmatch(key)))


def _follows(key: str, values: dict[str, list[str]]) -> str | None:
    for prefix, selector in selectors(values).items():
        if key.startswith(prefix) and key != selector and selector in values:
            return selector if _determined(values[key], values[selector]) else None
    name = key.removeprefix("trainer.")
    if name != key and name.startswith(BOOKKEEPING) and "algorithm.name" in values:
        return "algorithm.name" if _determined(values[key], values["algorithm.name"]) else None
    return None


def _determined(values: Iterable[str], by: Iterable[str]) -> bool:
    values_by_selector: dict[str, set[str]] = defaultdict(set)
    for value, selector in zip(values, by, strict=True):
        values_by_selector[selector].add(value)
    return all(len(kinds) == 1 for kinds in values_by_selector.values())


def _frozen(value: Any) -> str:
    kind = type(value)
    if kind is str or kind is float or kind is int:  # most values, and ten times faster than JSON
        return repr(value)
    return json.dumps(value, sort_keys=True, default=str)


def group_key(run: RunRecord) -> str:
    """A key that is equal for runs that differ only in seed, name and output folder."""
    compared = {k: v for k, v in run.flat.items() if k.split(".")[0] not in (*NOT_COMPARED, "seed")}
    return _frozen(compared) if compared else f"alone:{run.path}"


def default_metric(runs: Sequence[RunRecord]) -> str | None:
    """The metric that most completed runs have, on test if possible; None if no run is completed."""
    done = [run for run in runs if run.metrics]
    best: tuple[int, str] | None = None
    for stage in ("test", "dev"):
        for name in PRIMARY:
            metric = f"{stage}/{name}"
            count = sum(metric in run.metrics for run in done)
            if count and (best is None or count > best[0]):
                best = (count, metric)
    if best is None and done:
        names = sorted({name for run in done for name in run.metrics})
        return next((name for name in names if split_metric(name)[0]), names[0] if names else None)
    return best[1] if best else None


def default_metrics(runs: Sequence[RunRecord], primary: str) -> list[str]:
    """The primary metric, then related metrics on the same stage, then the seconds of preparing and of training."""
    stage = split_metric(primary)[0]
    have = {name for run in runs for name in run.metrics}
    answers = [name for name in ANSWERS if f"{stage}/{name}" in have]
    rankings = RANKINGS[:2] if answers else RANKINGS
    fellows = [f"{stage}/{name}" for name in (*answers, *rankings) if f"{stage}/{name}" in have]
    extra = [name for name in ("seconds/prepare", "seconds/train") if name in have and name != primary]
    return [primary, *(name for name in fellows if name != primary), *extra]


def metric_label(metric: str, primary_stage: str) -> str:
    """The metric's name without the stage of the whole table."""
    stage, name = split_metric(metric)
    return bare(metric) if stage == primary_stage else name if not stage else f"{stage} {name}"
