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
by less than what another seed changes (docs/rpg.md has the table).

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
from transformers import TrainerCallback, TrainingArguments

from rag_experiments.algorithms.base import Parts
from rag_experiments.algorithms.distillation import (
    CandidateCount,
    DistillationTrainer,
    ScoreAhead,
    candidate_log_probs,
    entropy,
)
from rag_experiments.algorithms.shared.lm_scoring import AnswerScorer, CandidateJudge
from rag_experiments.config.schema import NonNegativeInt, PositiveFloat, PositiveInt, ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.models.reader.reader import Reader
from rag_experiments.retrieval.candidates import RefreshCandidates

log = logging.getLogger(__name__)

Objective = Literal["replug", "pdist", "loop", "emdr2"]
Target = Literal["mean", "sum", "probability"]
PRESCORED_AT_A_TIME = 4096  # questions whose prompts are in memory together


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
    values_BK = target_values(token_log_probs_BKT, token_mask_BT, target)
    if objective == "loop":  # what the answer loses without p_k
        values_BK = -values_BK
    log_target_BK = candidate_log_probs(values_BK, target_temperature, present_BK)
    return (replug_loss if objective == "replug" else pdist_loss)(log_retriever_BK, log_target_BK)


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
    teacher: ReaderConfig | None = None
    """The language model that judges: `model@algorithm.teacher=…`."""
    objective: Objective = "pdist"
    target: Target = "mean"
    """What LM(a|·) is; `emdr2` takes the tokens' probabilities themselves."""
    temperature: PositiveFloat = 0.05
    """γ, of the encoder's scores."""
    target_temperature: PositiveFloat = 0.1
    """β, of the language model's."""
    candidates: CandidateCount = 8
    """K; clamped to the corpus."""
    add_gold: bool = False
    """Put a known gold passage in the last candidate's place where it is not among them."""
    refresh_every: NonNegativeInt = 30
    """Optimiser steps between two searches for candidates; 0: those of the start stay."""
    refresh: Literal["corpus", "questions"] = "corpus"
    """`questions`: search the passage vectors of the start with the current encoder's questions."""
    prescore: bool = False
    """Score all candidates of all training questions in a pass of its own, before training and after each refresh."""
    mini_batch_size: PositiveInt | None = None
    """Texts encoded at a time and once more during backward, for batches larger than memory."""
    sub_batch_size: PositiveInt = 32
    """Texts of like length padded together, where `mini_batch_size` is None."""


class RPGTrainer(DistillationTrainer):
    """Distillation of a language model's scores into an `Encoder`, on questions with answers."""

    Config = RPGConfig
    needs = frozenset({"answers"})
    hyper: RPGConfig

    def __init__(self, parts: Parts, args: TrainingArguments, callbacks: list[TrainerCallback] | None = None):
        super().__init__(parts, args, callbacks)
        self.add_callback(RefreshCandidates(self.candidates, self.hyper.refresh_every, self.record))
        if self.hyper.prescore:
            self.add_callback(ScoreAhead(self, partly=True))

    @staticmethod
    def check_config(config: RunConfig) -> None:
        """Raises `RequestError` without a teacher."""
        if config.algorithm.teacher is None:
            raise RequestError(
                "algorithm=rpg needs a language model that judges: add model@algorithm.teacher=smollm2_135m"
            )

    def before_training(self) -> None:
        """Open the teacher and the score cache; refuse questions that do not fit; prepare the candidates."""
        super().before_training()
        assert self.hyper.teacher is not None  # `check_config` saw to that
        teacher = Reader.load(self.hyper.teacher, cache=self.parts.cache, frozen=True)
        store, leave_one_out = self.parts.data.passages, self.hyper.objective == "loop"
        self.judge = CandidateJudge(AnswerScorer(teacher, self.parts.cache), self.questions, store, leave_one_out)
        self.candidates = self.search_candidates(mode=self.hyper.refresh)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """See the module's docstring; the mean over this process's questions."""
        numbers = inputs["questions_B"].tolist()
        rows_BK = self.candidates.rows_QK[numbers]
        token_log_probs_BKT, token_mask_BT = self.judged(numbers, rows_BK)
        scores_BK = self.encoder_scores(model, inputs["queries"], rows_BK)
        present_BK = torch.from_numpy(rows_BK >= 0).to(scores_BK.device)
        hyper = self.hyper
        loss = rpg_loss(
            scores_BK,
            token_log_probs_BKT,
            token_mask_BT,
            hyper.objective,
            hyper.target,
            hyper.temperature,
            hyper.target_temperature,
            present_BK,
        )
        self._record_judgement(numbers, rows_BK, scores_BK.detach(), token_log_probs_BKT, token_mask_BT, present_BK)
        return (loss, {"scores": scores_BK}) if return_outputs else loss

    # -- the teacher -----------------------------------------------------------------------------

    def judged(
        self, numbers: Sequence[int], rows_BK: np.ndarray, progress: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`token_log_probs_BKT` and `token_mask_BT` of `rpg_loss`, from the cache or from the teacher."""
        scorer = self.judge.scorer
        before = (scorer.asked, scorer.hits, scorer.seconds, scorer.tokens_asked, scorer.tokens_computed)
        log_probs_BKT, mask_BT = self.judge.log_probs(numbers, rows_BK, progress)
        after = (scorer.asked, scorer.hits, scorer.seconds, scorer.tokens_asked, scorer.tokens_computed)
        asked, hits, seconds, tokens_asked, tokens_computed = (b - a for a, b in zip(before, after, strict=True))
        self.record("cache_hit_rate", hits / max(1, asked))
        self.record("lm_seconds", seconds)
        self.record("lm_tokens_asked", tokens_asked)
        self.record("lm_tokens_computed", tokens_computed)
        device = self.parts.model.device
        return torch.from_numpy(log_probs_BKT).to(device), torch.from_numpy(mask_BT).to(device)

    def score_ahead(self) -> None:
        """Score the candidates of this process's share of the training questions, with a progress bar."""
        rows_QK = self.candidates.rows_QK
        for numbers in self.own_share(PRESCORED_AT_A_TIME):
            self.judge.log_probs(numbers, rows_QK[numbers], progress=True)
        self.accelerator.wait_for_everyone()
        log.info("scored ahead: %s", self.judge.scorer.cost())

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's; says at the end what the language model has cost."""
        result = super().train(*args, **kwargs)
        log.info("language model: %s", self.judge.scorer.cost())
        return result

    # -- logging ---------------------------------------------------------------------------------

    def _record_judgement(
        self,
        numbers: Sequence[int],
        rows_BK: np.ndarray,
        scores_BK: torch.Tensor,
        token_log_probs_BKT: torch.Tensor,
        token_mask_BT: torch.Tensor,
        present_BK: torch.Tensor,
    ) -> None:
        """KL(P_R ‖ Q), Q's entropy in nats, and how often Q and P_R put a known gold passage first."""
        values_BK = target_values(token_log_probs_BKT, token_mask_BT, self.hyper.target)
        values_BK = -values_BK if self.hyper.objective == "loop" else values_BK
        log_target_BK = candidate_log_probs(values_BK, self.hyper.target_temperature, present_BK)
        log_retriever_BK = candidate_log_probs(scores_BK, self.hyper.temperature, present_BK)
        self.record("kl", replug_loss(log_retriever_BK, log_target_BK))
        self.record("target_entropy", entropy(log_target_BK))
        self.record_agreement(numbers, rows_BK, target=log_target_BK, retriever=log_retriever_BK)
