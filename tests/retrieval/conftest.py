"""Fixtures of the retrieval tests."""

from __future__ import annotations

import pytest

from tests.retrieval.fakes import ListPassages, WordEncoder


@pytest.fixture
def passages() -> ListPassages:
    """Sixty passages: each has a word of its own, and shares others."""
    nouns = ["river", "stone", "bird", "tree", "house", "fox"]
    return ListPassages([f"{nouns[i % 6]} item{i} " + "filler " * (i % 4) for i in range(60)])


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()
