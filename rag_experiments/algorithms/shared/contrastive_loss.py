"""The loss over a question's positive and all other passages of a batch, and which of them count for which question."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rag_experiments.algorithms.shared.multiple_positives import Form, multi_positive_loss


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


@dataclass(frozen=True)
class BatchLabels:
    """Which passages of the batch, of every process, are whose positives. Columns are passages."""

    target_B: torch.Tensor
    known_BP: torch.Tensor
    """True for the known positives of a question, and for what a guide says is no negative; with `multi` the former are
    its positives in the loss and not here."""
    repeated_BP: torch.Tensor
    """True for columns that count elsewhere: several processes may have drawn one passage."""
    grades_BP: torch.Tensor | None
    """With `multi`, the grade of each passage as a positive, 0 where it is none."""
    weight_B: torch.Tensor | None
    """With `pairs`, the weight of each example."""

    def positives(self) -> torch.Tensor:
        """`[B, P]`, True at the positives that are shown: each question's target or, with `multi`, all of its own."""
        if self.grades_BP is not None:
            return self.grades_BP > 0
        return F.one_hot(self.target_B, self.known_BP.shape[1]).bool()

    def negatives(self) -> torch.Tensor:
        """`[B, P]`, True at the passages that a question is contrasted with."""
        return ~(self.known_BP | self.repeated_BP | self.positives())

    def shown_positives(self) -> torch.Tensor:
        """`[C]`, the columns from which questions are told apart: the targets or, with `multi`, each positive once."""
        if self.grades_BP is None:
            return self.target_B
        return (self.positives() & ~self.repeated_BP).any(dim=0).nonzero().flatten()


@dataclass(frozen=True)
class Asking:
    """The questions of every process, and what each of them knows."""

    queries_QD: torch.Tensor
    known_QP: torch.Tensor
    grades_QP: torch.Tensor | None
    offset: int
    """Where this process's own begin."""


def contrastive_loss(scores_BP: torch.Tensor, labels: BatchLabels, temperature: float, form: Form) -> torch.Tensor:
    """`ctl_loss`, or with several positives a question `multi_positive_loss`."""
    excluded_BP = labels.known_BP | labels.repeated_BP
    if labels.grades_BP is not None:
        return multi_positive_loss(scores_BP, labels.grades_BP, excluded_BP, temperature, form)
    return ctl_loss(scores_BP, labels.target_B, excluded_BP, temperature, labels.weight_B)


def loss_from_passages(
    scores_CQ: torch.Tensor,
    columns_C: torch.Tensor,
    labels: BatchLabels,
    asking: Asking,
    temperature: float,
    form: Form,
) -> torch.Tensor:
    """The same from the passages `columns_C` back to all questions, less those that a passage is no negative of."""
    excluded_CQ = asking.known_QP[:, columns_C].T
    if asking.grades_QP is not None:
        return multi_positive_loss(scores_CQ, asking.grades_QP[:, columns_C].T, excluded_CQ, temperature, form)
    own_B = torch.arange(len(columns_C), device=columns_C.device) + asking.offset
    return ctl_loss(scores_CQ, own_B, excluded_CQ, temperature, labels.weight_B)
