"""Which figures a comparison has. The report draws them with Plotly (`figures`), `--figures` with matplotlib."""

from __future__ import annotations

from typing import Any

from rag_experiments.comparison.analysis import causes, matrix
from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.output.render import Document, pivots


def chosen(document: Document) -> list[tuple[str, tuple[Any, ...]]]:
    """(name, arguments) of the functions of `figures` and of `paper_figures` that have something to show."""
    table, comparison = document.table, document.comparison
    found: list[tuple[str, tuple[Any, ...]]] = []
    if any(group.counted for group in table.groups) and table.metric:
        found.append(("bars", (table,)))
    if document.changes:
        found.append(("before_after", (document.changes,)))
    if comparison and comparison.verdicts:
        found.append(("forest", (comparison,)))
        won = [causes.outcomes(comparison.baseline, group, table.metric or "") for group in comparison.candidates]
        if any(won):
            found.append(("wins", ([one for one in won if one],)))
        found.append(("causes", ([comparison.baseline, *comparison.candidates], table.stage)))
    elif table.sections:
        found.append(("causes", ([g for g in table.sections[0].groups if g.counted], table.stage)))
    matrices = [one for section in table.sections if (one := matrix.retriever_by_reader(table, section))]
    matrices += pivots(table, *document.pivot) if document.pivot else []
    found += [("matrix", (one,)) for one in matrices]
    return [*found, *(("cost", (table, price)) for price in costs(table))]


def costs(table: RunTable) -> list[str]:
    """What quality is held against: training, and the latency of a question where it was measured."""
    have = {name for run in table.runs for name in run.metrics}
    latency = [f"{table.stage}/seconds/{what}_p50" for what in ("generation", "retrieval")]
    wanted = ["seconds/train", "seconds/prepare", *latency, f"{table.stage}/seconds/retrieval"]
    return [name for name in wanted if name in have][:3]
