"""Questions of two sides brought together: seeds averaged, ids aligned, clusters by gold passage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag_experiments.comparison.analysis.pairing import pair, seed_means
from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.analysis.verdict import judge, pair_groups
from rag_experiments.comparison.records.run_records import RunRecord, load_runs
from tests.comparison.conftest import ranked_row, write_run


def row(key: str, f1: float | None, gold: tuple[str, ...] = ("gold",)) -> dict:
    return ranked_row(key, 1, gold, metrics={} if f1 is None else {"f1": f1})


def seeds(root: Path, *sides: dict[str, float | None], **changes: object) -> list[RunRecord]:
    for seed, figures in enumerate(sides):
        rows = [row(key, value) for key, value in figures.items()]
        write_run(root / f"s{seed}", {"test": rows}, {"seed": seed, **changes})
    return load_runs([root])


def test_a_questions_figure_is_the_mean_over_the_seeds(tmp_path: Path) -> None:
    runs = seeds(tmp_path, {"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.25})
    means, rows = seed_means(runs, "test", "f1")
    assert means == {"a": pytest.approx(0.5), "b": pytest.approx(0.75)}
    assert rows["a"]["gold_ids"] == ["gold"]


def test_a_seed_without_the_figure_is_left_out_of_the_mean_and_where_all_are_it_is_nan(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    means, _ = seed_means(seeds(tmp_path, {"a": None, "b": None}, {"a": 0.75, "b": None}), "test", "f1")
    assert means["a"] == 0.75
    assert np.isnan(means["b"])
    assert not recwarn.list


def test_a_question_that_some_seed_was_not_asked_is_left_out(tmp_path: Path) -> None:
    runs = seeds(
        tmp_path, {"a": 1.0, "b": 1.0, "d": 0.0}, {"a": 0.0, "c": 1.0, "d": 0.0}, {"a": 0.5, "b": 1, "c": 1, "d": 0}
    )
    assert seed_means(runs, "test", "f1")[0] == {"a": 0.5, "d": 0.0}
    assert seed_means([], "test", "f1") == ({}, {})
    assert seed_means(runs[:1], "test", "f1")[0] == {"a": 1.0, "b": 1.0, "d": 0.0}


def test_sides_are_aligned_by_id_and_the_difference_is_after_minus_before() -> None:
    before, after = {"a": 0.25, "b": 0.5, "only": 1.0}, {"b": 1.0, "a": 0.0, "new": 1.0, "newer": 0.0}
    rows = {
        "a": {"gold_ids": ["x", "y"]},
        "b": {"gold_ids": ["y"]},
        "new": {"gold_ids": ["x"]},
    }
    paired = pair(before, after, rows)
    assert paired.ids == ["a", "b"]
    assert paired.before_Q.tolist() == [0.25, 0.5]
    assert paired.after_Q.tolist() == [0.0, 1.0]
    assert paired.difference_Q.tolist() == [-0.25, 0.5]
    assert paired.left_out == 3
    assert paired.clusters_Q.tolist() == [0, 0]  # one passage in common
    apart = pair(before, after, {"a": {"gold_ids": ["x"]}, "b": {"gold_ids": None}})
    assert apart.clusters_Q.tolist() == [0, 1]


def two_groups(root: Path) -> RunTable:
    """Two seeds a side; of the first seed alone the candidate loses, over both it wins by (0.5 - 0.25 + 1) / 3."""
    seeds(root / "base", {"a": 0.5, "b": 1.0, "c": 0.0}, {"a": 0.5, "b": 0.0, "c": 0.0})
    changes = {"trainer.learning_rate": 1.0}
    seeds(root / "other", {"a": 1.0, "b": 0.0, "c": 1.0}, {"a": 1.0, "b": 0.5, "c": 1.0}, **changes)
    return RunTable(load_runs([root]), "f1")


def test_the_questions_test_is_of_the_means_over_seeds(tmp_path: Path) -> None:
    table = two_groups(tmp_path)
    base, other = (next(g for g in table.groups if g.name.startswith(name)) for name in ("base", "other"))
    paired = pair_groups(base, other, "test/f1")
    assert dict(zip(paired.ids, paired.difference_Q, strict=True)) == {"a": 0.5, "b": -0.25, "c": 1.0}
    (verdict,) = judge(table, tmp_path / "base").verdicts
    assert verdict.questions.difference == pytest.approx((0.5 - 0.25 + 1) / 3)
    assert (verdict.baseline_mean, verdict.candidate_mean) == pytest.approx((2 / 6, 4.5 / 6))
    assert verdict.drift == pytest.approx(0, abs=1e-12)


def test_a_side_without_predictions_is_not_paired(tmp_path: Path) -> None:
    table = two_groups(tmp_path)
    base, other = table.groups
    assert pair_groups(base, other, "dev/f1") is None
    assert pair_groups(base, other, "seconds/train") is None
    for run in other.runs:
        (run.path / "predictions" / "test.jsonl").unlink()
    assert pair_groups(base, other, "test/f1") is None
    assert pair_groups(other, base, "test/f1") is None
