"""Which passages may be negatives of a question. Imports no torch.

A passage with a gold one's text is gold, whatever its id; one that a scorer puts near or above the gold ones may be an
unlabelled gold one (Moreira et al. 2024, NV-Retriever; Qu et al. 2021, RocketQA).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from rag_experiments.core.text import identity

NEAR = 0.5
"""Of two texts one of which holds the other whole, how long the shorter must be beside the longer to be near-equal."""


def highest_score(gold_scores: Iterable[float], margin: float | None, margin_absolute: float | None) -> float:
    """The score above which a passage is dropped, from those of the gold passages, the lowest of which counts.

    Args:
        margin: m of s(q,p) - m·|s(q,p)|; None: not asked for.
        margin_absolute: m of s(q,p) - m; None: not asked for.
    """
    gold = float(min(gold_scores))
    limits = [gold - margin * abs(gold)] if margin is not None else []
    limits += [gold - margin_absolute] if margin_absolute is not None else []
    return min(limits, default=float("inf"))


def without_texts(
    rows: Sequence[int], full_texts: Callable[[Sequence[int]], list[str]], identities: Collection[str]
) -> list[int]:
    """`rows` without those whose text is, but for spelling and spaces, one of the texts behind `identities`."""
    return [row for row, text in zip(rows, full_texts(rows), strict=True) if identity(text) not in identities]


def near_equal(one: str, other: str) -> bool:
    """Whether one of two runs of tokens (`core.text.run_of`) holds the other whole and is not much longer."""
    shorter, longer = sorted((one, other), key=len)
    return shorter in longer and len(shorter) >= NEAR * len(longer)
