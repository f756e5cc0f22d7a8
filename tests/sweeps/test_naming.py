"""Names of jobs' folders."""

from __future__ import annotations

import pytest

from rag_experiments.sweeps.naming import job_label

PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@pytest.mark.parametrize(
    ("overrides", "swept", "label"),
    [
        (["algorithm=ctl", "trainer.lr=1e-5", "seed=0"], {"trainer.lr", "seed"}, "lr-1e-5_seed-0"),
        (["k=-1"], {"k"}, "k--1"),
        (["algorithm=ctl", "name=x"], {"algorithm"}, "algorithm-ctl"),
        (["model@algorithm.teacher=smollm2_135m", "seed=1"], {"model@algorithm.teacher"}, "teacher-smollm2_135m"),
        (["+a.path=x", "b.path=y"], {"a.path", "b.path"}, "a.path-x_b.path-y"),
        (["seed=0"], set(), "single"),
        (["x='a b/c'"], {"x"}, "x-a-b-c"),
    ],
)
def test_labels_say_what_differs(overrides, swept, label):
    assert job_label(overrides, swept) == label


def test_a_label_does_not_depend_on_the_other_values_of_the_sweep():
    assert job_label(["a=1", "b=2"], {"a"}) == job_label(["a=1", "b=3"], {"a"})


def test_long_values_are_cut_and_told_apart():
    labels = {job_label([f"data.path=/{'x' * 300}/{number}", "seed=0"], {"data.path", "seed"}) for number in range(3)}
    assert len(labels) == 3
    assert all(len(label) <= 120 and set(label) <= PLAIN and label.endswith("seed-0") for label in labels)
