"""Curves out of the lines of `metrics.jsonl`."""

from __future__ import annotations

from rag_experiments.comparison.records.history import is_number, points

LINES = [
    {"step": 0, "seconds": 1.0, "zero_shot/dev/f1": 0.2},
    {"step": 10, "epoch": 0.5, "seconds": 60.0, "dev/f1": 0.3},
    {"step": 5, "epoch": 0.25, "seconds": 30.0, "dev/f1": 0.25},
    {"step": 10, "epoch": 0.5, "seconds": 90.0, "dev/f1": 0.35},
    {"step": 20, "seconds": 120.0, "train/loss": float("nan")},
    {"step": 20, "seconds": 121.0, "train/runtime": 9.0, "train/loss": 1.5},
    {"step": 20, "seconds": 180.0, "dev/f1": 0.9, "test/f1": 0.8},
    {"dev/f1": 0.7},
    {"step": True, "dev/f1": 0.7},
]


def test_a_curve_is_what_was_measured_during_training_from_before_it_on_in_order() -> None:
    assert points(LINES, "dev/f1") == [(0, 0.2), (5, 0.25), (10, 0.35)]


def test_the_closing_line_itself_is_training() -> None:
    assert points(LINES, "train/loss") == [(20, 1.5)]


def test_what_was_measured_after_training_alone_is_shown_where_it_was() -> None:
    assert points(LINES, "test/f1") == [(20, 0.8)]
    assert points(LINES, "gone") == []


def test_seconds_are_shown_in_minutes_and_epochs_as_they_are() -> None:
    assert points(LINES, "dev/f1", "seconds") == [(1 / 60, 0.2), (0.5, 0.25), (1.0, 0.3), (1.5, 0.35)]
    assert points(LINES, "dev/f1", "epoch") == [(0.25, 0.25), (0.5, 0.35)]


def test_a_run_that_goes_on_has_no_end_yet() -> None:
    assert points(LINES[:4], "dev/f1") == [(0, 0.2), (5, 0.25), (10, 0.35)]
    resumed = [{"step": 1, "train/runtime": 1.0}, {"step": 2, "dev/f1": 0.1}, {"step": 3, "train/runtime": 2.0}]
    assert points(resumed, "dev/f1") == [(2, 0.1)], "the last closing line is the end"


def test_numbers() -> None:
    assert [is_number(value) for value in (1, 0.5, True, float("inf"), float("nan"), "1", None)] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip
