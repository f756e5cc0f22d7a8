"""Fixtures of the data tests: folders in the native format, written for the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from rag_experiments.data.builder import Intake


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSON lines; a string is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def native(tmp_path: Path) -> Callable[..., Path]:
    """Writes a native data set; keyword arguments replace a file's rows, None leaves the file out."""

    def make(**files: list[Any] | None) -> Path:
        folder = tmp_path / "native"
        passages = [{"id": f"p{n}", "title": f"Title {n}", "text": f"This is text {n}."} for n in range(12)]
        questions = [
            {"id": f"q{n}", "question": f"What is {n}?", "answers": [f"text {n}"], "positive_ids": [f"p{n}"]}
            for n in range(12)
        ]
        given = {"passages": passages, "train": questions[:8], "dev": questions[8:10], "test": questions[10:]}
        for name, rows in {**given, **files}.items():
            if rows is not None:
                write_jsonl(folder / f"{name}.jsonl", rows)
        return folder

    return make


@pytest.fixture
def collecting(tmp_path: Path) -> Intake:
    """An intake that collects problems."""
    folder = tmp_path / "intake"
    folder.mkdir()
    return Intake(folder, collect=True)
