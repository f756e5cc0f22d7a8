"""Which figures a comparison has. The report draws them with Plotly (`figures`), `--figures` with matplotlib."""

from __future__ import annotations

from typing import Any

from rag_experiments.comparison.analysis import causes, matrix
from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.output.render import Document, pivots


def figure_calls(document: Document) -> list[tuple[str, tuple[Any, ...]]]:
    """(name, arguments) of the functions of `figures` and of `paper_figures` that have something to show."""
    table, comparison = document.table, document.comparison
    calls: list[tuple[str, tuple[Any, ...]]] = []
    if any(group.counted for group in table.groups) and table.metric:
        calls.append(("bars", (table,)))
    if document.changes:
        calls.append(("before_after", (document.changes,)))
    if comparison and comparison.verdicts:
        calls.append(("forest", (comparison,)))
        won = [causes.outcomes(comparison.baseline, group, table.metric or "") for group in comparison.candidates]
        if any(won):
            calls.append(("wins", ([one for one in won if one],)))
        calls.append(("causes", ([comparison.baseline, *comparison.candidates], table.stage)))
    elif table.sections:
        calls.append(("causes", ([g for g in table.sections[0].groups if g.counted], table.stage)))
    matrices = [one for section in table.sections if (one := matrix.retriever_by_reader(table, section))]
    matrices += pivots(table, *document.pivot) if document.pivot else []
    calls += [("matrix", (one,)) for one in matrices]
    return [*calls, *(("cost", (table, price)) for price in costs(table))]


def costs(table: RunTable) -> list[str]:
    """What quality is held against: training, and the latency of a question where it was measured."""
    have = {name for run in table.runs for name in run.metrics}
    latency = [f"{table.stage}/seconds/{what}_p50" for what in ("generation", "retrieval")]
    candidates = ["seconds/train", "seconds/prepare", *latency, f"{table.stage}/seconds/retrieval"]
    return [name for name in candidates if name in have][:3]
