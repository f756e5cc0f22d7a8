"""Retriever × reader: the figure of each reader with each retriever, if both vary."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass

from rag_experiments.comparison.analysis.table import RunTable, Section, Summary
from rag_experiments.comparison.analysis.table_columns import ANSWERS
from rag_experiments.comparison.records.metric_fields import bare, short_value
from rag_experiments.comparison.records.run_records import RunRecord
from rag_experiments.core.text_table import Grid


@dataclass(frozen=True)
class Matrix:
    """Holds `cells[row][column]`; None if there is no run."""

    title: str
    rows: list[str]
    columns: list[str]
    cells: list[list[Summary | None]]

    def grid(self) -> Grid:
        """The matrix as a table."""
        body = [[name, *(str(cell or "–") for cell in row)] for name, row in zip(self.rows, self.cells, strict=True)]
        return Grid(self.title, ["", *self.columns], body, [False] + [True] * len(self.columns))


def build(title: str, values: dict[tuple[str, str], list[float]]) -> Matrix:
    """Mean and spread per (row, column), in the order of `values`."""
    rows = list(dict.fromkeys(key[0] for key in values))
    columns = list(dict.fromkeys(key[1] for key in values))
    cells = [[summarise(values.get((row, column))) for column in columns] for row in rows]
    return Matrix(title, rows, columns, cells)


def summarise(values: list[float] | None) -> Summary | None:
    """Mean, spread and number of `values`; None if there are none."""
    if not values:
        return None
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def retriever_of(run: RunRecord) -> str:
    """A short name of the run's retriever: its kind, its encoder and its reranker if it has them."""
    kind = short_value(run.flat.get("retriever.type"))
    encoder = run.flat.get("retriever.encoder.path")
    depth = run.flat.get("retriever.k")
    words = kind if encoder is None else f"{kind} {short_value(encoder)}"
    reranker = run.flat.get("retriever.reranker.path")
    words = words if reranker is None else f"{words} + {short_value(reranker)}"
    return f"{words} k={depth}" if depth is not None else words


def reader_of(run: RunRecord) -> str | None:
    """A short name of the run's reader: algorithm and weights; None for a run that trains an encoder."""
    if run.flat.get("model.kind") not in ("decoder", "encoder_decoder"):
        return None
    return f"{run.algorithm} {run.choices.get('model') or short_value(run.flat.get('model.path'))}"


def retriever_by_reader(table: RunTable, section: Section) -> Matrix | None:
    """The matrix of the primary metric, or of F1 if that measures only retrieval; None if only one side varies."""
    name = bare(table.metric or "")
    metric = table.metric if name in ANSWERS else f"{table.stage}/f1"
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for group in section.groups:
        for run in group.counted:
            reader = reader_of(run)
            if reader is not None and metric in run.metrics:
                values[retriever_of(run), reader].append(run.metrics[metric])
    matrix = build(f"{metric}: retriever (rows) × reader (columns); {section.title}", values)
    return matrix if len(matrix.rows) > 1 and len(matrix.columns) > 1 else None
