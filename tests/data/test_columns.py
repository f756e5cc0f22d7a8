"""Numbers on disk: what is appended is read back, and sorted as in memory."""

from __future__ import annotations

import numpy as np
import pytest

from rag_experiments.data import number_columns
from rag_experiments.data.number_columns import Column, repeats, sorted_runs


@pytest.mark.parametrize("size", [0, 1, 100, 5_000])
def test_sorting_on_disk_is_sorting_in_memory(size, tmp_path, monkeypatch):
    monkeypatch.setattr(number_columns, "BLOCK", 64)
    values = np.random.default_rng(0).integers(0, 2**64, size, dtype=np.uint64)
    values[size // 2 :] = values[: size - size // 2]  # every value, nearly, twice
    column = Column(tmp_path / "column")
    for value in values.tolist():
        column.append(value)
    stored = column.values()
    assert stored.tolist() == values.tolist()
    runs = list(sorted_runs(stored, tmp_path))
    assert size < 100 or len(runs) > 1
    order = np.argsort(values, kind="stable")
    assert np.concatenate([places for _, places in runs]).tolist() == order.tolist()
    assert np.concatenate([found for found, _ in runs]).tolist() == values[order].tolist()
    assert repeats(stored, tmp_path) == size - len(set(values.tolist()))
    column.remove()
    assert list(tmp_path.iterdir()) == []
    assert stored.tolist() == values.tolist(), "what was read outlives the file's name"


def test_more_can_be_appended_after_reading(tmp_path):
    column = Column(tmp_path / "column")
    column.append(1)
    assert column.values().tolist() == [1]
    column.append(2**64 - 1)
    assert column.values().tolist() == [1, 2**64 - 1]
