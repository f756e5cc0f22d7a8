"""The filter box."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_experiments.dashboard.filter import parse_filter
from rag_experiments.dashboard.watch import Watch


@pytest.fixture(scope="module")
def runs(sweep: Path):
    return list(Watch([sweep / "runs"], sweep / "cache").look().values())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 25),
        ("rpg", 12),
        ("RPG batch=16", 25),  # an equals sign makes it a condition, and this is none: everything stays
        ("sweep minilm", 24),
        ("algorithm=ctl and learning_rate<1e-4", 9),
        ("state=running", 1),
        ("test/recall@1>0 and seed=1", 11),
        ("per_device_train_batch_size in [32]", 12),
        ("nothing such", 0),
    ],
)
def test_words_and_conditions(runs, text: str, count: int) -> None:
    keep, _ = parse_filter(text, runs)
    assert sum(map(keep, runs)) == count


@pytest.mark.parametrize("text", ["learning_rat<1", "seed=", "((seed=1", "__import__('os').system('x')=1"])
def test_what_cannot_be_read_is_said_and_filters_nothing(runs, text: str) -> None:
    keep, problem = parse_filter(text, runs)
    assert problem
    assert not problem.startswith("--where")
    assert all(map(keep, runs))
