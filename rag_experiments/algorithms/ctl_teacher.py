r"""A cross-encoder that teaches CTL what a question's own passages are worth (Hofstätter et al. 2020).

Over the passages that an example shows with its question, s the encoder's similarity, c the teacher's logit:

    kl          KL( softmax(c/T_t) ‖ softmax(s/τ) )                        over its positives and hard negatives
    margin_mse  mean over positive p, negative n of ((s_p − s_n) − (c_p − c_n)/T_t)²

The mean is over a question's pairs, then over questions. The teacher's scores are data: they are prepared before the
first step and after each refresh, for the steps until the next, and kept on disk.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rag_experiments.algorithms.dca import dca_loss
from rag_experiments.algorithms.distillation import PrepareScores, coming_examples
from rag_experiments.algorithms.rerank import margin_mse_loss
from rag_experiments.algorithms.shared.pair_scoring import PairJudge

log = logging.getLogger(__name__)

TeacherLoss = Literal["kl", "margin_mse"]


def teacher_loss(
    student_BK: Tensor,
    teacher_BK: Tensor,
    positive_BK: Tensor,
    present_BK: Tensor,
    kind: TeacherLoss,
    temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """See the module's docstring; mean over B, 0 for a question that shows one passage.

    Args:
        student_BK: s(q, p_k).
        teacher_BK: c(q, p_k); no gradient reaches it.
        positive_BK: True at the positives that are shown.
        present_BK: False where there is no k-th passage.
        temperature: τ; `margin_mse` has none.
        teacher_temperature: T_t.
    """
    if kind == "kl":
        return dca_loss(student_BK, teacher_BK, temperature, teacher_temperature, present_BK)
    return margin_mse_loss(student_BK, teacher_BK.detach() / teacher_temperature, positive_BK, present_BK)


def own_passages(features: list[dict[str, Any]], column: dict[int, int]) -> dict[str, Tensor]:
    """The passages that each question shows for itself, positives first: `own_columns_BK`, their columns in the batch
    (0 where there is none), `own_present_BK` and `own_positive_BK`."""
    rows = [[*f["targets"], *f["negatives"]] for f in features]
    width = max(map(len, rows))
    places_K, counts_B1 = torch.arange(width), torch.tensor([[len(own)] for own in rows])
    shown_B1 = torch.tensor([[len(f["targets"])] for f in features])
    return {
        "own_columns_BK": torch.tensor([[column[row] for row in own] + [0] * (width - len(own)) for own in rows]),
        "own_present_BK": places_K[None, :] < counts_B1,
        "own_positive_BK": places_K[None, :] < shown_B1,
    }


class Teaching:
    """The teacher's scores of a batch and its part of the loss.

    Attributes:
        config: CTL's, with `temperature` and the keys that begin with `teacher_`.
        record: logs a figure, as `AlgorithmTrainer.record`.
    """

    def __init__(self, judge: PairJudge, config: Any, record: Callable[[str, Any], None]) -> None:
        self.judge = judge
        self.config = config
        self.record = record

    def prepare(self, features: Sequence[dict[str, Any]]) -> None:
        """Fill the cache for what these examples show."""
        self.judge.scores([(f["number"], [*f["targets"], *f["negatives"]]) for f in features], progress=True)

    def scores(self, inputs: dict[str, Any]) -> Tensor:
        """c(q, p) `[B, K]` of the passages that each question shows; 0 where there is none."""
        present_BK = inputs["own_present_BK"].cpu()
        rows_BK = inputs["passage_rows_P"].cpu()[inputs["own_columns_BK"].cpu()]
        rows = [own_K[present_K].tolist() for own_K, present_K in zip(rows_BK, present_BK, strict=True)]
        scores = self.judge.scores(list(zip(inputs["questions_B"].tolist(), rows, strict=True)))
        flat = torch.tensor([score for own in scores for score in own])
        return torch.zeros(present_BK.shape).masked_scatter(present_BK, flat)

    def loss(self, scores_BP: Tensor, inputs: dict[str, Any], offset: int) -> Tensor:
        """The weighted loss; this process's own passages begin at column `offset` of `scores_BP`."""
        config, present_BK, teacher_BK = self.config, inputs["own_present_BK"], inputs["teacher_BK"]
        student_BK, positive_BK = scores_BP.gather(1, inputs["own_columns_BK"] + offset), inputs["own_positive_BK"]
        temperatures = (config.temperature, config.teacher_temperature)
        loss = teacher_loss(student_BK, teacher_BK, positive_BK, present_BK, config.teacher_loss, *temperatures)
        self.record("teacher_loss", loss.detach())
        best_B1 = teacher_BK.masked_fill(~present_BK, float("-inf")).argmax(dim=1, keepdim=True)
        self.record("teacher_agrees_with_gold", positive_BK.gather(1, best_B1).float().mean())
        return config.teacher_weight * loss


class PrepareTeaching(PrepareScores):
    """Has the trainer score what the coming steps will show: an epoch draws other negatives than the one before.

    `trainer` has `prepare_scores(numbers, epoch)` and `teaching`. At the end the log says what the scores have cost.
    """

    def prepare(self, first: int, last: int, loader: Any) -> None:
        """The examples of optimiser steps `first` to `last` (exclusive), as their epochs show them."""
        args = self.trainer.args
        accumulation = args.gradient_accumulation_steps
        steps = max(1, math.ceil(len(loader) / accumulation))
        for epoch in range(first // steps, (last - 1) // steps + 1):
            start, end = max(first, epoch * steps), min(last, (epoch + 1) * steps)
            self.trainer.prepare_scores(coming_examples(loader, start, end, accumulation, args.world_size), epoch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say what the scores have cost."""
        log.info("teacher: %s", self.trainer.teaching.judge.cost())
