"""Figures hold the table's numbers; names in them are text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_experiments.comparison import RunTable, load_runs
from rag_experiments.comparison.analysis.verdict import judge
from rag_experiments.comparison.output import figures
from tests.comparison.conftest import rows_with, write_run


def test_bars_and_forest_show_the_tables_figures(two_runs) -> None:
    table = RunTable(load_runs([two_runs[0].parent]), "recall@1")
    bars = figures.bars(table).data[0]
    assert dict(zip(bars.y, bars.x, strict=True)) == {"learning_rate=0.0003": 0.8, "learning_rate=0.0001": 0.4}
    comparison = judge(table, two_runs[0])
    points = [(x, trace.name) for trace in figures.forest(comparison).data for x in trace.x]
    assert points == [(pytest.approx(0.4), "better")]
    cost = figures.cost(table, "seconds/train").data[0]
    assert sorted(zip(cost.x, cost.y, strict=True)) == [(10.0, 0.4), (30.0, 0.8)]
    json.loads(figures.forest(comparison).to_json())


def test_names_are_escaped(tmp_path: Path) -> None:
    for value in ("<b>x</b>", "y"):
        write_run(tmp_path / value[-1], {"test": rows_with(0.5)}, {"trainer.optim": value})
    bars = figures.bars(RunTable(load_runs([tmp_path]), "recall@1")).data[0]
    assert "optim=&lt;b&gt;x&lt;/b&gt;" in bars.y


def test_pareto() -> None:
    points = [(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (4, 0.7)]
    assert figures.pareto(points) == [(1, 0.5), (3, 0.7)]
    assert figures.pareto(points, high=False) == [(1, 0.5), (2, 0.4)]
