"""Which runs a page shows, which settings differ between them, and which figures they have."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from rag_experiments.comparison.analysis.labels import telling_keys
from rag_experiments.comparison.analysis.table_columns import config_columns
from rag_experiments.comparison.records.metric_fields import split_metric
from rag_experiments.dashboard.shared.address import View
from rag_experiments.dashboard.shared.filter import parse_filter
from rag_experiments.dashboard.shared.watch import Run

FIRST_METRICS = (
    "test/recall@1",
    "test/recall@4",
    "test/exact_match",
    "test/f1",
    "test/ndcg@10",
    "test/mrr@10",
    "dev/recall@1",
    "dev/recall@4",
    "dev/exact_match",
    "dev/f1",
    "train/loss",
)
HIDDEN_METRICS = ("_ci_low", "_ci_high", "/questions")


@dataclass
class Scope:
    """The runs of a view, by filter and selection."""

    everything: list[Run]
    """All runs."""
    matching: list[Run]
    """The runs that pass the filter."""
    selected: list[Run]
    """The ticked runs, with or without passing the filter, in the order in which they were ticked."""
    problem: str | None = None
    """The error in the filter, if it could not be parsed."""

    @property
    def shown(self) -> list[Run]:
        """The runs on all pages except the table: the ticked ones, or all that pass the filter."""
        return self.selected or self.matching


def scope_of(runs: dict[str, Run], view: View) -> Scope:
    """Apply the view's filter and selection."""
    everything = list(runs.values())
    keep, problem = parse_filter(view.one("q"), everything)
    states, algorithms = view.many("state"), view.many("algorithm")
    matching = [
        run
        for run in everything
        if (not states or run.state in states) and (not algorithms or run.algorithm in algorithms) and keep(run)
    ]
    selected = [runs[key] for key in view.many("sel") if key in runs]
    return Scope(everything, matching, selected, problem)


def plain(value: Any) -> Any:
    """A value that can be sorted; lists and mappings become text."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def differing(runs: Sequence[Run], seed: bool = False) -> list[str]:
    """The configuration keys that differ between the runs, chosen as in `rag-compare`'s table."""
    keys = list(_differing(runs))
    if seed and len({run.seed for run in runs}) > 1:
        keys.append("seed")
    return keys


def telling(runs: Sequence[Run], most: int) -> list[str]:
    """The first `most` settings that distinguish the runs, and the seed if there is room for it."""
    keys = list(_remembered(telling_keys, runs))[:most]
    return [*keys, "seed"] if len(keys) < most and len({run.seed for run in runs}) > 1 else keys


Keys = Callable[[Sequence[Run]], Sequence[str]]
_results: OrderedDict[tuple[object, ...], tuple[Sequence[Run], Sequence[str]]] = OrderedDict()
_lock = Lock()
KNOWN = 16


def _differing(runs: Sequence[Run]) -> Sequence[str]:
    return _remembered(_columns, runs)


def _columns(runs: Sequence[Run]) -> Sequence[str]:
    return config_columns([run for run in runs if run.config]).shown


def _remembered(find: Keys, runs: Sequence[Run]) -> Sequence[str]:
    """The result of `find` for the runs, kept because `find` looks at every setting and pages share their runs.

    A run that changed is a new object. The runs are kept together with the result, so that no new object can get the
    identity of a deleted one.
    """
    identity = (find, *map(id, runs))
    with _lock:
        if identity in _results:
            return _results[identity][1]
    keys = find(runs)
    with _lock:
        _results[identity] = (list(runs), keys)
        while len(_results) > KNOWN:
            _results.popitem(last=False)
    return keys


def metric_names(runs: Iterable[Run]) -> list[str]:
    """Names of the runs' figures: the most usual ones first, then by the number of runs that have them."""
    counted = Counter(name for run in runs for name in run.figures if not name.endswith(HIDDEN_METRICS))

    def order(name: str) -> tuple[int, int, str]:
        return (FIRST_METRICS.index(name) if name in FIRST_METRICS else len(FIRST_METRICS), -counted[name], name)

    return sorted(counted, key=order)


def choosing_metric(name: str, runs: Sequence[Run]) -> str:
    """The dev figure for a test figure, if every run with the test figure also has the dev figure.

    If settings are chosen by the test figure, no independent figure remains to judge the choice.
    """
    stage, bare = split_metric(name)
    dev_metric = f"dev/{bare}"
    having = [run for run in runs if name in run.figures]
    return dev_metric if stage == "test" and having and all(dev_metric in run.figures for run in having) else name


def comparable(runs: Sequence[Run]) -> str | None:
    """One sentence if the runs' figures cannot be compared because data or corpus differ; else None."""
    for field, words in (("data_hash", "different data"), ("corpus_hash", "different corpora")):
        hashes = {run.status.get(field) for run in runs if run.status.get(field)}
        if len(hashes) > 1:
            return f"These runs were measured on {words} ({len(hashes)} of them): their figures do not compare."
    return None
