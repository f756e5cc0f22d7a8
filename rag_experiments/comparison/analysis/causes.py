"""Where a gain comes from: for each question, whether retriever or reader failed, and what the candidate changed.

A question is *found* if a gold passage is among the passages that the reader was given (`given_ids`; without a reader:
the first `retriever.k` retrieved). It is *right* if exact match is 1. If no answer is exactly right (long answers), an
answer with F1 ≥ 0.5 counts as right, and a note reports this. Questions with unknown gold passages are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_experiments.comparison.analysis.table import Group, RunTable
from rag_experiments.comparison.analysis.verdict import pair_groups
from rag_experiments.comparison.records.metric_fields import higher_is_better, split_metric
from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.text_table import Grid

RIGHT = "right"
IN_SPITE = "right despite a miss"
READER_MISS = "reader miss"
RETRIEVER_MISS = "retriever miss"
FOUND = "found"
CAUSES = (RIGHT, IN_SPITE, READER_MISS, RETRIEVER_MISS)
"""The causes for runs with answers. Runs without answers have only `found` and `retriever miss`."""
_TIE = 1e-9
CHANGED = 6
"""Number of questions shown in the terminal; the report shows more, side by side."""


@dataclass(frozen=True)
class Outcomes:
    """Wins, losses and ties of a candidate over questions. `questions` holds (id, difference), largest change first."""

    candidate: Group
    metric: str
    wins: int
    losses: int
    ties: int
    questions: list[tuple[str, float]]


def outcomes(baseline: Group, candidate: Group, metric: str) -> Outcomes | None:
    """Compare one metric question by question, averaged over seeds; None if there are no figures per question."""
    paired = pair_groups(baseline, candidate, metric)
    if paired is None:
        return None
    sign = 1.0 if higher_is_better(metric) else -1.0
    changes = [(key, sign * float(d)) for key, d in zip(paired.ids, paired.difference_Q, strict=True) if d == d]
    if not changes:
        return None
    wins, losses = sum(d > _TIE for _, d in changes), sum(d < -_TIE for _, d in changes)
    changes.sort(key=lambda item: (-abs(item[1]), item[0]))
    return Outcomes(candidate, metric, wins, losses, len(changes) - wins - losses, changes)


def judged_by(runs: Sequence[RunRecord], stage: str) -> str | None:
    """The metric that decides what is right: `exact_match`, or `f1` if no answer is exact; None without answers."""
    rows = [row for run in runs for row in run.predictions(stage).values() if row.get("answer") is not None]
    if any(row["metrics"].get("exact_match") for row in rows):
        return "exact_match"
    return "f1" if any("f1" in row["metrics"] for row in rows) else None


def cause(row: Mapping[str, Any], k: int, judge: str | None) -> str | None:
    """The cause of a question, one of `CAUSES`; None if its gold passage or the metric of its answer is unknown."""
    gold = set(row.get("gold_ids") or [])
    if not gold:
        return None
    passage_ids = row.get("given_ids")
    has_gold = bool(gold & set(row["retrieved_ids"][:k] if passage_ids is None else passage_ids))
    if row.get("answer") is None or judge is None:
        return FOUND if has_gold else RETRIEVER_MISS
    worth = row["metrics"].get(judge)
    if worth is None:
        return None
    right = worth >= (1.0 if judge == "exact_match" else 0.5)
    if right:
        return RIGHT if has_gold else IN_SPITE
    return READER_MISS if has_gold else RETRIEVER_MISS


def causes_of(run: RunRecord, stage: str, judge: str | None) -> dict[str, str]:
    """The cause of each question, by id."""
    from rag_experiments.config.schema import RetrieverConfig

    k = int(run.flat.get("retriever.k") or RetrieverConfig().k)
    cause_by_id = {key: cause(row, k, judge) for key, row in run.predictions(stage).items()}
    return {key: value for key, value in cause_by_id.items() if value is not None}


def shares(group: Group, stage: str, judge: str | None) -> dict[str, float]:
    """The share of questions per cause, over all seeds of the group."""
    counts: Counter[str] = Counter()
    for run in group.counted:
        counts.update(causes_of(run, stage, judge).values())
    total = sum(counts.values())
    return {name: counts[name] / total for name in (*CAUSES, FOUND) if counts[name]} if total else {}


def moves(baseline: Group, candidate: Group, stage: str, judge: str | None) -> dict[tuple[str, str], float]:
    """The number of questions by (cause before, cause after), averaged over pairs of seeds (equal ones if possible)."""
    pairs = seed_pairs(baseline.counted, candidate.counted)
    counts: Counter[tuple[str, str]] = Counter()
    for before, after in pairs:
        first, second = causes_of(before, stage, judge), causes_of(after, stage, judge)
        counts.update((first[key], second[key]) for key in first.keys() & second.keys())
    return {move: count / len(pairs) for move, count in counts.items()}


def seed_pairs(baseline: Sequence[RunRecord], candidate: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """Pairs of runs with equal seeds; all pairs if the two sides share no seed."""
    shared = [(b, c) for b in baseline for c in candidate if b.seed == c.seed]
    return shared or [(b, c) for b in baseline for c in candidate]


def wins_grid(table: RunTable, baseline: Group, candidates: Sequence[Group]) -> Grid | None:
    """A table of wins, losses and ties per candidate."""
    assert table.metric is not None
    win_counts = [o for c in candidates if (o := outcomes(baseline, c, table.metric)) is not None]
    if not win_counts:
        return None
    rows = [[o.candidate.label, str(o.wins), str(o.losses), str(o.ties)] for o in win_counts]
    title = f"questions won and lost against {baseline.label} ({table.metric})"
    return Grid(title, ["candidate", "wins", "losses", "ties"], rows, [False, True, True, True])


def causes_grid(groups: Sequence[Group], stage: str, judge: str | None) -> Grid | None:
    """A table of the share of questions per cause and group."""
    group_shares = [(group, share) for group in groups if (share := shares(group, stage, judge))]
    if not group_shares:
        return None
    names = [name for name in (*CAUSES, FOUND) if any(name in share for _, share in group_shares)]
    rows = [[group.label, *(f"{share.get(name, 0):.1%}" for name in names)] for group, share in group_shares]
    notes = ["Right: F1 of at least 0.5 (no answer is exactly a reference)."] if judge == "f1" else []
    return Grid(f"why questions fail ({stage})", ["run", *names], rows, [False] + [True] * len(names), notes)


def moves_grid(baseline: Group, candidate: Group, stage: str, judge: str | None) -> Grid | None:
    """A table of questions: rows are the causes for the baseline, columns those for the candidate."""
    counts = moves(baseline, candidate, stage, judge)
    if not counts:
        return None
    names = [name for name in (*CAUSES, FOUND) if any(name in move for move in counts)]
    rows = [[before, *(f"{counts.get((before, after), 0):.4g}" for after in names)] for before in names]
    title = f"questions: baseline (rows) → {candidate.label} (columns)"
    return Grid(title, ["", *names], rows, [False] + [True] * len(names))


def changed_grid(baseline: Group, candidate: Group, metric: str) -> Grid | None:
    """A table of the questions that changed most, with both answers, or with both ranks of the gold passage."""
    outcome = outcomes(baseline, candidate, metric)
    changed = [(key, change) for key, change in outcome.questions if abs(change) > _TIE] if outcome else []
    if not changed:
        return None
    won, lost = ([item for item in changed if (item[1] > 0) == up] for up in (True, False))
    shown = [*won[: max(CHANGED // 2, CHANGED - len(lost))], *lost[: max(CHANGED // 2, CHANGED - len(won))]]
    stage = split_metric(metric)[0]
    before, after = (run.predictions(stage) for run in seed_pairs(baseline.counted, candidate.counted)[0])
    answered = any(rows[key].get("answer") is not None for key, _ in changed for rows in (before, after))
    cell_of = _answer if answered else _gold_rank
    rows = [
        [f"{change:+.2f}", _clipped(before[key]["question"], 64), cell_of(before[key]), cell_of(after[key])]
        for key, change in shown
    ]
    what = "answer" if answered else "gold at rank"
    headers = ["change", "question", f"{what}: baseline", f"{what}: candidate"]
    unlisted = len(changed) - len(shown)
    notes = [f"{unlisted} more changed: see --output report.html, or the dashboard's Questions."] if unlisted else []
    return Grid(
        f"questions that {candidate.label} changed most ({metric})", headers, rows, [True, False, False, False], notes
    )


def _answer(row: Mapping[str, Any]) -> str:
    return _clipped(row.get("answer") or "(none)", 36)


def _gold_rank(row: Mapping[str, Any]) -> str:
    gold = set(row.get("gold_ids") or [])
    rank = next((rank for rank, key in enumerate(row["retrieved_ids"], 1) if key in gold), None)
    return f"not in {len(row['retrieved_ids'])}" if rank is None else str(rank)


def _clipped(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def grids(table: RunTable, baseline: Group, candidates: Sequence[Group]) -> list[Grid]:
    """All tables about where the gain comes from, for one section."""
    stage = split_metric(table.metric or "")[0]
    everyone = [baseline, *candidates]
    judge = judged_by([run for group in everyone for run in group.counted], stage)
    tables = [wins_grid(table, baseline, candidates), causes_grid(everyone, stage, judge)]
    if len(candidates) <= 3:
        tables += [moves_grid(baseline, candidate, stage, judge) for candidate in candidates]
    return [grid for grid in tables if grid is not None]
