"""Groups of seeds, sections of runs that may be compared, and the order they stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_experiments.comparison.analysis.table import Group, RunTable, Summary, notes, number, section_title
from rag_experiments.comparison.records.run_records import RunRecord, StageInfo, load_runs
from tests.comparison.conftest import rows_with, write_run


def made(
    name: str,
    seed: int | None = 0,
    state: str = "completed",
    rate: float = 1.0,
    digest: str | None = "q",
    figures: dict[str, float] | None = None,
    **status: Any,
) -> RunRecord:
    config: dict[str, Any] = {"seed": seed, "algorithm": {"name": "ctl"}, "trainer": {"learning_rate": rate}}
    stages = {"test": StageInfo(10, digest)} if digest else {}
    metrics = ({"test/f1": 0.5} if figures is None else figures) if state == "completed" else {}
    known = {"data_hash": "d", "corpus_hash": "c", "started": "2026-01-01"} | status
    return RunRecord(Path(name), name, state, known, config, metrics, stages, {})


def f1(value: float) -> dict[str, float]:
    return {"test/f1": value}


def test_a_groups_figure_is_the_mean_over_its_seeds_with_the_samples_deviation() -> None:
    group = Group([made("a", 0, figures=f1(0.1)), made("b", 1, figures=f1(0.2)), made("c", 2, figures=f1(0.6))])
    found = group.summary("test/f1")
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.3), 3)
    assert found.sd == pytest.approx(((0.2**2 + 0.1**2 + 0.3**2) / 2) ** 0.5)
    assert Group([made("a")]).summary("test/f1") == Summary(0.5, None, 1)
    assert group.summary("dev/f1") is None
    partly = Group([made("a", 0, figures=f1(0.1)), made("b", 1, figures={"x": 1.0})])
    assert partly.summary("test/f1") == Summary(0.1, None, 1)


def test_the_newest_completed_run_of_each_seed_counts_by_seed() -> None:
    runs = [
        made("new", 1, started="2026-01-03"),
        made("old", 1, started="2026-01-01"),
        made("failed", 1, state="failed", started="2026-01-09"),
        made("first", 0, started="2026-01-02"),
        made("without", None),
    ]
    group = Group(runs)
    assert [run.name for run in group.counted] == ["first", "new", "without"]
    assert group.seeds == [0, 1, None]
    assert group.repeated == 1
    assert Group(runs[2:3]).counted == []


def test_a_group_is_called_by_its_run_or_its_first_and_how_many_more() -> None:
    assert Group([made("only")]).name == "only"
    assert Group([made("b"), made("a"), made("c")]).name == "a (+2)"
    assert Group([made("a"), made("b")]).state == "completed"
    states = Group([made("a", state="failed"), made("b"), made("c")]).state
    assert states == "2 completed, 1 failed"
    assert Group([made("a", rate=3.0)]).value("trainer.learning_rate") == 3.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"), (-9.9994, "-9.999"), (10.0, "10.0"), (-10.04, "-10.0"), (999.94, "999.9"), (1000.0, "1000"),
        (float("nan"), "–"),
    ],
)  # fmt: skip
def test_as_many_decimals_as_can_be_used(value: float, text: str) -> None:
    assert number(value) == text


def test_a_summary_in_words() -> None:
    assert str(Summary(0.5, None, 1)) == "0.500"
    assert str(Summary(0.5, 0.0123, 4)) == "0.500 ± 0.012 (4)"


def test_groups_are_best_first_and_those_without_the_figure_last() -> None:
    runs = [
        made("low", rate=1.0, figures=f1(0.2) | {"seconds/train": 1.0}),
        made("none", rate=2.0, figures={"seconds/train": 9.0}),
        made("high", rate=3.0, figures=f1(0.8) | {"seconds/train": 5.0}),
    ]
    assert [g.name for g in RunTable(runs, "f1").groups] == ["high", "low", "none"]
    assert [g.name for g in RunTable(runs, "seconds/train").groups] == ["low", "high", "none"]


def test_seeds_are_one_row_or_a_row_each() -> None:
    runs = [made("a", 0), made("b", 1), made("c", 1, rate=2.0)]
    assert [[run.name for run in g.runs] for g in RunTable(runs, "f1").groups] == [["a", "b"], ["c"]]
    apart = RunTable(runs, "f1", grouped=False)
    assert [[run.name for run in g.runs] for g in apart.groups] == [["a"], ["b"], ["c"]]
    assert not any("seeds" in note for note in apart.notes)


@pytest.mark.parametrize(
    ("other", "sections"),
    [
        ({"digest": "other"}, 2),
        ({"corpus_hash": "other"}, 2),
        ({"data_hash": "other"}, 1),
        ({"digest": None}, 2),
        ({"state": "failed", "digest": None}, 1),
        ({"state": "failed", "digest": None, "data_hash": "other"}, 2),
        ({"state": "failed", "digest": None, "corpus_hash": "other"}, 2),
        ({"state": "failed", "digest": "other"}, 2),  # it did answer, and other questions
    ],
)
def test_a_section_is_the_same_questions_over_the_same_passages(other: dict[str, Any], sections: int) -> None:
    table = RunTable([made("a"), made("b", rate=2.0, **other)], "f1")
    assert len(table.sections) == sections
    assert sum(len(section.runs) for section in table.sections) == 2


def test_the_larger_section_comes_first() -> None:
    runs = [made("lone", digest="other"), made("a"), made("b", 1)]
    table = RunTable(runs, "f1")
    assert [len(section.runs) for section in table.sections] == [2, 1]
    assert table.sections[1].runs == [runs[0]]
    assert table.sections[0].key == ("c", "q")


def test_columns_are_those_asked_for_once_each() -> None:
    runs = [made("a", figures=f1(0.5) | {"test/recall@1": 0.5, "seconds/train": 1.0})]
    assert RunTable(runs, "f1", ["recall@1", "f1", "test/recall@1"]).metrics == ["test/recall@1", "test/f1"]
    assert RunTable(runs, "f1").metrics == ["test/f1", "test/recall@1", "seconds/train"]
    assert RunTable(runs).metric == "test/f1"


def test_a_label_stands_for_the_settings_or_else_the_name() -> None:
    table = RunTable([made("a", rate=1.0), made("b", rate=2.0)], "f1")
    assert {g.name: g.label for g in table.groups} == {"a": "learning_rate=1", "b": "learning_rate=2"}
    assert RunTable([made("a")], "f1").groups[0].label == "a"
    assert table.shown(table.groups[0], "trainer.learning_rate") == "1"


def test_a_section_is_titled_by_its_data_and_counts() -> None:
    run = made("a", data={"format": "jsonl", "path": "/data/x", "passages": 7})
    run.choices["data"] = "mine"
    assert (
        section_title([made("without", digest=None), run], "test") == "mine /data/x: 10 test questions over 7 passages"
    )
    bare = made("b", digest=None)
    assert section_title([bare], "test") == "unknown data"
    other = made("b", digest=None)
    other.config["data"] = {"path": "/from/config"}
    assert section_title([other], "test") == "unknown data /from/config"
    assert section_title([made("c", data={"format": "dpr", "passages": 0})], "dev") == "dpr: 0 passages"


def said(*runs: RunRecord, **options: Any) -> list[str]:
    return notes(RunTable(list(runs), "f1", **options))


def test_sets_of_questions_that_do_not_compare_are_counted_where_something_is_completed() -> None:
    note = "2 different sets of questions or passages: figures of different sections do not compare."
    assert said(made("a"), made("b", digest="other")) == [note]
    assert said(made("a"), made("b", digest="other", state="failed")) == [
        "Not completed, so without final figures: 1 failed."
    ]


def test_what_is_assumed_unfinished_repeated_or_of_other_data_is_said() -> None:
    assert said(made("a"), made("b", rate=2.0, data_hash="other"))[0].endswith(
        "same questions and passages, but the data differs elsewhere (training set?)."
    )
    assert said(made("a", digest=None)) == [
        "1 runs have no test predictions: that they share their questions is assumed."
    ]
    assert said(
        made("a"), made("b", 1, state="failed"), made("c", 2, state="interrupted"), made("d", 3, state="failed")
    ) == ["Not completed, so without final figures: 2 failed, 1 interrupted."]
    broken = made("b", rate=2.0, state="unreadable")
    broken.problem = "config.yaml cannot be read: why"
    assert said(made("a"), broken)[-1] == "b: config.yaml cannot be read: why."
    again = [made("a"), made("b", started="2026-02-01")]
    assert said(*again) == ["1 runs repeat the config and seed of a newer one and are not counted."]
    assert said(*again, grouped=False) == []


def test_unequal_numbers_of_seeds_and_versions_of_the_code_are_said() -> None:
    uneven = [made("a"), made("b", 1), made("c", rate=2.0), made("d", rate=3.0, state="failed")]
    assert "Incomplete: groups have between 1 and 2 finished seeds." in said(*uneven)
    assert said(made("a"), made("c", rate=2.0)) == []
    versions = [made("a", git_commit="x"), made("b", 1, git_commit="y"), made("c", 2, git_commit=None)]
    assert said(*versions) == ["The runs were made by 2 versions of the code (git_commit in status.json)."]
    assert said(versions[0], versions[2]) == [], "what is not known is no other version"
    assert said(versions[0], made("b", 1, state="failed", git_commit="y"))[0].startswith("Not completed")


def test_what_differs_together_with_another_key_is_named() -> None:
    runs = []
    for index in range(2):
        run = made(f"r{index}")
        run.config["model"] = {"path": f"m{index}"} | {f"k{i}": index for i in range(8)}
        runs.append(run)
    (note,) = said(*runs)
    assert note == (
        "Differ together with model.path: model.k0, model.k1, model.k2, model.k3, model.k4, model.k5 and 2 more."
    )
    del runs[1].config["model"]["k7"], runs[0].config["model"]["k6"]  # each of one option alone
    for run in runs:
        del run.flat
    (note,) = said(*runs)
    assert note.endswith("model.k4, model.k5.")


def test_encoders_and_readers_in_one_table_each_show_their_main_figure(tmp_path: Path) -> None:
    """Ranked by what all have; readers behind one retriever, whose recall is one, by their answers."""
    rows = rows_with(0.5)
    encoder = write_run(tmp_path / "encoder", {"test": rows_with(0.3)})
    for name, f1 in (("a", 0.2), ("b", 0.7), ("c", 0.4)):
        answered = [{**row, "metrics": {**row["metrics"], "f1": f1, "exact_match": f1 / 2}} for row in rows]
        write_run(tmp_path / name, {"test": answered}, {"algorithm.name": "sft", "trainer.learning_rate": f1})
    table = RunTable(load_runs([tmp_path]))
    assert table.metric == "test/recall@4"
    assert {"test/recall@4", "test/f1", "test/exact_match"} <= set(table.metrics or [])
    (section,) = table.sections
    assert [group.runs[0].path.name for group in section.groups] == ["b", "c", "a", encoder.name]
