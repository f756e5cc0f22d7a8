"""Where a gain comes from, on questions made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_experiments.comparison.analysis import causes
from rag_experiments.comparison.analysis.matrix import retriever_by_reader
from rag_experiments.comparison.analysis.table import RunTable
from rag_experiments.comparison.records.run_records import load_runs
from tests.comparison.conftest import ranked_row, write_run

K = 4


def answered(key: str, rank: int, right: bool, **more: Any) -> dict[str, Any]:
    row = ranked_row(key, rank, (f"gold-{key}",), answer="yes" if right else "no", **more)
    row["metrics"] |= {"exact_match": float(right), "f1": 1.0 if right else 0.3}
    return row


@pytest.mark.parametrize(
    ("row", "judge", "expected"),
    [
        (answered("q", 2, True), "exact_match", causes.RIGHT),
        (answered("q", 2, False), "exact_match", causes.READER_MISS),
        (answered("q", 6, False), "exact_match", causes.RETRIEVER_MISS),  # found, but deeper than the reader reads
        (answered("q", 6, True), "exact_match", causes.IN_SPITE),
        (answered("q", 6, True, given_ids=["gold-q"]), "exact_match", causes.RIGHT),
        (answered("q", 1, True, given_ids=["other"]), "exact_match", causes.IN_SPITE),
        (answered("q", 2, False), "f1", causes.READER_MISS),
        (ranked_row("q", 2), None, causes.FOUND),
        (ranked_row("q", 0), None, causes.RETRIEVER_MISS),
        (ranked_row("q", 1) | {"gold_ids": []}, None, None),
    ],
)
def test_cause(row: dict[str, Any], judge: str | None, expected: str | None) -> None:
    assert causes.cause(row, K, judge) == expected


def test_wins_moves_and_shares(tmp_path: Path) -> None:
    before = [answered("1", 6, False), answered("2", 2, False), answered("3", 1, True), answered("4", 1, True)]
    after = [answered("1", 1, True), answered("2", 2, True), answered("3", 1, False), answered("4", 1, True)]
    write_run(tmp_path / "a", {"test": before})
    write_run(tmp_path / "b", {"test": after}, {"trainer.learning_rate": 1.0})
    table = RunTable(load_runs([tmp_path]), "exact_match")
    first = next(group for group in table.groups if group.name == "a")
    second = next(group for group in table.groups if group.name == "b")
    found = causes.outcomes(first, second, "test/exact_match")
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert [key for key, _ in found.questions] == ["1", "2", "3", "4"]
    judge = causes.judged_by([*first.counted, *second.counted], "test")
    assert judge == "exact_match"
    moved = causes.moves(first, second, "test", judge)
    assert moved[causes.RETRIEVER_MISS, causes.RIGHT] == 1  # the gain that the retriever brought
    assert moved[causes.READER_MISS, causes.RIGHT] == 1  # and the reader's
    assert moved[causes.RIGHT, causes.READER_MISS] == 1
    assert causes.shares(second, "test", judge) == {causes.RIGHT: 0.75, causes.READER_MISS: 0.25}


def test_long_answers_are_judged_by_f1_and_it_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"test": [answered("1", 1, False)]})
    table = RunTable(load_runs([tmp_path]), "f1")
    judge = causes.judged_by(table.groups[0].counted, "test")
    assert judge == "f1"
    assert "F1 of at least 0.5" in causes.causes_grid(table.groups, "test", judge).notes[0]


def test_losing_seconds_is_winning(tmp_path: Path) -> None:
    def rows(seconds: float) -> list[dict[str, Any]]:
        row = ranked_row("1", 1)
        row["metrics"]["seconds/generation"] = seconds
        return [row]

    write_run(tmp_path / "a", {"test": rows(2.0)})
    write_run(tmp_path / "b", {"test": rows(1.0)}, {"trainer.learning_rate": 1.0})
    table = RunTable(load_runs([tmp_path]), "test/seconds/generation")
    fast, slow = table.groups
    assert causes.outcomes(slow, fast, "test/seconds/generation").wins == 1


def test_retriever_by_reader(tmp_path: Path) -> None:
    for retriever in ("bm25", "faiss"):
        for reader in ("sft", "fid"):
            changes = {"retriever.type": retriever, "algorithm.name": reader, "model.kind": "decoder"}
            write_run(tmp_path / f"{retriever}-{reader}", {"test": [answered("1", 1, reader == "fid")]}, changes)
    table = RunTable(load_runs([tmp_path]), "exact_match")
    matrix = retriever_by_reader(table, table.sections[0])
    assert len(matrix.rows) == len(matrix.columns) == 2
    fid = next(i for i, name in enumerate(matrix.columns) if name.startswith("fid"))
    assert [row[fid].mean for row in matrix.cells] == [1.0, 1.0]
    only = RunTable([run for run in table.runs if "bm25" in run.name], "exact_match")
    assert retriever_by_reader(only, only.sections[0]) is None


def test_one_retriever_at_two_depths_is_two_rows(tmp_path: Path) -> None:
    for depth in (1, 4):
        for reader in ("sft", "fid"):
            changes = {"retriever.k": depth, "algorithm.name": reader, "model.kind": "decoder"}
            write_run(tmp_path / f"{depth}-{reader}", {"test": [answered("1", 1, depth == 4)]}, changes)
    table = RunTable(load_runs([tmp_path]), "exact_match")
    matrix = retriever_by_reader(table, table.sections[0])
    assert matrix is not None
    rows = zip(matrix.rows, matrix.cells, strict=True)
    found = {name.rpartition(" ")[2]: [cell.mean for cell in row if cell] for name, row in rows}
    assert found == {"k=1": [0.0, 0.0], "k=4": [1.0, 1.0]}
