"""Importance against known shares and a known library."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rag_experiments.dashboard.importance import epsilon_squared, importances, is_logarithmic, levels, spearman


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


def test_spearman_is_scipys() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.integers(0, 5, 40).astype(float), draw.normal(size=40)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman(np.ones(3), np.arange(3.0)) is None


def test_powers_are_recognised() -> None:
    assert is_logarithmic(np.array([1e-5, 1e-4, 1e-3]))
    assert not is_logarithmic(np.array([16.0, 32.0, 64.0]))
    assert not is_logarithmic(np.array([0.0, 1.0, 100.0]))
