"""An encoder that looks a text up in a table, in float64: what a batch costs is then the loss's own arithmetic."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class TableEncoder(nn.Module):
    """A text is a number, written `7` or `7 7 7`: its vector is row 7, however long it is written.

    Queries look in one table and passages in another (their numbers start at `SHIFT`).
    """

    SHIFT = 100

    def __init__(self, queries: int = 20, passages: int = 20, width: int = 6, similarity: str = "cosine"):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        table = torch.zeros(self.SHIFT + passages, width, dtype=torch.float64)
        table[:queries] = torch.randn(queries, width, generator=draw, dtype=torch.float64)
        table[self.SHIFT :] = torch.randn(passages, width, generator=draw, dtype=torch.float64)
        self.table = nn.Parameter(table)
        self.config = SimpleNamespace(similarity=similarity)
        self.device = torch.device("cpu")
        self.sizes: list[int] = []
        """Texts of each forward."""

    def tokenize_queries(self, texts) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]

    def tokenize_passages(self, texts) -> list[list[int]]:
        return [[int(word) + self.SHIFT for word in text.split()] for text in texts]

    def pad(self, ids) -> dict[str, Tensor]:
        longest = max(map(len, ids))
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        return {
            "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids]),
            "attention_mask": mask,
        }

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.sizes.append(len(input_ids))
        vectors = self.table[input_ids[:, 0]]
        return nn.functional.normalize(vectors, dim=-1) if self.config.similarity == "cosine" else vectors

    def similarity(self, queries_QD: Tensor, passages_PD: Tensor) -> Tensor:
        return queries_QD @ passages_PD.T
