"""The index of a predictions file: what is kept, what is read, what is forgotten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.dashboard.shared import predictions
from rag_experiments.dashboard.shared.predictions import index_of, read_index, stages_of
from rag_experiments.dashboard.shared.watch import Run


def run_at(path: Path) -> Run:
    return Run(path, path.name, "completed", {}, {}, {}, {}, {}, key=path.name)


def row(key: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "question": f"What is {key}?", "metrics": {"f1": 1}} | more


def write(path: Path, *rows: dict[str, Any], stage: str = "test") -> Path:
    file = path / "predictions" / f"{stage}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    predictions._indices.clear()


def test_an_entry_holds_what_a_page_looks_at(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        row(1, answer="The RIVER", references=["Red", 5], metrics={"f1": 1, "x": None, "y": "text"}),
        row("ü", answer=None, references=None, metrics=None),
    )
    index = read_index(file)
    first, second = index.entries.values()
    assert list(index.entries) == ["1", "ü"]
    assert (first.id, first.question, first.searched) == ("1", "What is 1?", "what is 1? the river red 5")
    assert first.metrics == {"f1": 1.0}
    assert (second.searched, second.metrics) == ("what is ü? ", {})
    assert (index.path, index.broken) == (file, 0)
    assert [entry.start for entry in index.entries.values()] == [0, file.read_bytes().index(b"\n") + 1]


def test_rows_are_read_where_the_index_says(tmp_path: Path) -> None:
    rows = [row("ä", answer="é" * 9), row("b"), row("c")]
    index = read_index(write(tmp_path, *rows))
    assert index.rows(["c", "gone", "ä"]) == {"c": rows[2], "ä": rows[0]}
    assert index.rows([]) == {}


def test_an_index_is_kept_until_its_file_changes(tmp_path: Path) -> None:
    run, file = run_at(tmp_path), write(tmp_path, row("a"))
    first = index_of(run, "test")
    assert first is not None
    assert index_of(run, "test") is first
    found = file.stat()
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert index_of(run, "test") is not first
    second = index_of(run, "test")
    fresh = write(tmp_path, row("b"), stage="fresh")
    os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    os.replace(fresh, file)
    assert list(index_of(run, "test").entries) == ["b"], "another file of the same time"
    assert second is not None
    assert list(second.entries) == ["a"]
    assert index_of(run, "dev") is None


def test_the_index_that_nobody_looked_at_longest_is_forgotten_first(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    for number in range(predictions.KEPT):
        write(tmp_path, row(number), stage=f"s{number}")
    kept = [index_of(run, f"s{number}") for number in range(predictions.KEPT)]
    assert index_of(run, "s0") is kept[0]
    write(tmp_path, row("new"))
    index_of(run, "test")
    assert len(predictions._indices) == predictions.KEPT
    assert index_of(run, "s0") is kept[0]
    assert index_of(run, "s1") is not kept[1]


def test_stages_are_the_final_ones_first(tmp_path: Path) -> None:
    for stage in ("zero_shot/dev", "another", "dev", "zero_shot/test", "a/b", "test", ".test", "zero_shot/.dev"):
        write(tmp_path, row("q"), stage=stage)
    (tmp_path / "predictions" / "notes.txt").write_text("")
    assert stages_of(run_at(tmp_path)) == ["test", "dev", "zero_shot/test", "zero_shot/dev", "a/b", "another"]
    assert stages_of(run_at(tmp_path / "gone")) == []
