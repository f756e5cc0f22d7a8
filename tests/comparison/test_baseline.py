"""Which runs a baseline names, what is compared with it, and what must be said with the verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.comparison.analysis.table import Group, RunTable
from rag_experiments.comparison.analysis.verdict import compare_groups, find_baseline, incomplete, judge
from rag_experiments.comparison.records.run_records import load_runs
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import ranked_row, rows_with, write_run

RATE = "trainer.learning_rate"


def table_of(root: Path, metric: str | None = "recall@1") -> RunTable:
    return RunTable(load_runs([root]), metric)


def test_a_folder_of_seeds_is_a_baseline_and_its_neighbour_of_like_name_is_not_in_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "lr" / f"s{seed}", {"test": rows_with(0.5)}, {"seed": seed})
        write_run(tmp_path / "lr2" / f"s{seed}", {"test": rows_with(0.5)}, {"seed": seed, RATE: 1.0})
    table = table_of(tmp_path)
    section, group = find_baseline(table, tmp_path / "lr")
    assert section is table.sections[0]
    assert sorted(run.name for run in group.runs) == ["lr/s0", "lr/s1"]
    assert find_baseline(table, str(tmp_path / "lr2" / "s1"))[1] is not group
    (tmp_path / "link").symlink_to(tmp_path / "lr")
    assert find_baseline(table, tmp_path / "link")[1] is group
    with pytest.raises(RequestError, match="holds 2 different configs; name one run, such as lr/s0"):
        find_baseline(table, tmp_path)


def test_a_run_named_as_baseline_is_itself_not_the_evaluations_in_it(tmp_path: Path) -> None:
    base = write_run(tmp_path / "run", {"test": rows_with(0.4)})
    write_run(base / "evaluations" / "bm25", {"test": rows_with(0.8)}, {"retriever.type": "bm25"})
    assert [run.path for run in find_baseline(table_of(tmp_path), base)[1].runs] == [base]


def test_every_candidate_and_metric_in_the_order_of_the_table(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.5)})
    for name, share in (("c1", 0.6), ("c2", 0.7)):
        write_run(tmp_path / name, {"test": rows_with(share)}, {RATE: share})
    table = table_of(tmp_path)
    found = judge(table, base)
    assert [(v.candidate.name, v.metric) for v in found.verdicts] == [("c2", "test/recall@1"), ("c1", "test/recall@1")]
    assert found.baseline.name == "base"
    both = judge(table, base, ["test/recall@1", "test/recall@4"]).verdicts
    assert [v.metric for v in both] == ["test/recall@1", "test/recall@4"] * 2
    assert [v.candidate_mean for v in both[:2]] == [0.7, pytest.approx(0.7)]
    assert {v.baseline_mean for v in both} == {0.5}


def test_a_metric_that_one_side_lacks_is_no_verdict_and_is_said(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.5)}, figures={"seconds/train": 1.0})
    write_run(tmp_path / "a", {"test": rows_with(0.5)}, {RATE: 1.0})
    write_run(tmp_path / "b", {"test": rows_with(0.5)}, {RATE: 2.0}, figures={"seconds/train": 2.0})
    table = table_of(tmp_path)
    comparison = judge(table, base, ["seconds/train"])
    assert [v.candidate.name for v in comparison.verdicts] == ["b"]
    assert "NOT COMPARED: a have no such figure." in comparison.notes
    assert not any("no such figure" in note for note in judge(table, base).notes)
    by_name = {group.name: group for group in table.groups}
    assert compare_groups(by_name["a"], by_name["b"], "seconds/train") is None
    assert compare_groups(by_name["b"], by_name["a"], "seconds/train") is None


def test_runs_without_figures_cannot_be_judged(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {})
    write_run(tmp_path / "b", {}, {RATE: 1.0})
    with pytest.raises(RequestError, match="the finished runs have no figures"):
        judge(table_of(tmp_path, None), tmp_path / "a")


def test_a_metric_with_gaps_is_compared_over_the_questions_that_both_have(tmp_path: Path) -> None:
    before, after = rows_with(0.5, 30), rows_with(1.0, 30)
    for row in before[:10]:
        row["metrics"] = {}
    base = write_run(tmp_path / "base", {"test": before})
    write_run(tmp_path / "other", {"test": after}, {RATE: 1.0})
    (verdict,) = judge(table_of(tmp_path), base).verdicts
    assert verdict.questions.questions == 20


def test_a_figure_that_no_question_has_on_both_sides_is_judged_by_seeds(tmp_path: Path) -> None:
    before, after = rows_with(0.5, 4), rows_with(0.5, 4)
    before[0]["metrics"] = {"f1": 1.0}
    after[1]["metrics"] = {"f1": 0.0}
    base = write_run(tmp_path / "base", {"test": before})
    write_run(tmp_path / "other", {"test": after}, {RATE: 1.0})
    (verdict,) = judge(table_of(tmp_path, "f1"), base).verdicts
    assert verdict.questions is None
    assert verdict.difference == -1


def test_figures_that_do_not_follow_from_their_predictions_are_said_with_the_distance(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.4)})
    other = write_run(tmp_path / "other", {"test": rows_with(0.8)}, {RATE: 1.0})
    comparison = judge(table_of(tmp_path), base)
    assert not any("INCONSISTENT" in note for note in comparison.notes)
    file = other / "metrics.json"
    file.write_text(file.read_text().replace('recall@1": 0.8', 'recall@1": 0.7'))
    comparison = judge(table_of(tmp_path), base)
    assert comparison.verdicts[0].drift == pytest.approx(0.1)
    assert comparison.verdicts[0].questions.difference == pytest.approx(0.4)
    (note,) = [note for note in comparison.notes if "INCONSISTENT" in note]
    assert "another difference than their metrics.json, by 0.100" in note


def test_questions_that_one_side_alone_was_asked_are_no_inconsistency(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "s", {"test": [ranked_row(f"q{i}", 6 if i else 1) for i in range(4)]})
    write_run(tmp_path / "b" / "s", {"test": [ranked_row(f"q{i}", 1) for i in range(2)]})
    one, other = (Group(load_runs([tmp_path / name])) for name in "ab")
    verdict = compare_groups(one, other, "test/recall@1")
    assert verdict is not None
    assert (verdict.questions.questions, verdict.questions.difference) == (2, 0.5)
    assert verdict.difference == 0.75
    assert verdict.drift == 0
    elsewhere = write_run(tmp_path / "c" / "s", {"test": [ranked_row("x", 1)]})
    verdict = compare_groups(one, Group(load_runs([elsewhere])), "test/recall@1")
    assert verdict is not None
    assert verdict.questions is None
    assert verdict.drift == 0


def test_a_seed_without_the_figure_is_no_seed_of_it(tmp_path: Path) -> None:
    for name, rate in (("base", 1.0), ("other", 2.0)):
        for seed in range(3):
            figures = {"seconds/train": rate + seed} if (name, seed) != ("other", 2) else {}
            write_run(tmp_path / name / f"s{seed}", {}, {RATE: rate, "seed": seed}, figures=figures)
    (verdict,) = judge(table_of(tmp_path, "seconds/train"), tmp_path / "base").verdicts
    assert (verdict.seeds.candidate_seeds, verdict.seeds.baseline_seeds) == (2, 3)
    assert verdict.candidate_mean == 2.5


def test_what_is_compared_and_corrected_is_said(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", {"test": rows_with(0.5)})
    write_run(tmp_path / "c0", {"test": rows_with(0.6)}, {RATE: 1.0})
    write_run(tmp_path / "c1", {"test": rows_with(0.7)}, {RATE: 2.0})
    write_run(tmp_path / "failed", {}, {RATE: 3.0}, state="failed")
    write_run(tmp_path / "else", {"test": rows_with(0.7, questions=20)}, {RATE: 4.0})
    notes = judge(table_of(tmp_path), base).notes
    assert notes[0].startswith("Over 100 questions in 100 clusters that share no gold passage.")
    assert notes[1].endswith("Holm-corrected over all 2 tests shown.")
    assert notes[2:] == [
        "NOT COMPARED: 1 groups with other questions or another corpus than the baseline.",
        "NOT COMPARED: 1 groups without a completed run: the sweep is incomplete.",
    ]
    assert judge(table_of(tmp_path), tmp_path / "else").notes[:1] == [
        "NOT COMPARED: 3 groups with other questions or another corpus than the baseline."
    ]


def group(root: Path, *seeds: int, state: str = "completed", label: str = "") -> Group:
    for seed in seeds:
        write_run(root / f"s{seed}", {"test": [ranked_row("q", 1)]}, {"seed": seed}, state=state)
    return Group(load_runs([root]) if seeds else [], label)


def test_what_is_missing_from_two_groups(tmp_path: Path) -> None:
    whole, same = group(tmp_path / "a", 0, 1, label="whole"), group(tmp_path / "b", 1, 0, label="same")
    assert incomplete(whole, same) == ""
    fewer = group(tmp_path / "c", 0, label="fewer")
    assert incomplete(whole, fewer) == "seeds 0 against 0, 1"
    assert incomplete(fewer, whole) == "seeds 0, 1 against 0"
    failed = group(tmp_path / "d", 0, 1, state="failed", label="failed one")
    assert incomplete(whole, failed) == "failed one: failed"
    assert incomplete(failed, failed) == "failed one: failed; failed one: failed"
