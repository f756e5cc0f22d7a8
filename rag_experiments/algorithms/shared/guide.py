"""An encoder that says which passages are no negatives of a question (Solatorio 2024, GISTEmbed).

It is frozen, so its vectors never change: those of the training questions and of the passages that training can show
are embedded once, kept in the cache with all other vectors, and a step looks them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rag_experiments.core.digest import digest
from rag_experiments.core.distributed import is_main_process
from rag_experiments.data.queries import query_parts
from rag_experiments.retrieval.embedding import embed_corpus

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore


class Guide:
    """Scores of training questions and passages, by a frozen encoder's own similarity."""

    def __init__(
        self,
        encoder: Any,
        queries: Sequence[str],
        passages: PassageStore,
        rows: Sequence[int] | None,
        margin: float,
        cache: Path | None,
    ) -> None:
        """Embeds what the cache does not hold. All processes of a run call this.

        Args:
            encoder: an `Encoder`; it is not kept.
            queries: of all training questions.
            rows: of the passages that training can show; None: all of the corpus.
            margin: how far below the question's positive a passage must be to be its negative.
        """
        bar = is_main_process()
        asking: Any = _AsPassages(encoder)
        texts: Any = _Texts(queries)
        self.margin = margin
        self.queries_QD = embed_corpus(asking, texts, cache, bar)
        self.rows = None if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
        shown: Any = passages if self.rows is None else _Part(passages, self.rows)
        self.passages_ND = embed_corpus(encoder, shown, cache, bar)

    def no_negatives(
        self, numbers: Sequence[int], passage_rows_P: torch.Tensor, positive_BP: torch.Tensor
    ) -> torch.Tensor:
        """`[B, P]`, True where guide(q_i, p_j) > guide(q_i, p_i) - margin and j is no positive of question i.

        Args:
            numbers: of the questions, B.
            passage_rows_P: rows of the corpus.
            positive_BP: True at the question's own positives, one at least; the lowest score of them counts.
        """
        queries_BD = np.asarray(self.queries_QD[list(numbers)])
        passages_PD = np.asarray(self.passages_ND[self._places(passage_rows_P.cpu().numpy())])
        scores_BP = torch.from_numpy(queries_BD @ passages_PD.T).to(positive_BP.device)
        lowest_B1 = scores_BP.masked_fill(~positive_BP, float("inf")).amin(dim=1, keepdim=True)
        return (scores_BP > lowest_B1 - self.margin) & ~positive_BP

    def _places(self, rows_P: np.ndarray) -> np.ndarray:
        return rows_P if self.rows is None else np.searchsorted(self.rows, rows_P)


class _Texts:
    """What `embed_corpus` asks of a corpus, over a list of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.content_hash = digest([query_parts(text) for text in texts])

    def __len__(self) -> int:
        return len(self.texts)

    def full_texts(self, rows: slice) -> list[str]:
        return list(self.texts[rows])


class _Part:
    """The same, over some rows of a corpus."""

    def __init__(self, passages: PassageStore, rows: np.ndarray) -> None:
        self.passages = passages
        self.rows = rows
        self.content_hash = digest(passages.content_hash, rows.tobytes())

    def __len__(self) -> int:
        return len(self.rows)

    def full_texts(self, rows: slice) -> list[str]:
        return self.passages.full_texts(self.rows[rows])


class _AsPassages:
    """An encoder of questions, for `embed_corpus`."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.dimension = encoder.dimension
        self.embed_passages = encoder.embed_queries

    def fingerprint(self) -> str:
        return digest("questions", self.encoder.fingerprint())
