"""What every retriever does: search, follow its encoder's weights, say what it is, and write itself down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The best passages for each question, best first. Row -1 (score -inf): there were fewer than `k`."""

    rows_QK: np.ndarray
    """int64 `[Q, K]`: rows of the passage store."""
    scores_QK: np.ndarray
    """float32 `[Q, K]`: similarity, BM25 score or fused score, higher is better."""


class Retriever(ABC):
    """Finds passages for questions."""

    passages: PassageStore

    @property
    def encoder_behind(self) -> Any:
        """The encoder whose vectors are searched; None where words decide."""
        return getattr(self, "encoder", None)

    @abstractmethod
    def search(self, queries: Sequence[str], k: int) -> SearchResult:
        """The `min(k, len(passages))` best passages for each query."""

    def refresh(self, persist: bool = False) -> None:  # noqa: B027 - nothing to do where no weights are involved
        """Take up the encoder's current weights: embed the corpus again and rebuild the index.

        `persist` keeps the vectors in the disk cache: right for weights that are final, wasteful for those
        that the next step changes.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of everything that decides what `search` returns."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index into `folder`, in its library's own format."""


def best_rows(scores_N: np.ndarray, k: int) -> np.ndarray:
    """Rows of the `k` highest scores, best first; of equal ones the lower row, inside the list and at its end.

    Every retriever breaks ties so: the same passages are found on every machine, whatever selects them.
    """
    k = min(k, len(scores_N))
    if k < len(scores_N):
        least = np.partition(scores_N, -k)[-k]
        rows = np.concatenate([np.flatnonzero(scores_N > least), np.flatnonzero(scores_N == least)])
        rows = rows[:k]
    else:
        rows = np.arange(k)
    return rows[np.lexsort((rows, -scores_N[rows]))]


def empty_result(queries: int, k: int) -> SearchResult:
    """Nothing found: every row -1, every score -inf."""
    return SearchResult(np.full((queries, k), -1, dtype=np.int64), np.full((queries, k), -np.inf, dtype=np.float32))
