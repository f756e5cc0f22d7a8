r"""DCA: distil a reader's cross-attention into the encoder (Izacard & Grave 2020b, FiD-KD, arXiv 2012.04584).

    G_k = mean over heads, layers and tokens of passage k of the frozen reader's pre-softmax cross-attention at the
          first decoded position, in a FiD forward over the question's K candidates
    L   = 1/B Σ_i KL( softmax_k(G_ik / T_t) ‖ softmax_k(s(q_i, p_ik) / T_s) )

Candidates are the encoder's own best K over the whole corpus, or the data's; neither gold passages nor, with a
reader that is trained already, answers are needed. Published: K = 100, lr 1e-4, 20k steps, T = 1, s = q·p/√d, several
rounds of reading, distilling and re-indexing (`experiment=fid_dca_loop`).

Where we deviate, and why:
- s is the encoder's own similarity (cosine for most), so T_s is its usual temperature and not 1; T_t is a key too:
  off-the-shelf readers need a small one.
- The reader may be a decoder LM that reads passages apart; its attention at the position that predicts the first
  answer token takes the place of the cross-attention.
- `algorithm=dca` alone trains such a reader first, for `teacher_steps` steps on the untrained encoder's passages, and
  keeps it in the cache: the paper's teacher has learnt to read the same data, an off-the-shelf small LM has not.
- Such a reader's published score says more of a passage's length than of its use (`models/fid/fid_attention.py` has the
  figures; with it DCA on `pydocs` took recall@4 from 0.62 to 0.29), so `teacher_score: auto` asks a decoder LM for
  `adist_peak` where questions have answers.
- `teacher_standardise` divides a question's scores by their own standard deviation, so that one T_t fits readers
  whose attention differs in scale; `algorithm.teacher_standardise=false algorithm.teacher_temperature=1` is the
  published loss.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rag_experiments.algorithms.base import FirstRun, RunComponents
from rag_experiments.algorithms.distillation import (
    CandidateCount,
    DistillationTrainer,
    Distributions,
    candidate_log_probs,
    entropy,
)
from rag_experiments.algorithms.fid import check_listed, listed_rows
from rag_experiments.algorithms.fid_teacher import PassageTeacher, needs_training, open_reader, teacher_run
from rag_experiments.algorithms.shared.reader_examples import check_teacher
from rag_experiments.config.schema import (
    FidSettings,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ReaderConfig,
    RunConfig,
)
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.records import Question
from rag_experiments.models.fid.fid_attention import TeacherScore
from rag_experiments.retrieval.candidates import add_golds

log = logging.getLogger(__name__)


def dca_loss(
    student_BK: Tensor,
    teacher_BK: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    present_BK: Tensor | None = None,
) -> Tensor:
    """KL(teacher ‖ student) over the K candidates, mean over the B questions; no gradient reaches the teacher.

    Args:
        student_BK: s(q, p_k).
        teacher_BK: G_k; a constant added to a row changes nothing.
        present_BK: False where there is no k-th candidate.
    """
    log_student_BK = candidate_log_probs(student_BK, student_temperature, present_BK)
    log_teacher_BK = candidate_log_probs(teacher_BK.detach(), teacher_temperature, present_BK)
    return F.kl_div(log_student_BK, log_teacher_BK, log_target=True, reduction="batchmean")


def standardised(values_BK: Tensor, present_BK: Tensor) -> Tensor:
    """Each row less its mean, over its standard deviation, among the candidates present; equal scores become 0."""
    count_B = present_BK.sum(dim=1, keepdim=True).clamp(min=1)
    kept_BK = values_BK.masked_fill(~present_BK, 0.0)
    centred_BK = (kept_BK - kept_BK.sum(dim=1, keepdim=True) / count_B).masked_fill(~present_BK, 0.0)
    deviation_B = (centred_BK.square().sum(dim=1, keepdim=True) / count_B).sqrt()
    return centred_BK / deviation_B.clamp(min=1e-6)


def fitting_score(kind: str, questions: Sequence[Question]) -> TeacherScore:
    """What `teacher_score: auto` is for a reader of this kind and these training questions."""
    if kind == "encoder_decoder":
        return "cross_attention"
    if all(question.answers for question in questions):
        return "adist_peak"
    log.warning(
        "teacher: some training questions have no answer, so a decoder LM is asked for its attention at the first "
        "answer position alone, which says little of a passage's use: expect little, or give answers"
    )
    return "cross_attention"


@dataclass(kw_only=True)
class DCAConfig:
    """Hyper-parameters of DCA."""

    name: str = "dca"
    """The algorithm's name, which stands in the run's path and in messages."""
    teacher: ReaderConfig | None = None
    """The reader that teaches, chosen with `model@algorithm.teacher=…`. A FiD run (`model@algorithm.teacher=run
    algorithm.teacher.path=run://…`) teaches as it is."""
    teacher_score: TeacherScore | Literal["auto"] = "auto"
    """What the teacher says of a passage. `cross_attention` is as published. `adist` and `adist_peak` are attention
    times the values' norm over the answer's tokens (Atlas; of the mean or of the largest head), and need answers.
    `auto` is `adist_peak` for a decoder LM where every training question has an answer, else `cross_attention`."""
    teacher_temperature: PositiveFloat = 0.5
    """T_t, which divides the teacher's scores: 0.5 for standardised ones, 1 as published, 0.1 for T5 readers off the
    shelf without standardising."""
    teacher_standardise: bool = True
    """Divide a question's scores by their own standard deviation, so that one T_t fits readers of any scale; false is
    as published."""
    temperature: PositiveFloat = 0.05
    """T_s, which divides the encoder's similarities: 0.05 is for cosines."""
    teacher_steps: NonNegativeInt = 60
    """FiD steps that prepare a teacher which is no FiD run; 0 lets it teach as it comes."""
    teacher_batch_size: PositiveInt = 4
    """Questions of a step while the teacher is trained, over all processes."""
    teacher_learning_rate: PositiveFloat = 5e-5
    """The learning rate with which the teacher is trained, that of `algorithm=fid`."""
    teacher_passages: PositiveInt = 4
    """Passages that a question has while the teacher is trained."""
    passages: Literal["retriever", "data"] = "retriever"
    """Where the candidates come from: the retriever, or the list that the data has for each question (`ctxs`)."""
    candidates: CandidateCount = 8
    """K, the candidates of a question, clamped to the corpus. Published is 100; 8 fits two CPU cores."""
    add_gold: bool = False
    """Put known gold passages among the candidates, in the last places."""
    refresh_every: NonNegativeInt = 0
    """Optimiser steps between two searches for candidates; 0 keeps those of the start."""
    mini_batch_size: PositiveInt | None = None
    """Texts are encoded so many at a time, and once more in the backward pass, for batches larger than memory; null
    takes the whole batch in one pass."""
    sub_batch_size: PositiveInt = 32
    """Texts of similar length are padded together, so many at a time, where `mini_batch_size` is null."""


class DCATrainer(DistillationTrainer):
    """Distillation of a FiD reader's attention into an `Encoder`."""

    Config = DCAConfig
    config: DCAConfig

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """Raises `RequestError` without a teacher, and where refreshing has nothing to search."""
        own = config.algorithm
        if own.teacher is None:
            raise RequestError(
                "algorithm=dca needs a reader that teaches: add model@algorithm.teacher=smollm2_135m, or "
                "model@algorithm.teacher=run algorithm.teacher.path=run://<a FiD run>"
            )
        if own.passages == "data" and own.refresh_every:
            raise RequestError(
                "algorithm.refresh_every searches for candidates, and algorithm.passages=data lists them"
            )

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Raises `RequestError` where the data lists no candidates, or lacks answers that the teacher needs."""
        super().check_data(config, data)
        own, questions = config.algorithm, data.splits["train"]
        check_teacher(replace(own.teacher, fid=own.teacher.fid or FidSettings()), data)
        if own.passages == "data":
            check_listed(questions)
        if own.teacher_score in ("adist", "adist_peak"):
            lacking = next((question for question in questions if not question.answers), None)
            if lacking is not None:
                raise RequestError(
                    f"algorithm.teacher_score={own.teacher_score} needs answers, and question {lacking.id!r} has "
                    "none: use cross_attention, or leave it to auto"
                )
        if needs_training(own.teacher, own.teacher_steps) and not any(question.answers for question in questions):
            raise RequestError(
                "algorithm=dca trains a reader first, and no training question has an answer: give a trained one "
                "(model@algorithm.teacher=run algorithm.teacher.path=run://…), or algorithm.teacher_steps=0"
            )

    @classmethod
    def before_run(cls, config: RunConfig, data: RagData) -> dict[str, FirstRun]:
        """A FiD run of `teacher_steps` steps, unless the teacher is a FiD reader already."""
        own = config.algorithm
        if not needs_training(own.teacher, own.teacher_steps):
            return {}
        return {"teacher": teacher_run(config, [question for question in data.splits["train"] if question.answers])}

    def open_teacher(self) -> None:
        """The FiD reader behind its score cache."""
        assert self.config.teacher is not None  # `check_config` saw to that
        reader = open_reader(self.config.teacher, self.components.cache)
        kind = self.config.teacher_score
        if kind == "auto":
            kind = fitting_score(reader.kind, self.questions)
        log.info("teacher: its passages are scored by %s (algorithm.teacher_score)", kind)
        self.teacher = PassageTeacher(reader, kind, self.components.cache)

    def make_candidates(self, golds: Sequence[Sequence[int]] | None) -> Any:
        """Found by the encoder, or listed by the data."""
        if self.config.passages == "data":
            return _Listed(self.components, self.questions, self.config.candidates, golds)
        return super().make_candidates(golds)

    def teacher_scores(
        self, numbers: Sequence[int], rows_BK: np.ndarray, progress: bool = False
    ) -> list[dict[str, Tensor]]:
        """`scores` `[K]` of the candidates, 0 at empty places."""
        store = self.components.data.passages
        present = [[int(row) for row in rows if row >= 0] for rows in rows_BK]
        question_scores = self.teacher.scores(
            [self.questions[number] for number in numbers],
            [[store[row] for row in rows] for rows in present],
            progress,
        )
        scores_BK = torch.zeros(rows_BK.shape)
        for b, scores_K in enumerate(question_scores):
            scores_BK[b, torch.from_numpy(np.flatnonzero(rows_BK[b] >= 0))] = torch.from_numpy(scores_K)
        return [{"scores": scores_K} for scores_K in scores_BK]

    def loss(self, scores_BK: Tensor, teacher: dict[str, Tensor], present_BK: Tensor) -> tuple[Tensor, Distributions]:
        """See the module's docstring. Logs the entropy of the teacher's distribution in nats."""
        config, teacher_BK = self.config, teacher["scores"]
        if config.teacher_standardise:
            teacher_BK = standardised(teacher_BK, present_BK)
        loss = dca_loss(scores_BK, teacher_BK, config.temperature, config.teacher_temperature, present_BK)
        log_teacher_BK = candidate_log_probs(teacher_BK, config.teacher_temperature, present_BK)
        self.record("teacher_entropy", entropy(log_teacher_BK))
        return loss, {"teacher": log_teacher_BK, "student": scores_BK}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's; says at the end what the teacher's scores have cost."""
        result = super().train(*args, **kwargs)
        log.info("teacher: %s", self.teacher.cost())
        return result


class _Listed:
    """The data's own candidates, in the shape of `Candidates`: they never change."""

    def __init__(
        self, components: RunComponents, questions: Sequence[Any], k: int, golds: Sequence[Sequence[int]] | None
    ):
        store = components.data.passages
        lists = [list(dict.fromkeys(listed_rows(store, question)))[:k] for question in questions]
        self.rows_QK = np.full((len(lists), k), -1, dtype=np.int64)
        for place, rows in enumerate(lists):
            self.rows_QK[place, : len(rows)] = rows
        if golds is not None:
            self.rows_QK = add_golds(self.rows_QK, golds)
