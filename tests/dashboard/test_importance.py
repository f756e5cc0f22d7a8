"""Importance against known shares and a known library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rag_experiments.dashboard.shared.importance import (
    as_numbers,
    epsilon_squared,
    importances,
    is_logarithmic,
    levels,
    spearman,
)


def test_the_share_is_the_one_that_was_built_in() -> None:
    draw = np.random.default_rng(0)
    groups = np.arange(4000) % 4
    figures = np.array([0.0, 1.0, 2.0, 3.0])[groups] + draw.normal(0, 1, 4000)  # variance 1.25 between, 1 within
    assert epsilon_squared(groups, figures) == pytest.approx(1.25 / 2.25, abs=0.02)


def test_the_share_follows_from_scipys_f() -> None:
    draw = np.random.default_rng(1)
    parts = [draw.normal(mean, 1, 20) for mean in (0, 0.3, 1)]
    f = stats.f_oneway(*parts).statistic
    share = (f - 1) * 2 / (f * 2 + 57)  # ε² in terms of F with 2 and 57 degrees of freedom
    assert epsilon_squared(np.repeat([0, 1, 2], 20), np.concatenate(parts)) == pytest.approx(share)


def test_many_levels_explain_nothing_by_their_number() -> None:
    draw = np.random.default_rng(2)
    shares = [epsilon_squared(np.arange(60) % 20, draw.normal(size=60)) for _ in range(200)]
    assert np.mean(shares) < 0.06  # η² would be 19/59 = 0.32


def test_edges() -> None:
    assert epsilon_squared(np.zeros(5), np.arange(5.0)) == 0.0
    assert epsilon_squared(np.arange(5), np.arange(5.0)) == 0.0
    assert epsilon_squared(np.array([0, 0, 1, 1]), np.ones(4)) == 0.0
    assert epsilon_squared(np.array([0, 0, 1, 1]), np.array([1.0, 1, 2, 2])) == 1.0


def test_many_numbers_are_cut_into_quantiles_and_few_are_not() -> None:
    assert len(set(levels([float(i) for i in range(100)]).tolist())) == 5
    assert len(set(levels([1e-5, 2e-5, 1e-5, 3e-5]).tolist())) == 3
    assert len(set(levels(["a", None, "a", True]).tolist())) == 3


def test_the_most_important_comes_first_with_its_direction() -> None:
    rates = [1e-5, 1e-4, 1e-3] * 10
    found = importances({"seed": [0, 1] * 15, "rate": rates, "kind": ["x", "y", "z"] * 10}, np.log10(rates))
    assert [item.key for item in found] == ["kind", "rate", "seed"]
    assert found[1].share == pytest.approx(1.0)
    assert found[1].direction == pytest.approx(1.0)
    assert found[0].direction is None


def test_a_share_is_never_below_nothing_and_a_falling_figure_has_a_negative_direction() -> None:
    assert epsilon_squared(np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 1.0, 2.0])) == 0.0
    (found,) = importances({"rate": [1, 2, 3, 1, 2, 3]}, [3.0, 2.0, 1.0, 3.1, 2.1, 1.1])
    assert found.direction == pytest.approx(
        stats.spearmanr([1, 2, 3, 1, 2, 3], [3.0, 2.0, 1.0, 3.1, 2.1, 1.1]).statistic
    )
    assert found.direction < 0
    assert found.levels == 3


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=2, max_size=20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_share_from_a_plain_loop(runs) -> None:
    names, figures = zip(*runs, strict=True)
    groups = {name: [float(f) for n, f in runs if n == name] for name in names}
    mean = sum(figures) / len(figures)
    total = sum((f - mean) ** 2 for f in figures)
    within = sum((f - sum(g) / len(g)) ** 2 for g in groups.values() for f in g)
    expected = 0.0
    if 1 < len(groups) < len(runs) and total > 0:
        error = within / (len(runs) - len(groups))
        expected = min(1.0, max(0.0, (total - within - (len(groups) - 1) * error) / total))
    assert epsilon_squared(np.array(names), np.array(figures, dtype=float)) == pytest.approx(expected, abs=1e-9)


def test_as_many_numbers_as_there_may_be_levels_keep_their_own() -> None:
    eight, nine = [float(i) for i in range(8)] * 2, [float(i) for i in range(9)] * 2
    assert len(set(levels(eight).tolist())) == 8
    assert len(set(levels(nine).tolist())) == 5
    first, second = levels(nine)[:9].tolist(), levels(nine)[9:].tolist()
    assert first == second == sorted(first), "in the numbers' order"
    counts = np.bincount(levels([float(i) for i in range(100)]))
    assert counts.tolist() == [20] * 5
    assert levels(["x"] * 3 + ["y"]).tolist() == [0, 0, 0, 1]
    assert len(set(levels([1, "1", True, None]).tolist())) == 4, "what is written alike is not one value"


@pytest.mark.parametrize(
    ("values", "numbers"), [([1, 2.5], [1.0, 2.5]), ([1, True], None), ([1, None], None), (["1"], None)]
)
def test_only_numbers_are_numbers(values: list, numbers: list[float] | None) -> None:
    found = as_numbers(values)
    assert (None if found is None else found.tolist()) == numbers


def test_equal_shares_are_in_the_order_of_their_names() -> None:
    found = importances({"b": [0, 1] * 4, "a": [0, 1] * 4, "c": ["x"] * 8}, [1.0, 2.0] * 4)
    assert [item.key for item in found] == ["a", "b", "c"]
    assert (found[2].share, found[2].direction, found[2].levels) == (0.0, None, 1)


def test_spearman_is_scipys() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.integers(0, 5, 40).astype(float), draw.normal(size=40)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman(np.ones(3), np.arange(3.0)) is None
    assert spearman(np.arange(3.0), np.ones(3)) is None


def test_powers_are_recognised() -> None:
    assert is_logarithmic(np.array([1e-5, 1e-4, 1e-3]))
    assert not is_logarithmic(np.array([16.0, 32.0, 64.0]))
    assert not is_logarithmic(np.array([0.0, 1.0, 100.0]))
    assert is_logarithmic(np.array([15.0, 1.0]))
    assert not is_logarithmic(np.array([14.9, 1.0]))
    assert not is_logarithmic(np.array([-1.0, -100.0]))
    assert not is_logarithmic(np.array([]))


def test_the_larger_share_is_first_whatever_its_name() -> None:
    found = importances({"a": [0, 1] * 6, "z": [0, 0, 1, 1, 2, 2] * 2}, [1.0, 1.1, 2.0, 2.1, 3.0, 3.1] * 2)
    assert [item.key for item in found] == ["z", "a"]


def test_a_constant_has_no_rank_correlation_and_nothing_warns(recwarn: pytest.WarningsRecorder) -> None:
    for one, other in ((np.ones(3), np.arange(3.0)), (np.arange(3.0), np.ones(3)), (np.ones(3), np.ones(3))):
        assert spearman(one, other) is None
    assert not recwarn.list


def test_a_text_has_no_direction() -> None:
    (found,) = importances({"kind": ["x", "y", "z", "x"]}, [1.0, 2.0, 3.0, 1.5])
    assert found.direction is None
