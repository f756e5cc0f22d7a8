r"""RPG: distil a frozen language model's judgement into the encoder (REPLUG LSR, Shi et al. 2023, arXiv 2301.12652).

    P_R(p_k|q) = softmax_k( s(q, p_k) / γ )                      over the encoder's current top K
    Q(p_k|q,a) = softmax_k( LM(a|p_k, q) / β )                   a constant: the language model is frozen

    replug   KL(P_R ‖ Q)
    pdist    KL(Q ‖ P_R)                                         (Izacard et al. 2022, Atlas, arXiv 2208.03299)
    loop     KL(Q ‖ P_R), LM(a|p_k, q) := −LM(a| all p but p_k, q)    (Atlas)
    emdr2    −1/T Σ_t log Σ_k p(a_t|p_k, q) P_R(p_k|q)           (Sachan et al. 2021; Atlas)

No gold passage is needed. Candidates come from the whole corpus and are found anew every `refresh_every` optimiser
steps (`retrieval/candidates.py`); they stand in one `[B, K]` order that both score matrices use.

The default objective is PDist: on `pydocs`, at one budget of language-model tokens, it had the highest nDCG@10 on dev,
by less than what another seed changes (docs/manual/rpg.md has the table).

Where we deviate, and why:
- LM(a|·) is the mean log-probability of the answer's tokens (`target: mean`). The paper's text says probability, its
  implementations take this; at β = 0.1 a softmax over probabilities of 1e-5 would be flat.
- A question with several answers is scored with its first.
- A passage that is candidate for several questions of a batch is encoded once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from rag_experiments.algorithms.distillation import (
    CandidateCount,
    DistillationTrainer,
    Distributions,
    candidate_log_probs,
    entropy,
)
from rag_experiments.algorithms.shared.lm_scoring import AnswerScorer, CandidateJudge
from rag_experiments.algorithms.shared.reader_examples import check_teacher
from rag_experiments.config.schema import NonNegativeInt, PositiveFloat, PositiveInt, ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.models.reader.reader import Reader

log = logging.getLogger(__name__)

Objective = Literal["replug", "pdist", "loop", "emdr2"]
Target = Literal["mean", "sum", "probability"]


def replug_loss(log_retriever_BK: torch.Tensor, log_target_BK: torch.Tensor) -> torch.Tensor:
    """KL(P_R ‖ Q), mean over B; both arguments are log-probabilities over K."""
    return (log_retriever_BK.exp() * (log_retriever_BK - log_target_BK)).sum(1).mean()


def pdist_loss(log_retriever_BK: torch.Tensor, log_target_BK: torch.Tensor) -> torch.Tensor:
    """KL(Q ‖ P_R), mean over B; both arguments are log-probabilities over K."""
    return (log_target_BK.exp() * (log_target_BK - log_retriever_BK)).sum(1).mean()


def emdr2_loss(
    log_retriever_BK: torch.Tensor, token_log_probs_BKT: torch.Tensor, token_mask_BT: torch.Tensor
) -> torch.Tensor:
    """−log of each answer token's probability, mixed over K by P_R; mean over a question's tokens, then over B."""
    mixed_BT = torch.logsumexp(log_retriever_BK[:, :, None] + token_log_probs_BKT, dim=1)
    return -(mixed_BT * token_mask_BT).sum(1).div(_tokens(token_mask_BT)).mean()


def rpg_loss(
    retriever_scores_BK: torch.Tensor,
    token_log_probs_BKT: torch.Tensor,
    token_mask_BT: torch.Tensor,
    objective: Objective,
    target: Target = "mean",
    retriever_temperature: float = 0.1,
    target_temperature: float = 0.1,
    present_BK: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of one batch, and its gradient in `retriever_scores_BK` alone.

    Args:
        retriever_scores_BK: s(q, p_k).
        token_log_probs_BKT: log p(a_t | …) given candidate k (`loop`: given all candidates but k); 0 at padding.
        token_mask_BT: True at the answer's tokens.
        present_BK: False where there is no k-th candidate.
    """
    log_retriever_BK = candidate_log_probs(retriever_scores_BK, retriever_temperature, present_BK)
    token_log_probs_BKT = token_log_probs_BKT.detach()
    if objective == "emdr2":
        return emdr2_loss(log_retriever_BK, token_log_probs_BKT, token_mask_BT)
    log_target_BK = log_target(token_log_probs_BKT, token_mask_BT, objective, target, target_temperature, present_BK)
    return (replug_loss if objective == "replug" else pdist_loss)(log_retriever_BK, log_target_BK)


def log_target(
    token_log_probs_BKT: torch.Tensor,
    token_mask_BT: torch.Tensor,
    objective: Objective,
    target: Target,
    target_temperature: float,
    present_BK: torch.Tensor | None = None,
) -> torch.Tensor:
    """log Q(p_k|q,a) `[B, K]`; the arguments are those of `rpg_loss`."""
    values_BK = target_values(token_log_probs_BKT, token_mask_BT, target)
    if objective == "loop":  # what the answer loses without p_k
        values_BK = -values_BK
    return candidate_log_probs(values_BK, target_temperature, present_BK)


def target_values(token_log_probs_BKT: torch.Tensor, token_mask_BT: torch.Tensor, target: Target) -> torch.Tensor:
    """LM(a|·) `[B, K]`: mean or sum of the tokens' log-probabilities, or the answer's probability."""
    sum_BK = (token_log_probs_BKT * token_mask_BT[:, None, :]).sum(2)
    if target == "mean":
        return sum_BK / _tokens(token_mask_BT)[:, None]
    return sum_BK if target == "sum" else sum_BK.exp()


def _tokens(token_mask_BT: torch.Tensor) -> torch.Tensor:
    """Tokens of each answer; 1 where there are none: a question for which nothing was found, as an IVF index may."""
    return token_mask_BT.sum(1).clamp(min=1)


@dataclass(kw_only=True)
class RPGConfig:
    """Hyper-parameters of RPG."""

    name: str = "rpg"
    """The algorithm's name, which stands in the run's path and in messages."""
    teacher: ReaderConfig | None = None
    """The language model that judges, chosen with `model@algorithm.teacher=…`."""
    objective: Objective = "pdist"
    """The loss: REPLUG's divergence (`replug`), or one of Atlas's (`pdist`, `loop`, `emdr2`)."""
    target: Target = "mean"
    """What LM(a|·) is, of the answer's token log-probabilities; `emdr2` takes the tokens' probabilities themselves."""
    temperature: PositiveFloat = 0.05
    """The temperature γ, which divides the encoder's scores; REPLUG has 0.1."""
    target_temperature: PositiveFloat = 0.1
    """The temperature β, which divides the language model's scores; 0.1 is as in REPLUG. It has no effect with
    `emdr2`."""
    candidates: CandidateCount = 8
    """K, the candidates of a question over the whole corpus, clamped to it. REPLUG has 20; 8 fits two CPU cores."""
    add_gold: bool = False
    """Put a known gold passage in the last candidate's place where it is not among them."""
    refresh_every: NonNegativeInt = 30
    """Optimiser steps between two searches for candidates; 0 keeps those of the start."""
    refresh: Literal["corpus", "questions"] = "corpus"
    """What a refresh embeds anew: the whole corpus, or the questions only, which then search the passage vectors of
    the start."""
    prescore: bool = False
    """Prepare the scores of all training questions each time, not only of those that the coming steps will meet."""
    mini_batch_size: PositiveInt | None = None
    """Texts are encoded so many at a time, and once more in the backward pass, for batches larger than memory; null
    takes the whole batch in one pass."""
    sub_batch_size: PositiveInt = 32
    """Texts of similar length are padded together, so many at a time, where `mini_batch_size` is null."""


class RPGTrainer(DistillationTrainer):
    """Distillation of a language model's scores into an `Encoder`, on questions with answers."""

    Config = RPGConfig
    required_fields = frozenset({"answers"})
    config: RPGConfig

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """Raises `RequestError` without a teacher."""
        if config.algorithm.teacher is None:
            raise RequestError(
                "algorithm=rpg needs a language model that judges: add model@algorithm.teacher=smollm2_135m"
            )

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """See `check_teacher`."""
        super().check_data(config, data)
        check_teacher(config.algorithm.teacher, data)

    def open_teacher(self) -> None:
        """The language model behind its score cache; refuses questions that do not fit its prompt."""
        assert self.config.teacher is not None  # `check_config` saw to that
        reader = Reader.load(self.config.teacher, cache=self.components.cache, frozen=True)
        scorer = AnswerScorer(reader, self.components.cache)
        leave_one_out = self.config.objective == "loop"
        self.judge = CandidateJudge(scorer, self.questions, self.components.data.passages, leave_one_out)

    def teacher_scores(
        self, numbers: Sequence[int], rows_BK: np.ndarray, progress: bool = False
    ) -> list[dict[str, torch.Tensor]]:
        """`token_log_probs` `[K, T]` and `token_mask` `[T]` of the question's first answer."""
        with self.judge.scorer.counted(self.record):
            log_probs_BKT, mask_BT = self.judge.log_probs(numbers, rows_BK, progress)
        lengths_B = mask_BT.sum(1)
        return [
            {
                "token_log_probs": torch.from_numpy(log_probs_KT[:, :length].copy()),
                "token_mask": torch.ones(int(length), dtype=torch.bool),
            }
            for log_probs_KT, length in zip(log_probs_BKT, lengths_B, strict=True)
        ]

    def loss(
        self, scores_BK: torch.Tensor, teacher: dict[str, torch.Tensor], present_BK: torch.Tensor
    ) -> tuple[torch.Tensor, Distributions]:
        """See the module's docstring. Logs KL(P_R ‖ Q) and Q's entropy in nats."""
        config = self.config
        token_log_probs_BKT, token_mask_BT = teacher["token_log_probs"], teacher["token_mask"]
        loss = rpg_loss(
            scores_BK,
            token_log_probs_BKT,
            token_mask_BT,
            config.objective,
            config.target,
            config.temperature,
            config.target_temperature,
            present_BK,
        )
        log_target_BK = log_target(
            token_log_probs_BKT, token_mask_BT, config.objective, config.target, config.target_temperature, present_BK
        )
        log_retriever_BK = candidate_log_probs(scores_BK.detach(), config.temperature, present_BK)
        self.record("kl", replug_loss(log_retriever_BK, log_target_BK))
        self.record("target_entropy", entropy(log_target_BK))
        return loss, {"target": log_target_BK, "retriever": log_retriever_BK}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's; says at the end what the language model has cost."""
        result = super().train(*args, **kwargs)
        log.info("language model: %s", self.judge.scorer.cost())
        return result
