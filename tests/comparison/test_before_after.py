"""A run against its own zero shot."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.comparison import before_after, print_before_after
from rag_experiments.runs import RunDirectory
from tests.comparison.conftest import rows_with, write_run


def test_difference_is_paired(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"zero_shot/test": rows_with(0.4, 200), "test": rows_with(0.6, 200)})
    changes = {change.metric: change for change in before_after(RunDirectory(run))}
    change = changes["recall@1"]
    assert (change.before.mean, change.after.mean) == (0.4, 0.6)
    assert change.difference.mean == pytest.approx(0.2)
    assert change.questions == change.clusters == 200
    # the same 80 questions are right on both sides: pairing makes the interval narrower than either side's
    width = change.difference.high - change.difference.low
    assert width < change.after.high - change.after.low
    assert 0.1 < change.difference.low < 0.2 < change.difference.high < 0.3


def test_a_sampled_zero_shot_is_compared_on_its_questions_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"zero_shot/test": rows_with(0.5, 30), "test": rows_with(1.0, 100)})
    result = before_after(run)
    assert result[0].questions == 30
    assert "30 of 100 questions" in result.notes[0]
    assert "30 of 100" in str(result)


def test_both_splits_and_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {"zero_shot/dev": rows_with(0.4), "dev": rows_with(0.5), "zero_shot/test": rows_with(0.4)}
    run = write_run(tmp_path / "r", {**stages, "test": rows_with(0.6)})
    print_before_after(run)
    printed = capsys.readouterr().out
    assert "dev    recall@1" in printed
    assert "test   recall@4" in printed
    assert "+0.200 [+0.1" in printed


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    result = before_after(write_run(tmp_path / "r", {"test": rows_with(0.5)}))
    assert list(result) == []
    assert "zero_shot" in str(result)


def test_few_questions_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"zero_shot/test": rows_with(0.4, 10), "test": rows_with(0.6, 10)})
    assert any("too narrow" in note or "Fewer than" in note for note in before_after(run).notes)


def test_questions_without_gold_do_not_count(tmp_path: Path) -> None:
    before, after = rows_with(0.5, 40), rows_with(1.0, 40)
    for rows in (before, after):
        rows[0]["metrics"], rows[0]["gold_ids"] = {}, []
    change = before_after(write_run(tmp_path / "r", {"zero_shot/test": before, "test": after}))[0]
    assert change.questions == 39
    assert change.after.mean == 1.0
