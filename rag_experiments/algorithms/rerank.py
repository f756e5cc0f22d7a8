r"""Rerank: train a cross-encoder that orders what a retriever found (Nogueira & Cho 2019; Gao et al. 2021).

A question has K candidates: its gold passages, and others that the retriever takes for them. s_k is the logit of
question and candidate, y_k its label, t the labels' distribution:

    listwise    −Σ_k t_k log softmax_k(s/τ)                                  (Cao et al. 2007, ListNet)
    kl          KL(t ‖ softmax(s/τ))
    ranknet     mean over y_i > y_j of log(1 + exp(s_j − s_i))               (Burges et al. 2005)
    lambda      the same, each pair weighted by what it is worth in nDCG     (Wang et al. 2018, NDCG-Loss2++)
    pairwise    mean over y_i > y_j of max(0, margin − s_i + s_j)
    margin_mse  mean over gold i, other j of ((s_i − s_j) − (y_i − y_j))²    (Hofstätter et al. 2020)

Labels are gold passages with their grades, t_k = y_k / Σy; or a language model's log-probability of the answer given
the candidate (`labels: reader`, as in `rpg.py`), or the scores that the data list (`labels: scores`), both with
t = softmax(y / target_temperature).

Where we deviate, and why:
- Pairs are averaged within a question, then over questions: a step is the same whether its questions come in one batch
  or in several. sentence-transformers takes the mean over all pairs of a batch.
- Logarithms are natural; sentence-transformers' LambdaLoss has base 2, a constant factor.
- A known positive is a candidate with its label or none, never a negative; so is a passage with a gold one's text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Trainer

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.algorithms.distillation import NO_PASSAGE, CandidateCount, candidate_log_probs
from rag_experiments.algorithms.rpg import target_values
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.algorithms.shared.candidate_draws import CandidateDraws
from rag_experiments.algorithms.shared.listed_scores import (
    ListedScores,
    check_scores,
    check_without_search,
    is_scored,
)
from rag_experiments.algorithms.shared.lm_scoring import AnswerScorer, CandidateJudge
from rag_experiments.algorithms.shared.multiple_positives import make_examples
from rag_experiments.algorithms.shared.reader_examples import check_teacher
from rag_experiments.config.schema import NonNegativeInt, PositiveFloat, PositiveInt, ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData, check_required_fields
from rag_experiments.data.queries import retrieval_query
from rag_experiments.models.reader.reader import Reader
from rag_experiments.retrieval.candidates import RefreshCandidates
from rag_experiments.retrieval.reranking import RerankingRetriever

Objective = Literal["listwise", "ranknet", "lambda", "pairwise", "margin_mse", "kl"]
POOL = 20
"""Of the retriever's best, from which candidates are drawn where nothing else is said."""
MU = 10.0
"""The weight of NDCG-Loss2 beside LambdaRank's, as published."""


def listwise_loss(log_scores_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Cross-entropy of the labels' distribution and the scores', mean over B; the first are log-probabilities."""
    return -(target_BK * log_scores_BK).sum(1).mean()


def kl_loss(log_scores_BK: Tensor, target_BK: Tensor) -> Tensor:
    """KL(target ‖ scores), mean over B; the scores' are log-probabilities."""
    return (torch.xlogy(target_BK, target_BK) - target_BK * log_scores_BK).sum(1).mean()


def ranknet_loss(scores_BK: Tensor, labels_BK: Tensor, present_BK: Tensor) -> Tensor:
    """log(1 + exp(s_j − s_i)) over the pairs with y_i > y_j: mean over a question's pairs, then over B."""
    return _mean_of_pairs(-F.logsigmoid(_differences(scores_BK)), _better(labels_BK, present_BK))


def pairwise_loss(scores_BK: Tensor, labels_BK: Tensor, present_BK: Tensor, margin: float) -> Tensor:
    """max(0, margin − s_i + s_j) over the pairs with y_i > y_j: mean over a question's pairs, then over B."""
    return _mean_of_pairs(F.relu(margin - _differences(scores_BK)), _better(labels_BK, present_BK))


def lambda_loss(scores_BK: Tensor, labels_BK: Tensor, present_BK: Tensor) -> Tensor:
    """RankNet's loss with the weights of NDCG-Loss2++: mean over a question's pairs, then over B.

    With G the gain (2^y − 1, over that of the ideal order), D(r) = log2(1 + r) and r_i the rank by the scores:

        w_ij = |G_i − G_j| · ( μ |1/D(|r_i − r_j|) − 1/D(|r_i − r_j| + 1)| + |1/D(r_i) − 1/D(r_j)| )

    Args:
        labels_BK: 0 or more; a negative label gains nothing.
    """
    places = torch.arange(1, scores_BK.shape[1] + 1, device=scores_BK.device, dtype=scores_BK.dtype)
    shown_BK = scores_BK.detach().masked_fill(~present_BK, float("-inf"))
    rank_BK = shown_BK.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    discount_K = 1 / torch.log2(1 + places)
    gain_BK = (2 ** labels_BK.clamp(min=0) - 1).masked_fill(~present_BK, 0.0)
    ideal_B = (gain_BK.sort(dim=1, descending=True).values * discount_K).sum(dim=1).clamp(min=1e-10)
    gain_BK = gain_BK / ideal_B[:, None]
    own_BK = discount_K[rank_BK]
    apart_BKK = (rank_BK[:, :, None] - rank_BK[:, None, :]).abs()
    step_K = torch.cat([places.new_zeros(1), discount_K[:-1] - discount_K[1:]])  # 0 for a passage and itself
    gains_BKK = (gain_BK[:, :, None] - gain_BK[:, None, :]).abs()
    weights_BKK = gains_BKK * (MU * step_K[apart_BKK] + (own_BK[:, :, None] - own_BK[:, None, :]).abs())
    losses_BKK = -weights_BKK * F.logsigmoid(_differences(scores_BK))
    return _mean_of_pairs(losses_BKK, _better(labels_BK, present_BK))


def margin_mse_loss(scores_BK: Tensor, labels_BK: Tensor, positive_BK: Tensor, present_BK: Tensor) -> Tensor:
    """The squared error of each margin between a positive and another: mean over a question's pairs, then over B."""
    error_BKK = (_differences(scores_BK) - _differences(labels_BK)) ** 2
    return _mean_of_pairs(error_BKK, (positive_BK & present_BK)[:, :, None] & (~positive_BK & present_BK)[:, None, :])


def _differences(values_BK: Tensor) -> Tensor:
    """`[B, K, K]`: v_i − v_j."""
    return values_BK[:, :, None] - values_BK[:, None, :]


def _better(labels_BK: Tensor, present_BK: Tensor) -> Tensor:
    """`[B, K, K]`, True where candidate i has a higher label than j and both are there."""
    return (_differences(labels_BK) > 0) & present_BK[:, :, None] & present_BK[:, None, :]


def _mean_of_pairs(losses_BKK: Tensor, pairs_BKK: Tensor) -> Tensor:
    """Mean over a question's pairs, then over B; a question without a pair counts 0."""
    sums_B = losses_BKK.masked_fill(~pairs_BKK, 0.0).sum(dim=(1, 2))
    return (sums_B / pairs_BKK.sum(dim=(1, 2)).clamp(min=1)).mean()


@dataclass(kw_only=True)
class RerankConfig:
    """Hyper-parameters of rerank."""

    name: str = "rerank"
    """The algorithm's name, which stands in the run's path and in messages."""
    teacher: ReaderConfig | None = None
    """With `labels: reader`, the language model that judges, chosen with `model@algorithm.teacher=…`."""
    objective: Objective = "listwise"
    """The loss over a question's candidates: cross-entropy with the labels (`listwise`), a divergence (`kl`), pairs
    (`ranknet`, `lambda`, `pairwise`), or a teacher's margins (`margin_mse`)."""
    labels: Literal["positives", "reader", "scores"] = "positives"
    """What a candidate is worth: the grade of a gold passage and 0 elsewhere, the language model's mean
    log-probability of the answer given the candidate, or the score that the data list for it; passages without a
    listed score are then no candidates."""
    candidates: CandidateCount = 8
    """K, the passages that a question is shown with in a step, gold ones among them."""
    pool: PositiveInt | None = None
    """The K are drawn anew each epoch from so many of the retriever's best and from the listed negatives; null is 20,
    or K with `labels: reader`, which scores each of them."""
    ordered_by: Literal["retriever", "reranker"] = "retriever"
    """Whose best the pool holds: the retriever's, or of its first `retriever.rerank_depth` those that the reranker
    itself puts first, which are harder."""
    refresh_every: NonNegativeInt = 0
    """Optimiser steps between two searches for candidates, with `ordered_by: reranker`; 0 keeps those of the start."""
    temperature: PositiveFloat = 1.0
    """The logits are divided by it."""
    target_temperature: PositiveFloat | None = None
    """With `labels: reader` and `scores`, the scores are divided by it where they become a distribution (`listwise`,
    `kl`). Null is 0.1 for a language model's, as in RPG, and 1 for listed ones."""
    margin: PositiveFloat = 1.0
    """The distance of two logits that `objective: pairwise` is content with."""
    mini_batch_size: PositiveInt | None = None
    """Pairs are scored so many at a time, and once more in the backward pass, for batches larger than memory; null
    scores each once."""
    sub_batch_size: PositiveInt = 32
    """Pairs of similar length are padded together, so many at a time, where `mini_batch_size` is null."""


class RerankTrainer(AlgorithmTrainer):
    """Trains a `CrossEncoder` on the candidates of a frozen retriever."""

    Config = RerankConfig
    trains = frozenset({"reranker"})
    config: RerankConfig

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """Refuse what contradicts itself, and settle the pool."""
        own = config.algorithm
        if own.labels == "reader" and own.teacher is None:
            raise RequestError(
                "algorithm.labels=reader needs a language model that judges: add model@algorithm.teacher=smollm2_135m"
            )
        if own.labels != "reader" and own.teacher is not None:
            raise RequestError("algorithm.teacher is asked with algorithm.labels=reader only: leave it out")
        if own.labels == "positives" and own.objective in ("kl", "margin_mse"):
            raise RequestError(
                f"algorithm.objective={own.objective} learns a teacher's scores: add algorithm.labels=reader, or "
                "scores where the data list them, or take listwise, ranknet, lambda or pairwise"
            )
        if own.labels != "positives" and own.objective == "lambda":
            what = "a log-probability" if own.labels == "reader" else "a score"
            raise RequestError(
                f"algorithm.objective=lambda needs grades, and {what} is none: take listwise, kl, ranknet"
            )
        if own.labels == "scores":
            check_without_search(own)
        if own.target_temperature is None:
            own.target_temperature = 1.0 if own.labels == "scores" else 0.1
        if own.refresh_every and own.ordered_by == "retriever":
            raise RequestError(
                f"algorithm.refresh_every={own.refresh_every}: the retriever is frozen and would find the same; add "
                "algorithm.ordered_by=reranker"
            )
        if own.labels == "reader" and own.pool is not None and own.pool > own.candidates:
            raise RequestError(
                f"algorithm.pool={own.pool}: with algorithm.labels=reader each of them is scored, so it may not be "
                f"more than algorithm.candidates={own.candidates}"
            )

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Raises `RequestError` for what the labels need and the data lack."""
        labels, name = config.algorithm.labels, config.algorithm.name
        if labels == "scores":
            measured = {split: questions for split, questions in data.splits.items() if split != "train"}
            check_required_fields(dataclasses.replace(data, splits=measured), {"positive_ids"}, name)
            check_scores(data)
            return
        check_required_fields(data, {"answers" if labels == "reader" else "positive_ids"}, name)
        if labels == "reader":
            check_teacher(config.algorithm.teacher, data)

    @classmethod
    def count_examples(cls, config: RunConfig, data: RagData) -> int:
        """The training questions that have labels."""
        questions = data.splits["train"]
        return sum(map(is_scored, questions)) if config.algorithm.labels == "scores" else len(questions)

    # -- preparing -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Candidates of every training question, and the language model's scores of them."""
        components, config = self.components, self.config
        self.questions = components.data.splits["train"]
        if config.labels == "scores":
            self.questions = [question for question in self.questions if is_scored(question)]
        self.queries = [retrieval_query(question, components.config.data.query_history) for question in self.questions]
        examples = make_examples(self.questions, components.data.passages, "multi")
        self.judge: CandidateJudge | None = None
        self.drawing: CandidateDraws | ListedScores
        if config.labels == "scores":
            store, seed = components.data.passages, components.config.seed
            self.drawing = ListedScores(examples, store, config.candidates, seed)
            super().prepare()
            return
        retriever = components.retriever
        if config.ordered_by == "retriever" and isinstance(retriever, RerankingRetriever):
            retriever = retriever.first
        self.judge = self._open_judge() if config.labels == "reader" else None
        self.drawing = CandidateDraws(
            examples,
            self.queries,
            retriever,
            config.candidates,
            config.pool or (config.candidates if self.judge else POOL),
            seed=None if self.judge else components.config.seed,
        )
        found = self.drawing.candidates
        self.add_callback(RefreshCandidates(found, config.refresh_every, self.record, self.preparing))
        super().prepare()
        if self.judge is not None:
            numbers = range(len(self.questions))
            self.judge.log_probs(numbers, self.drawing.rows([*numbers], [0] * len(numbers)), progress=True)

    def _open_judge(self) -> CandidateJudge:
        assert self.config.teacher is not None  # `check_config` saw to that
        reader = Reader.load(self.config.teacher, cache=self.components.cache, frozen=True)
        scorer = AnswerScorer(reader, self.components.cache)
        return CandidateJudge(scorer, self.questions, self.components.data.passages)

    def save_more(self, folder: Path) -> None:
        """The candidates, so that a resumed run goes on with the same."""
        if isinstance(self.drawing, CandidateDraws):
            self.drawing.candidates.save(folder)

    def training_examples(self) -> Examples:
        """Numbers of questions with their epoch: candidates are looked up when the step is computed."""
        return Examples(range(len(self.questions)), lambda number, epoch: (number, epoch))

    # -- a step --------------------------------------------------------------------------------------

    def collate(self, features: list[tuple[int, int]]) -> dict[str, Any]:
        """`questions_B` and `epochs_B`."""
        return {
            "questions_B": torch.tensor([number for number, _ in features]),
            "epochs_B": torch.tensor([epoch for _, epoch in features]),
        }

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add candidates, labels and pairs: now, not when the batch is collated, since batches are collated ahead of
        their step, and a refresh may lie between."""
        numbers, epochs = inputs["questions_B"].tolist(), inputs["epochs_B"].tolist()
        rows_BK = self.drawing.rows(numbers, epochs)
        present_BK = rows_BK >= 0
        texts = self.components.data.passages.full_texts(rows_BK[present_BK].tolist())
        asked = np.repeat(np.array(numbers), present_BK.sum(axis=1))
        reranker = self.components.model
        pairs: Any = reranker.tokenize_pairs([self.queries[number] for number in asked], texts)
        chunks = length_sorted_chunks(reranker, pairs, self.config.mini_batch_size or self.config.sub_batch_size)
        self.tokens_seen += sum(len(pair) for pair in pairs)
        made = {
            "pairs": chunks,
            "present_BK": torch.from_numpy(present_BK),
            "positive_BK": torch.from_numpy(self.drawing.grades(numbers, rows_BK) > 0),
            "labels_BK": self._labels(numbers, rows_BK),
        }
        return Trainer._prepare_inputs(self, made)

    def _labels(self, numbers: Sequence[int], rows_BK: np.ndarray) -> Tensor:
        """What each candidate is worth `[B, K]`."""
        if isinstance(self.drawing, ListedScores):
            return torch.from_numpy(self.drawing.scores(numbers, rows_BK))
        if self.judge is None:
            return torch.from_numpy(self.drawing.grades(numbers, rows_BK))
        with self.judge.scorer.counted(self.record):
            log_probs_BKT, mask_BT = self.judge.log_probs(numbers, rows_BK)
        return target_values(torch.from_numpy(log_probs_BKT), torch.from_numpy(mask_BT), "mean")

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean over this process's questions."""
        present_BK, labels_BK = inputs["present_BK"], inputs["labels_BK"]
        logits_P = encode_chunks(model, inputs["pairs"], recompute=self.config.mini_batch_size is not None)
        scores_BK = logits_P.new_zeros(present_BK.shape).masked_scatter(present_BK, logits_P) / self.config.temperature
        loss = self.loss(scores_BK, labels_BK, inputs["positive_BK"], present_BK)
        self._record_first(scores_BK.detach(), inputs["positive_BK"], present_BK)
        return (loss, {"scores": scores_BK}) if return_outputs else loss

    def loss(self, scores_BK: Tensor, labels_BK: Tensor, positive_BK: Tensor, present_BK: Tensor) -> Tensor:
        """See the module's docstring; the scores are divided by the temperature already."""
        config = self.config
        match config.objective:
            case "ranknet":
                return ranknet_loss(scores_BK, labels_BK, present_BK)
            case "lambda":
                return lambda_loss(scores_BK, labels_BK, present_BK)
            case "pairwise":
                return pairwise_loss(scores_BK, labels_BK, present_BK, config.margin)
            case "margin_mse":
                return margin_mse_loss(scores_BK, labels_BK, _or_best(positive_BK, labels_BK, present_BK), present_BK)
        log_scores_BK = candidate_log_probs(scores_BK, 1.0, present_BK)
        if config.labels != "positives":
            temperature = float(config.target_temperature or 1.0)  # `check_config` settled it
            target_BK = candidate_log_probs(labels_BK, temperature, present_BK).exp()
        else:
            target_BK = labels_BK / labels_BK.sum(dim=1, keepdim=True)
        return (kl_loss if config.objective == "kl" else listwise_loss)(log_scores_BK, target_BK)

    def _record_first(self, scores_BK: Tensor, positive_BK: Tensor, present_BK: Tensor) -> None:
        """How often a gold passage has the highest score of the candidates, where one is among them."""
        known_B = positive_BK.any(dim=1)
        if known_B.any():
            first_B = scores_BK.masked_fill(~present_BK, NO_PASSAGE).argmax(dim=1, keepdim=True)
            self.record("gold_first", positive_BK.gather(1, first_B)[known_B].float().mean())
        self.record("candidates", present_BK.sum(dim=1).float().mean())


def _or_best(positive_BK: Tensor, labels_BK: Tensor, present_BK: Tensor) -> Tensor:
    """`positive_BK`, and in rows without any the candidate of the highest label."""
    best_BK = F.one_hot(labels_BK.masked_fill(~present_BK, NO_PASSAGE).argmax(dim=1), labels_BK.shape[1]).bool()
    return torch.where(positive_BK.any(dim=1, keepdim=True), positive_BK, best_BK & present_BK)
