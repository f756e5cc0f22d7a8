"""Compare a run with its own zero-shot evaluation: what training changed, question by question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag_experiments.comparison.analysis.pairing import Rows, pair
from rag_experiments.comparison.analysis.statistics import FEW_CLUSTERS
from rag_experiments.comparison.analysis.table_columns import ANSWERS, RANKINGS
from rag_experiments.comparison.records.run_records import RunRecord, read_rows
from rag_experiments.core.errors import RequestError
from rag_experiments.core.text_table import Grid, show, to_text
from rag_experiments.core.visible import say
from rag_experiments.evaluation.bootstrap import Interval, intervals
from rag_experiments.runs.directory import BASELINE, RunDirectory, baseline_stage

RESAMPLES = 5000
MAIN = ("f1", "exact_match", "ndcg@10", "recall@4")
"""The figures that decide whether training harmed; the first that a run has."""


@dataclass(frozen=True)
class Change:
    """One metric on one split, over the questions that were asked both before and after training."""

    split: str
    metric: str
    before: Interval
    after: Interval
    difference: Interval
    """Interval of after minus before, paired by question."""
    questions: int
    clusters: int


class BeforeAfter(list[Change]):
    """The changes of one run; prints as a table. `notes` holds remarks for its reader."""

    def __init__(self, changes: Sequence[Change], notes: Sequence[str], baseline: str | None = None):
        super().__init__(changes)
        self.notes = list(notes)
        self.baseline = baseline
        """What stands in place of the state before training."""

    def __str__(self) -> str:
        return to_text([self.grid()]) if self else "\n".join(self.notes)

    def grid(self, title: str | None = None) -> Grid:
        """The changes as a table with 95 % intervals; the interval of the difference is paired."""
        rows = [
            [c.split, c.metric, _shown(c.before), _shown(c.after), _shown(c.difference, "+"), str(c.questions)]
            for c in self
        ]
        first = self.baseline or "before"
        headers = ["split", "metric", first, "after", "difference", "questions"]
        title = title or (f"beside {self.baseline}" if self.baseline else "before and after training")
        return Grid(title, headers, rows, [False, False, True, True, True, True], self.notes)

    def records(self) -> list[dict[str, Any]]:
        """The changes as plain values for JSON."""
        return [asdict(change) for change in self]


def _shown(interval: Interval, sign: str = "") -> str:
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def before_after(
    run: RunDirectory | RunRecord | Path | str,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    baseline: str | None = None,
    measured: Path | None = None,
) -> BeforeAfter:
    """The metrics of each split before and after training, with bootstrap intervals over clusters of questions.

    `metrics` are names without a stage; None means the usual ones. With `baseline` its figures stand in place of those
    before training: those that the run measured, or those of an evaluation of the run in the folder `measured`.
    """
    directory = RunDirectory(run if isinstance(run, Path | str) else run.path)
    changes: list[Change] = []
    notes: list[str] = []
    for split in ("dev", "test"):
        first = directory.predictions_path(baseline_stage(baseline, split) if baseline else f"zero_shot/{split}")
        if measured is not None:
            first = measured / "predictions" / f"{split}.jsonl"
        files = (first, directory.predictions_path(split))
        before, after = ({str(row["id"]): row for row in read_rows(file)} for file in files)
        if before and after:
            changes += _changes(split, before, after, metrics, seed, notes)
    if not changes and baseline is None:
        notes.append("No split was evaluated both before and after training (evaluation.zero_shot).")
    elif not changes:
        notes.append(f"No split was evaluated with {baseline} (evaluation.baselines).")
    elif min(change.clusters for change in changes) < FEW_CLUSTERS:
        notes.append(f"Fewer than {FEW_CLUSTERS} independent questions: these intervals are too narrow.")
    notes += _refit_notes(directory, changes)
    return BeforeAfter(changes, notes, baseline)


def harm_sentence(changes: Sequence[Change]) -> str:
    """That the model before training is better, where the interval of its main figure lies below zero; else empty."""
    for split in ("test", "dev"):
        main = next((one for metric in MAIN for one in changes if (one.split, one.metric) == (split, metric)), None)
        if main is not None:
            if main.difference.high >= 0 or main.clusters < FEW_CLUSTERS:
                return ""
            return (
                f"The model before training is better: {split} {main.metric} fell from {main.before.mean:.3f} to "
                f"{main.after.mean:.3f}, {_shown(main.difference, '+')}. The log names likely causes; keep=base saves "
                "the model before training."
            )
    return ""


def _refit_notes(run: RunDirectory, changes: Sequence[Change]) -> list[str]:
    """What `refit=true` means for the figures of dev."""
    try:
        steps = run.read_status()["refit"]["steps"]
    except (RequestError, LookupError, TypeError):
        return []
    if not any(change.split == "dev" for change in changes):
        return []
    return [f"refit: dev is measured after the first training, which chose {steps} steps; model/ has seen it since."]


def baselines_of(run: RunDirectory | RunRecord | Path | str) -> list[str]:
    """The retrievers that were measured beside the run's own."""
    folder = RunDirectory(run if isinstance(run, Path | str) else run.path).path / "predictions" / BASELINE
    return sorted(entry.name for entry in folder.glob("*/") if re.fullmatch(r"[\w-]+", entry.name))


def _changes(
    split: str, before: Rows, after: Rows, metrics: Sequence[str] | None, seed: int, notes: list[str]
) -> list[Change]:
    common = [key for key in after if key in before]
    if len(common) < len(after):
        notes.append(f"{split}: over the {len(common)} of {len(after)} questions that were also asked before training.")
    have = {name for key in common for name in before[key]["metrics"].keys() & after[key]["metrics"].keys()}
    changes = []
    for metric in metrics if metrics is not None else (*ANSWERS, *RANKINGS):
        if metric not in have:
            continue
        sides = [{key: rows[key]["metrics"].get(metric, np.nan) for key in common} for rows in (before, after)]
        paired = pair(sides[0], sides[1], after)
        values = {"before": paired.before_Q, "after": paired.after_Q, "difference": paired.difference_Q}
        interval_by_side = intervals(values, paired.clusters_Q, RESAMPLES, seed)
        measured_Q = ~np.isnan(paired.difference_Q)
        clusters = len(np.unique(paired.clusters_Q[measured_Q]))
        changes.append(
            Change(split=split, metric=metric, questions=int(measured_Q.sum()), clusters=clusters, **interval_by_side)
        )
    return changes


def print_before_after(run: RunDirectory | RunRecord | Path | str) -> None:
    """Print the table, and one for each baseline, as a run does at its end."""
    harmed = harm_sentence(before_after(run))
    if harmed:
        say(harmed)
    tables = [before_after(run), *(before_after(run, baseline=name) for name in baselines_of(run))]
    for table in tables:
        if table:
            show([table.grid()])
        else:
            say(table)
