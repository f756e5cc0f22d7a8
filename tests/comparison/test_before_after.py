"""A run against its own zero shot."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rag_experiments.comparison import before_after, print_before_after
from rag_experiments.comparison.analysis.before_after import baselines_of
from rag_experiments.comparison.records.run_records import load_runs
from rag_experiments.evaluation.bootstrap import intervals
from rag_experiments.runs.directory import RunDirectory
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
    changes = before_after(run)
    found = {(c.split, c.metric): (c.before.mean, c.after.mean, c.difference.mean, c.questions) for c in changes}
    assert list(found) == [(split, m) for split in ("dev", "test") for m in ("recall@1", "recall@4", "mrr@10")]
    assert found["dev", "recall@1"] == (0.4, 0.5, pytest.approx(0.1), 100)
    assert found["test", "recall@1"] == (0.4, 0.6, pytest.approx(0.2), 100)
    assert found["test", "mrr@10"][:2] == (pytest.approx(0.4 + 0.6 / 6), pytest.approx(0.6 + 0.4 / 6))
    print_before_after(run)
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if line.startswith(("dev", "test"))]) == 6
    interval = r"\[[+-]?\d\.\d{3}, [+-]?\d\.\d{3}\]"
    for (split, metric), (before, after, difference, questions) in found.items():
        figures = rf"{before:.3f} {interval}\s+{after:.3f} {interval}\s+{re.escape(f'{difference:+.3f}')} {interval}"
        assert re.search(rf"^{split}\s+{metric}\s+{figures}\s+{questions}$", printed, re.M), (split, metric)


def test_intervals_are_over_clusters_and_the_differences_is_paired(tmp_path: Path) -> None:
    before, after = rows_with(0.4, 60, seed=1), rows_with(0.6, 60, seed=2)
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        one["gold_ids"] = other["gold_ids"] = [f"p{number // 3}"]
    run = write_run(tmp_path / "r", {"zero_shot/test": before, "test": after})
    change = before_after(run)[0]
    sides = [np.array([row["metrics"]["recall@1"] for row in rows]) for rows in (before, after)]
    clusters = np.arange(60) // 3
    values = {"before": sides[0], "after": sides[1], "difference": sides[1] - sides[0]}
    expected = intervals(values, clusters, 5000, seed=0)
    assert (change.before, change.after, change.difference) == tuple(expected.values())
    assert change.clusters == 20
    assert before_after(run, seed=1)[0].difference == intervals(values, clusters, 5000, seed=1)["difference"]
    assert not before_after(run).notes, "twenty clusters are not few"


def test_metrics_are_those_asked_for_that_both_sides_have(tmp_path: Path) -> None:
    before, after = rows_with(0.5, 30), rows_with(0.5, 30)
    for row in before:
        row["metrics"] |= {"before_only": 1.0, "own": 0.25}
    for row in after:
        row["metrics"] |= {"after_only": 1.0, "own": 0.5}
    run = write_run(tmp_path / "r", {"zero_shot/test": before, "test": after})
    assert [c.metric for c in before_after(run, ["own", "before_only", "after_only", "mrr@10"])] == ["own", "mrr@10"]
    assert list(before_after(run, [])) == []
    (record, *_) = before_after(run, ["own"]).records()
    assert record["difference"] == {"mean": 0.25, "low": 0.25, "high": 0.25}
    assert (record["split"], record["metric"], record["questions"]) == ("test", "own", 30)


def test_answers_come_before_rankings_and_figures_are_set_as_numbers(tmp_path: Path) -> None:
    rows = rows_with(0.5, 30)
    for row in rows:
        row["metrics"] |= {"f1": 0.5, "exact_match": 0.0}
    result = before_after(write_run(tmp_path / "r", {"zero_shot/test": rows, "test": rows}))
    assert [c.metric for c in result] == ["exact_match", "f1", "recall@1", "recall@4", "mrr@10"]
    grid = result.grid()
    assert [name for name, number in zip(grid.headers, grid.numeric, strict=True) if number] == [
        "before",
        "after",
        "difference",
        "questions",
    ]
    assert grid.headers[:2] == ["split", "metric"]


def test_one_split_of_few_questions_is_enough_to_say_so(tmp_path: Path) -> None:
    stages = {
        f"{stage}{split}": rows_with(0.5, n) for split, n in (("dev", 19), ("test", 40)) for stage in ("zero_shot/", "")
    }
    assert before_after(write_run(tmp_path / "r", stages)).notes == [
        "Fewer than 20 independent questions: these intervals are too narrow."
    ]


def test_a_split_that_was_not_asked_before_says_nothing_beside_one_that_was(tmp_path: Path) -> None:
    stages = {"zero_shot/dev": rows_with(0.4), "dev": rows_with(0.5), "test": rows_with(0.5)}
    result = before_after(write_run(tmp_path / "r", stages))
    assert {c.split for c in result} == {"dev"}
    assert result.notes == []


def test_a_run_is_named_by_its_folder_directory_or_record(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"zero_shot/dev": rows_with(0.4), "dev": rows_with(0.5)})
    (record,) = load_runs([run])
    assert before_after(run) == before_after(str(run)) == before_after(RunDirectory(run)) == before_after(record)
    assert [c.split for c in before_after(run)] == ["dev"] * 3


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    result = before_after(write_run(tmp_path / "r", {"test": rows_with(0.5)}))
    assert list(result) == []
    assert str(result) == "No split was evaluated both before and after training (evaluation.zero_shot)."


def test_few_questions_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"zero_shot/test": rows_with(0.4, 10), "test": rows_with(0.6, 10)})
    assert before_after(run).notes == ["Fewer than 20 independent questions: these intervals are too narrow."]
    assert "too narrow" in str(before_after(run))


def test_questions_without_gold_do_not_count(tmp_path: Path) -> None:
    before, after = rows_with(0.5, 40), rows_with(1.0, 40)
    for rows in (before, after):
        rows[0]["metrics"], rows[0]["gold_ids"] = {}, []
    change = before_after(write_run(tmp_path / "r", {"zero_shot/test": before, "test": after}))[0]
    assert change.questions == 39
    assert change.after.mean == 1.0


def test_a_baseline_stands_in_place_of_the_state_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {"zero_shot/test": rows_with(0.4), "baseline/bm25/test": rows_with(0.7), "test": rows_with(0.6)}
    run = write_run(tmp_path / "r", stages)
    (run / "predictions" / "baseline" / "odd name").mkdir()
    assert baselines_of(run) == ["bm25"]
    beside = before_after(run, baseline="bm25")
    change = next(change for change in beside if change.metric == "recall@1")
    assert (change.before.mean, change.after.mean) == (0.7, 0.6)
    assert change.difference.mean == pytest.approx(-0.1)
    print_before_after(run)
    printed = capsys.readouterr().out
    assert printed.index("before and after training") < printed.index("beside bm25")
    assert re.search(r"^split\s+metric\s+bm25\s+after\s+difference", printed, re.M)


def test_a_baseline_that_was_not_measured_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"zero_shot/test": rows_with(0.4), "test": rows_with(0.6)})
    assert baselines_of(run) == []
    assert "evaluation.baselines" in str(before_after(run, baseline="bm25"))
