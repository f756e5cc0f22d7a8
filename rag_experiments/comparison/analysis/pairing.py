"""Align the per-question figures of runs by question id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.evaluation.bootstrap import gold_clusters

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Paired:
    """The figures of two sides on the same questions; NaN if a side has no value."""

    ids: list[str]
    before_Q: NDArray[np.float64]
    after_Q: NDArray[np.float64]
    clusters_Q: NDArray[np.int64]
    left_out: int
    """Number of questions that only one side was asked."""

    @property
    def difference_Q(self) -> NDArray[np.float64]:
        return self.after_Q - self.before_Q


def seed_means(runs: Sequence[RunRecord], stage: str, metric: str) -> tuple[dict[str, float], Rows]:
    """The mean of a metric over runs for each question, and the rows of one run (for gold passages and texts).

    Questions that some run was not asked are left out. The mean is NaN if no run has the metric for a question.
    """
    sides = [run.predictions(stage) for run in runs]
    if not sides:
        return {}, {}
    shared = [key for key in sides[0] if all(key in rows for rows in sides[1:])]
    means = {}
    for key in shared:
        values = [value for rows in sides if (value := rows[key]["metrics"].get(metric)) is not None]
        means[key] = float(np.mean(values)) if values else float("nan")
    return means, sides[0]


def pair(before: Mapping[str, float], after: Mapping[str, float], rows: Rows) -> Paired:
    """Align two sides on the questions that both were asked; gold passages are taken from `rows`."""
    ids = [key for key in before if key in after]
    return Paired(
        ids=ids,
        before_Q=np.array([before[key] for key in ids], dtype=np.float64),
        after_Q=np.array([after[key] for key in ids], dtype=np.float64),
        clusters_Q=gold_clusters([rows[key].get("gold_ids") or [] for key in ids]),
        left_out=len(set(before) ^ set(after)),
    )
