"""Verdicts: what is said, and what is refused or warned of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.analysis.verdict import judge
from rag_experiments.comparison.records.run_records import load_runs
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import ranked_row, rows_with, write_run


def verdict_of(root: Path, baseline: Path, metric: str = "recall@1"):
    comparison = judge(RunTable(load_runs([root]), metric), baseline)
    assert len(comparison.verdicts) == 1
    return comparison.verdicts[0], comparison


def test_a_real_gain_is_found_and_seeds_are_not_claimed(two_runs: tuple[Path, Path]) -> None:
    base, _ = two_runs
    verdict, comparison = verdict_of(base.parent, base)
    assert verdict.outcome == "better"
    assert verdict.difference == pytest.approx(0.4)
    assert verdict.questions.low > 0.2
    assert verdict.question_sentence == "yes"
    assert verdict.seed_sentence == "cannot tell: both sides have a single seed"
    assert comparison.tests == 1
    swapped, _ = verdict_of(base.parent, base.parent / "better")
    assert swapped.outcome == "worse"


def test_seeds_on_both_sides(tmp_path: Path) -> None:
    for seed, (low, high) in enumerate([(0.40, 0.70), (0.42, 0.71), (0.38, 0.72), (0.41, 0.69)]):
        write_run(tmp_path / f"a{seed}", {"test": rows_with(low, seed=seed)}, {"seed": seed})
        changes = {"seed": seed, "trainer.learning_rate": 1.0}
        write_run(tmp_path / f"b{seed}", {"test": rows_with(high, seed=9 + seed)}, changes)
    verdict, comparison = verdict_of(tmp_path, tmp_path / "a1")
    assert comparison.tests == 2  # both questions are corrected together
    assert verdict.p_questions >= verdict.questions.p
    assert verdict.seed_sentence == "yes (4 against 4 seeds)"


def test_holm_covers_every_candidate_and_metric(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.5)})
    for index in range(3):
        rows = rows_with(0.6, seed=index + 1)
        write_run(tmp_path / f"c{index}", {"test": rows}, {"trainer.learning_rate": float(index)})
    table = RunTable(load_runs([tmp_path]), "recall@1")
    comparison = judge(table, base, ["test/recall@1", "test/mrr@10"])
    assert comparison.tests == 6
    smallest = min(comparison.verdicts, key=lambda v: v.questions.p)
    assert smallest.p_questions == pytest.approx(min(1.0, 6 * smallest.questions.p))


def test_no_relevant_difference_and_underpowered_are_told_apart(tmp_path: Path) -> None:
    many = write_run(tmp_path / "many" / "base", {"test": rows_with(0.5, questions=200)})
    write_run(tmp_path / "many" / "same", {"test": rows_with(0.5, questions=200)}, {"trainer.learning_rate": 1.0})
    assert verdict_of(tmp_path / "many", many)[0].outcome == "same"
    base = write_run(tmp_path / "few" / "base", {"test": rows_with(0.5, questions=40)})
    write_run(tmp_path / "few" / "same", {"test": rows_with(0.5, questions=40)}, {"trainer.learning_rate": 1.0})
    verdict, _ = verdict_of(tmp_path / "few", base)
    assert verdict.outcome == "undecided"  # that forty tie does not tell that fewer than two in a hundred differ
    assert verdict.question_sentence == "cannot tell (all 40 questions tie, but they are too few)"
    rows = rows_with(0.55, questions=40, seed=5)
    write_run(tmp_path / "few" / "maybe", {"test": rows}, {"trainer.learning_rate": 2.0})
    verdicts = judge(RunTable(load_runs([tmp_path / "few"]), "recall@1"), base).verdicts
    maybe = next(v for v in verdicts if v.candidate.name == "maybe")
    assert maybe.outcome == "undecided"
    assert maybe.underpowered
    assert "underpowered" in maybe.question_sentence
    assert "with 40 independent questions only" in maybe.power_sentence


def test_few_independent_questions_are_said(tmp_path: Path) -> None:
    def rows(rank: int) -> list[dict]:
        return [ranked_row(f"q{i}", rank, (f"gold-{i % 4}",)) for i in range(60)]

    base = write_run(tmp_path / "base", {"test": rows(6)})
    write_run(tmp_path / "other", {"test": rows(1)}, {"trainer.learning_rate": 1.0})
    verdict, _ = verdict_of(tmp_path, base)
    assert verdict.questions.clusters == 4
    assert verdict.outcome == "undecided"  # sixty wins, but on four passages: p is 1/8 at best
    assert "only 4 independent questions" in verdict.question_sentence
    assert any("too narrow" in note for note in judge(RunTable(load_runs([tmp_path]), "recall@1"), base).grid().notes)


def test_other_questions_are_never_compared_silently(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.5)})
    write_run(tmp_path / "sampled", {"test": rows_with(0.9, questions=30)}, {"trainer.learning_rate": 1.0})
    comparison = judge(RunTable(load_runs([tmp_path]), "recall@1"), base)
    assert comparison.verdicts == []
    assert any("NOT COMPARED: 1 groups with other questions" in note for note in comparison.notes)


def test_incomplete_sweeps_are_said(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.5)})
    write_run(tmp_path / "c0", {"test": rows_with(0.6)}, {"trainer.learning_rate": 1.0})
    write_run(tmp_path / "c1", {}, {"trainer.learning_rate": 1.0, "seed": 1}, state="failed")
    write_run(tmp_path / "d", {}, {"trainer.learning_rate": 2.0}, state="interrupted")
    verdict, comparison = verdict_of(tmp_path, base)
    assert "1 completed, 1 failed" in verdict.incomplete
    text = "\n".join(comparison.notes)
    assert "INCOMPLETE" in text
    assert "without a completed run" in text


def test_unequal_seeds_are_said(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.5)})
    write_run(tmp_path / "c", {"test": rows_with(0.6)}, {"trainer.learning_rate": 1.0, "seed": 7})
    verdict, _ = verdict_of(tmp_path, base)
    assert verdict.incomplete == "seeds 7 against 0"


def test_metrics_that_contradict_their_predictions_are_said(two_runs: tuple[Path, Path]) -> None:
    base, better = two_runs
    file = better / "metrics.json"
    file.write_text(file.read_text().replace("0.8", "0.9"))
    _, comparison = verdict_of(base.parent, base)
    assert any("INCONSISTENT" in note for note in comparison.notes)


def test_a_metric_without_questions_is_judged_by_seeds_alone(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", {}, {"seed": seed}, figures={"seconds/train": 100.0 + seed})
        changes = {"seed": seed, "trainer.learning_rate": 1.0}
        write_run(tmp_path / f"b{seed}", {}, changes, figures={"seconds/train": 50.0 + seed})
    verdict, _ = verdict_of(tmp_path, tmp_path / "a0", "seconds/train")
    assert verdict.questions is None
    assert verdict.outcome == "better"  # fewer seconds


@pytest.mark.parametrize(("which", "says"), [("elsewhere", "none of the compared runs"), (".", "different configs")])
def test_wrong_baselines(two_runs: tuple[Path, Path], which: str, says: str) -> None:
    root = two_runs[0].parent
    with pytest.raises(RequestError, match=says):
        judge(RunTable(load_runs([root])), root / which)


def test_evaluations_of_a_run_compare_with_it(tmp_path: Path) -> None:
    base = write_run(tmp_path / "run", {"test": rows_with(0.4)})
    again = write_run(base / "evaluations" / "bm25", {"test": rows_with(0.8, seed=1)}, {"retriever.type": "bm25"})
    comparison = judge(RunTable(load_runs([base, again]), "recall@1"), base)
    assert [verdict.outcome for verdict in comparison.verdicts] == ["better"]


def test_a_failed_baseline_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"test": rows_with(0.5)}, {"trainer.learning_rate": 1.0})
    failed = write_run(tmp_path / "b", {}, state="failed")
    with pytest.raises(RequestError, match="its run is failed"):
        judge(RunTable(load_runs([tmp_path])), failed)


def test_null_runs_are_seldom_called_different(tmp_path: Path) -> None:
    """Twenty candidates that are the baseline with other luck: at most one may be called different after Holm."""
    rng = np.random.default_rng(0)
    base = write_run(tmp_path / "base", {"test": [ranked_row(f"q{i}", int(rng.choice([1, 6]))) for i in range(80)]})
    for index in range(20):
        rows = [ranked_row(f"q{i}", int(rng.choice([1, 6]))) for i in range(80)]
        for row, number in zip(rows, range(80), strict=True):
            row["gold_ids"] = [f"gold-{number}"]
        write_run(tmp_path / f"c{index}", {"test": rows}, {"trainer.learning_rate": float(index)})
    file = base / "predictions" / "test.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("".join(line.replace('["gold"]', f'["gold-{i}"]') + "\n" for i, line in enumerate(lines)))
    comparison = judge(RunTable(load_runs([tmp_path]), "recall@1"), base)
    assert len(comparison.verdicts) == 20
    assert sum(v.outcome in ("better", "worse") for v in comparison.verdicts) <= 1


def test_a_single_independent_question_is_a_sentence(tmp_path: Path) -> None:
    def rows(wins: int) -> list[dict]:
        return [ranked_row(f"q{i}", 1 if i < wins else 6, ("gold",)) for i in range(20)]

    base = write_run(tmp_path / "base", {"test": rows(5)})
    write_run(tmp_path / "other", {"test": rows(12)}, {"trainer.learning_rate": 1.0})
    verdict, comparison = verdict_of(tmp_path, base)
    assert verdict.questions.clusters == 1
    assert any("a single independent question says nothing of others" in note for note in comparison.grid().notes)


def test_the_order_in_which_runs_are_named_changes_nothing(tmp_path: Path) -> None:
    """Two runs of one configuration, one beside it: table, baseline and difference are the same both ways."""
    paths = [
        write_run(tmp_path / "a", {"test": rows_with(0.4)}),
        write_run(tmp_path / "b", {"test": rows_with(0.5, seed=1)}),
        write_run(tmp_path / "c", {"test": rows_with(0.6, seed=2)}, {"trainer.learning_rate": 1.0}),
    ]
    for named in paths[:2]:
        seen = []
        for order in (paths, paths[::-1]):
            comparison = judge(RunTable(load_runs(order), "recall@1"), named)
            seen.append([(v.candidate.name, v.baseline_mean, v.candidate_mean) for v in comparison.verdicts])
            assert [run.path for run in comparison.baseline.counted] == [named]  # the run that was named, and no twin
        assert seen[0] == seen[1]
