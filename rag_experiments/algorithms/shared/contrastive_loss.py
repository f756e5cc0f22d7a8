"""The loss over a question's positive and all other passages of a batch, and which of them count for which question."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def ctl_loss(
    scores_BP: torch.Tensor,
    target_B: torch.Tensor,
    excluded_BP: torch.Tensor,
    temperature: float,
    weight_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross-entropy of each question's target among the passages that are not excluded.

    Args:
        scores_BP: s(q_i, p_j).
        target_B: column of each question's own positive.
        excluded_BP: True where p_j is another known positive of q_i. The target may be marked: it stays.
        temperature: τ.
        weight_B: factor of each question's loss; None: 1.
    """
    logits_BP = masked_scores(scores_BP / temperature, target_B, excluded_BP)
    if weight_B is None:
        return F.cross_entropy(logits_BP, target_B)
    return (weight_B * F.cross_entropy(logits_BP, target_B, reduction="none")).mean()


def masked_scores(scores_BP: torch.Tensor, target_B: torch.Tensor, excluded_BP: torch.Tensor) -> torch.Tensor:
    """`scores_BP` with minus infinity where excluded, the targets kept."""
    keep_target_BP = F.one_hot(target_B, scores_BP.shape[1]).bool()
    return scores_BP.masked_fill(excluded_BP & ~keep_target_BP, float("-inf"))


def known_positives(passage_rows_P: torch.Tensor, positive_rows_BM: torch.Tensor) -> torch.Tensor:
    """`[B, P]`, True where passage j is one of question i's positives; rows of -1 are padding."""
    return (positive_rows_BM[:, :, None] == passage_rows_P[None, None, :]).any(dim=1)


def repeats(passage_rows_P: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
    """`[B, P]`, True where passage j counts in another column already: an earlier one, or the question's target."""
    place_P = torch.arange(len(passage_rows_P), device=passage_rows_P.device)
    _, number_P = torch.unique(passage_rows_P, return_inverse=True)
    first_P = torch.full_like(place_P, len(place_P)).scatter_reduce(0, number_P, place_P, "amin")[number_P]
    own_BP = passage_rows_P[None, :] == passage_rows_P[target_B][:, None]
    return (first_P != place_P)[None, :] | (own_BP & (place_P[None, :] != target_B[:, None]))
