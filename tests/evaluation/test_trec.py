"""TREC run files: what other tools measure on one is what was measured here."""

from __future__ import annotations

import random

import ir_measures
import pytest
from ir_measures import R, nDCG

from rag_experiments.evaluation.ranking import ranking_metrics
from rag_experiments.evaluation.trec import run_lines


@pytest.mark.parametrize("ties", [False, True])
def test_run_lines_give_other_tools_the_same_figures(ties, tmp_path):
    random.seed(1)
    rows, golds = [], []
    for number in range(30):
        ids = [f"p{n}" for n in random.sample(range(40), 10)]
        scores = [0.5] * 10 if ties else sorted((random.random() for _ in ids), reverse=True)
        rows.append({"id": f"q{number}", "retrieved_ids": ids, "retrieved_scores": scores})
        golds.append({f"p{n}": 1 for n in random.sample(range(40), 3)})
    path = tmp_path / "run.trec"
    path.write_text("".join(run_lines(rows, "my run")))
    run = list(ir_measures.read_trec_run(str(path)))
    qrels = {row["id"]: gold for row, gold in zip(rows, golds, strict=True)}
    here = ranking_metrics(golds, [row["retrieved_ids"] for row in rows], {4})
    for measure, name in ((R @ 4, "recall@4"), (nDCG @ 10, "ndcg@10")):
        there = {value.query_id: value.value for value in ir_measures.iter_calc([measure], qrels, run)}
        assert [there[row["id"]] for row in rows] == pytest.approx([metrics[name] for metrics in here])


def test_run_lines_have_six_columns_whatever_the_ids_hold():
    rows = [{"id": "a b", "retrieved_ids": ["x\ty", "10%", "文"], "retrieved_scores": [3.0, 2.0, float("-inf")]}]
    lines = list(run_lines([*rows, {"id": "none"}], "two words"))
    assert [line.split() for line in lines] == [
        ["a%20b", "Q0", "x%09y", "1", "3.0", "two%20words"],
        ["a%20b", "Q0", "10%25", "2", "2.0", "two%20words"],
        ["a%20b", "Q0", "文", "3", "-inf", "two%20words"],
    ]
