"""Questions: two runs side by side, question by question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rag_experiments.comparison.records.history import is_number
from rag_experiments.comparison.records.metric_fields import higher_is_better
from rag_experiments.dashboard.shared.address import Value, View
from rag_experiments.dashboard.shared.corpus import passages_of
from rag_experiments.dashboard.shared.predictions import Entry, PredictionIndex, index_of, stages_of
from rag_experiments.dashboard.shared.scope import Scope, scope_of
from rag_experiments.dashboard.shared.watch import Run, Watch
from rag_experiments.dashboard.shared.wording import mark
from rag_experiments.data.records import Passage
from rag_experiments.data.shown_ids import own_ids

DEFAULTS: dict[str, Value] = {
    "a": "",
    "b": "",
    "stage": "",
    "stage_b": "",
    "metric": "",
    "show": "all",
    "find": "",
    "order": "file",
    "depth": "5",
    "page": "1",
}
SHOW = {
    "all": "all questions",
    "better": "B better",
    "worse": "A better",
    "same": "no difference",
    "both_miss": "both at zero",
}
ORDER = {"file": "as in the file", "gain": "B's gain first", "loss": "B's loss first"}
DEPTHS = ("3", "5", "10", "20")
ROWS, OFFERED = 10, 300


@dataclass
class Hit:
    """One retrieved passage."""

    rank: int
    id: str
    score: float | None
    gold: bool
    passage: Passage | None
    shown_id: str
    """The passage's id as people see it."""
    move: str = ""
    """Change of rank from the other run: `↑3`, `↓2`, `=` or `new`; empty if there is no other run."""


@dataclass
class Side:
    """The result of one run for a question."""

    metrics: dict[str, float] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    answer: list[tuple[str, bool]] | None = None
    """The answer in pieces, each with whether it occurs in a reference."""
    gold_rank: int | None = None
    deeper: int = 0
    """Number of retrieved passages that are not listed."""


@dataclass
class Pair:
    """A question with the results of both sides."""

    entry: Entry
    a: float | None
    b: float | None
    references: list[list[tuple[str, bool]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Gold passages that neither side lists."""
    sides: list[Side] = field(default_factory=list)

    @property
    def change(self) -> float | None:
        return None if self.a is None or self.b is None else self.b - self.a


def context(watch: Watch, view: View) -> dict[str, Any]:
    """The values that `questions.html` shows."""
    scope = scope_of(watch.look(), view)
    offered = [run for run in _offered(scope) if stages_of(run)][:OFFERED]
    a = watch.runs.get(view.one("a")) or next(iter(offered), None)
    if a is None:
        return {"scope": scope, "a": None}
    b = watch.runs.get(view.one("b")) if view.one("b") != "none" else None
    if b is None and not view.one("b"):
        b = _partner(a, offered)
    stages = stages_of(a)
    stage = view.one("stage") if view.one("stage") in stages else next(iter(stages), "")
    other_stage = stage
    if b is None and view.one("b") != "none" and f"zero_shot/{stage}" in stages:
        b, other_stage = a, f"zero_shot/{stage}"  # a single run is compared with its own zero shot
    stage_b = view.one("stage_b") or other_stage
    view.forget("stage", stages[0] if stages else "")
    view.forget("stage_b", other_stage)
    left, right = index_of(a, stage), index_of(b, stage_b) if b else None
    pairs, metric, metrics = paired(left, right, view.one("metric"))
    view.forget("metric", default_figure(metrics))
    selection = _searched(_filtered(pairs, view.one("show"), metric), view.one("find"))
    selection = _ordered(selection, view.one("order"), metric)
    pages = max(1, math.ceil(len(selection) / ROWS))
    page = int(view.number("page", 1, pages))
    rows = selection[(page - 1) * ROWS : page * ROWS]
    depth = int(view.number("depth", 1, 100))
    texts = fill(rows, [(a, left), (b, right)], watch, depth)
    return {
        "scope": scope,
        "offered": list(dict.fromkeys([a.key, *([b.key] if b else []), *(run.key for run in offered)])),
        "labels": {run.key: run.name + ("" if run.completed else f" ({run.state})") for run in watch.runs.values()},
        "a": a,
        "b": b,
        "stages": stages,
        "stages_b": stages_of(b) if b else [],
        "stage": stage,
        "stage_b": stage_b,
        "metrics": metrics,
        "metric": metric,
        "counts": counts(pairs, metric),
        "pairs": rows,
        "total": len(selection),
        "first": (page - 1) * ROWS + 1,
        "page": page,
        "pages": pages,
        "texts": texts,
        "broken": (left.broken if left else 0) + (right.broken if right else 0),
        "unlike": _unlike(a, b, stage, stage_b, left, right),
        "depth": str(depth),
        "DEPTHS": DEPTHS,
        "SHOW": SHOW,
        "ORDER": ORDER,
    }


def _offered(scope: Scope) -> list[Run]:
    """The runs to choose from: ticked ones first, then matching ones; completed before others, newest first."""
    rest = sorted(scope.matching, key=lambda run: (run.completed, str(run.status.get("started"))), reverse=True)
    return list({run.key: run for run in [*scope.selected, *rest]}.values())


def _partner(a: Run, offered: Sequence[Run]) -> Run | None:
    """The run to compare with `a`: one that was asked the same questions; None if there is none."""
    same = [run for run in offered if run is not a and run.comparable_key("test") == a.comparable_key("test")]
    return next(iter(same), None)


def _unlike(
    a: Run, b: Run | None, stage: str, stage_b: str, left: PredictionIndex | None, right: PredictionIndex | None
) -> str | None:
    """One sentence if the two sides were not asked the same questions over the same passages; else None."""
    if b is None or left is None or right is None:
        return None
    if a.status.get("corpus_hash") != b.status.get("corpus_hash"):
        return "These runs searched different corpora: ranks and figures do not compare."
    shared = len(left.entries.keys() & right.entries.keys())
    if shared < max(len(left.entries), len(right.entries)):
        return f"Only {shared} questions are in both: {len(left.entries)} in A, {len(right.entries)} in B."
    one, other = a.stages.get(stage), b.stages.get(stage_b)
    if one and other and one.digest != other.digest:
        return "The questions have the same ids, but their texts, gold passages or references differ."
    return None


def paired(
    left: PredictionIndex | None, right: PredictionIndex | None, preferred_metric: str
) -> tuple[list[Pair], str, list[str]]:
    """The questions of both sides (of A if there is no B), the chosen metric, and all available metrics."""
    if left is None:
        return [], "", []
    names = list(dict.fromkeys(name for entry in left.entries.values() for name in entry.metrics))
    metric = preferred_metric if preferred_metric in names else default_figure(names)
    pairs = []
    for id_, entry in left.entries.items():
        if right is not None and id_ not in right.entries:
            continue
        other = right.entries[id_].metrics.get(metric) if right else None
        pairs.append(Pair(entry, entry.metrics.get(metric), other))
    return pairs, metric, names


def default_figure(names: Sequence[str]) -> str:
    """The figure per question that is shown unless the user chooses another."""
    preferred = [name for name in ("exact_match", "f1", "recall@1") if name in names]
    return next(iter(preferred or names), "")


def _sign(pair: Pair, metric: str) -> int:
    change = pair.change or 0.0
    return 0 if change == 0 else (1 if (change > 0) == higher_is_better(metric) else -1)


def counts(pairs: Sequence[Pair], metric: str) -> dict[str, int]:
    """The number of questions that B wins, loses and ties."""
    signs = [_sign(pair, metric) for pair in pairs]
    return {
        "all": len(pairs),
        "better": signs.count(1),
        "worse": signs.count(-1),
        "same": signs.count(0),
        "both_miss": sum(pair.a == 0 and pair.b in (0, None) for pair in pairs),
    }


def _filtered(pairs: list[Pair], show: str, metric: str) -> list[Pair]:
    if show == "both_miss":
        return [pair for pair in pairs if pair.a == 0 and pair.b in (0, None)]
    sign = {"better": 1, "worse": -1, "same": 0}.get(show)
    return pairs if sign is None else [pair for pair in pairs if _sign(pair, metric) == sign]


def _searched(pairs: list[Pair], text: str) -> list[Pair]:
    words = text.lower().split()
    return [
        pair for pair in pairs if all(word in pair.entry.searched or word == pair.entry.id.lower() for word in words)
    ]


def _ordered(pairs: list[Pair], order: str, metric: str) -> list[Pair]:
    if order not in ("gain", "loss"):
        return pairs
    turn = 1 if (order == "loss") == higher_is_better(metric) else -1
    return sorted(pairs, key=lambda pair: turn * (pair.change or 0.0))


def fill(
    rows: Sequence[Pair], sides: Sequence[tuple[Run | None, PredictionIndex | None]], watch: Watch, depth: int
) -> bool:
    """Read the rows for the pairs on the page: `depth` ranks, and gold passages at deeper ranks.

    Returns whether the texts of the passages are available.
    """
    ids = [pair.entry.id for pair in rows]
    full = [index.rows(ids) if index else {} for _, index in sides]
    texts_there = False
    stores: list[dict[str, Passage]] = []
    for (run, _), row_by_id in zip(sides, full, strict=True):
        passage_ids: list[str] = []
        for row in row_by_id.values():
            passage_ids += [*own_ids(row, "retrieved_ids")[:depth], *own_ids(row, "gold_ids")]
        passages = passages_of(run, passage_ids, watch.cache) if run else None
        texts_there |= passages is not None
        stores.append(passages or {})
    for pair in rows:
        side_rows = [row_by_id.get(pair.entry.id) for row_by_id in full]
        first = side_rows[0] or {}
        pair.references = [mark(str(text), [str(first.get("answer") or "")]) for text in first.get("references") or []]
        shown = Shown(side_rows, stores)
        for mine, other, store in zip(side_rows, reversed(side_rows), stores, strict=True):
            if mine is not None:
                pair.sides.append(_side(mine, other, store, depth, shown))
        listed = {hit.id for side in pair.sides for hit in side.hits}
        pair.missing = [shown(id_) for id_ in own_ids(first, "gold_ids") if id_ not in listed]
    return texts_there


class Shown:
    """What people see in place of an id: what a side's row says, else what a corpus does, else the id.

    The rows of a run that was made before passages were shown by their place have only hashes.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any] | None], stores: Sequence[Mapping[str, Passage]]):
        self._names = {id_: passage.shown_id for store in stores for id_, passage in store.items()}
        for row in rows:
            for name in ("gold_ids", "retrieved_ids") if row else ():
                shown = row.get(name) if row else None
                if isinstance(shown, list):
                    pairs = zip(own_ids(row or {}, name), map(str, shown), strict=True)
                    self._names |= {id_: value for id_, value in pairs if id_ != value}

    def __call__(self, id_: str) -> str:
        return self._names.get(id_, id_)


def _side(
    row: Mapping[str, Any], other: Mapping[str, Any] | None, store: Mapping[str, Passage], depth: int, shown: Shown
) -> Side:
    retrieved, gold = own_ids(row, "retrieved_ids"), set(own_ids(row, "gold_ids"))
    scores = row.get("retrieved_scores")
    scores = [score if is_number(score) else None for score in scores] if isinstance(scores, list) else []
    before = {id_: rank for rank, id_ in enumerate(own_ids(other, "retrieved_ids"), 1)} if other else None
    hits = [
        Hit(
            rank,
            id_,
            scores[rank - 1] if rank <= len(scores) else None,
            id_ in gold,
            store.get(id_),
            shown(id_),
            "" if before is None else _move(rank, before.get(id_)),
        )
        for rank, id_ in enumerate(retrieved, 1)
        if rank <= depth or id_ in gold
    ]
    answer = row.get("answer")
    return Side(
        metrics={name: value for name, value in (row.get("metrics") or {}).items() if is_number(value)},
        hits=hits,
        answer=None if answer is None else mark(str(answer), [str(text) for text in row.get("references") or []]),
        gold_rank=next((rank for rank, id_ in enumerate(retrieved, 1) if id_ in gold), None),
        deeper=len(retrieved) - len(hits),
    )


def _move(rank: int, other: int | None) -> str:
    if other is None:
        return "new"
    return "=" if other == rank else (f"↑{other - rank}" if rank < other else f"↓{rank - other}")
