"""What DCA and RPG share: an encoder learns from a frozen reader's scores of its own candidate passages.

A question's K candidates stand in one order, that of `candidates.rows_QK`; the encoder's and the reader's scores are
both `[B, K]` matrices in it, and a place without a candidate (-1) has no weight in either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers import TrainerCallback

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples, check_add_gold
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.config.schema import RunConfig
from rag_experiments.core import distributed
from rag_experiments.data.load import RagData
from rag_experiments.data.queries import retrieval_query
from rag_experiments.retrieval.candidates import Candidates

CandidateCount = Annotated[int, Field(ge=2)]
"""K: of a single candidate every distribution over the candidates is the same, and nothing is learnt."""

NO_PASSAGE = -1e9  # the score of an empty place: finite, so that 0 · log 0 stays 0


def candidate_log_probs(values_BK: Tensor, temperature: float, present_BK: Tensor | None = None) -> Tensor:
    """log softmax over the K candidates of `values_BK / temperature`; an empty place gets no weight."""
    scaled_BK = values_BK / temperature
    if present_BK is not None:
        scaled_BK = scaled_BK.masked_fill(~present_BK, NO_PASSAGE)
    return F.log_softmax(scaled_BK, dim=1)


def entropy(log_probs_BK: Tensor) -> Tensor:
    """In nats, mean over B."""
    return -(log_probs_BK.exp() * log_probs_BK).sum(1).mean()


class DistillationTrainer(AlgorithmTrainer):
    """An encoder over candidates. Subclasses set `candidates` in `before_training` and implement `score_ahead`.

    `hyper` has `mini_batch_size`, `sub_batch_size`, `add_gold` and `refresh_every`.
    """

    trains = "encoder"
    hyper: Any
    candidates: Any
    """`Candidates`, or whatever else has `rows_QK`."""

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Raises `RequestError` for `add_gold` where no gold passage is known."""
        check_add_gold(config, data)

    def before_training(self) -> None:
        """The training questions, their retrieval queries and their golds."""
        parts = self.parts
        self.questions = parts.data.splits["train"]
        self.queries = [retrieval_query(question, parts.config.data.query_history) for question in self.questions]
        self.golds = [parts.data.passages.rows(question.positive_ids).tolist() for question in self.questions]

    def search_candidates(self, **options: Any) -> Candidates:
        """The encoder's own best `algorithm.candidates` of the corpus for each question, golds among them if asked."""
        golds = self.golds if self.hyper.add_gold else None
        return Candidates(self.parts.retriever, self.queries, self.hyper.candidates, golds=golds, **options)

    def save_more(self, folder: Path) -> None:
        """The candidates, so that a resumed run goes on with the same."""
        if isinstance(self.candidates, Candidates):
            self.candidates.save(folder)

    def score_ahead(self) -> None:
        """Fill the reader's cache for this process's share of the questions."""
        raise TypeError(f"{type(self).__name__} must implement score_ahead()")

    def own_share(self, at_a_time: int) -> list[list[int]]:
        """Numbers of the questions that this process scores ahead, in blocks of at most `at_a_time`."""
        mine = list(distributed.own_share(range(len(self.questions))))
        return [mine[start : start + at_a_time] for start in range(0, len(mine), at_a_time)]

    def training_examples(self) -> Examples:
        """Numbers of questions: their candidates are looked up when the step is computed."""
        return Examples(range(len(self.questions)))

    def collate(self, features: list[int]) -> dict[str, Any]:
        """Query sub-batches and `questions_B`."""
        encoder = self.parts.model
        token_ids = encoder.tokenize_queries([self.queries[number] for number in features])
        return {
            "queries": length_sorted_chunks(encoder, token_ids, self._chunk_size),
            "questions_B": torch.tensor(features),
        }

    @property
    def _chunk_size(self) -> int:
        return self.hyper.mini_batch_size or self.hyper.sub_batch_size

    def encoder_scores(self, model: torch.nn.Module, queries: dict[str, Any], rows_BK: np.ndarray) -> Tensor:
        """s(q, p_k) `[B, K]`, fp32; each passage of the batch encoded once. Empty places hold passage 0's."""
        encoder = self.parts.model
        recompute = self.hyper.mini_batch_size is not None
        queries_BD = encode_chunks(model, queries, recompute)
        rows_P, column_BK = np.unique(np.maximum(rows_BK, 0), return_inverse=True)
        texts = self.parts.data.passages.full_texts(rows_P.tolist())
        chunks = length_sorted_chunks(encoder, encoder.tokenize_passages(texts), self._chunk_size)
        self.tokens_seen += sum(int(chunk["attention_mask"].sum()) for chunk in chunks["chunks"])
        passages_PD = encode_chunks(model, self._prepare_inputs(chunks), recompute)
        scores_BP = encoder.similarity(queries_BD, passages_PD)
        return scores_BP.gather(1, torch.from_numpy(column_BK.reshape(rows_BK.shape)).to(scores_BP.device))

    def record_agreement(self, numbers: Sequence[int], rows_BK: np.ndarray, **values_BK: Tensor) -> None:
        """How often a gold passage is among the candidates, and how often each of `values_BK` puts one first."""
        gold_BK = np.array([np.isin(rows_BK[b], self.golds[number]) for b, number in enumerate(numbers)])
        known = [b for b, number in enumerate(numbers) if self.golds[number]]
        if known:
            self.record("gold_in_candidates", float(gold_BK[known].any(1).mean()))
        found = gold_BK.any(1)
        if not found.any():
            return
        empty_BK = torch.from_numpy(rows_BK < 0)
        for name, given_BK in values_BK.items():
            first_B = given_BK.cpu().masked_fill(empty_BK, NO_PASSAGE).argmax(1).numpy()
            self.record(f"{name}_agrees_with_gold", float(gold_BK[np.arange(len(numbers)), first_B][found].mean()))


class ScoreAhead(TrainerCallback):
    """Calls `trainer.score_ahead` when training begins and after each refresh: the steps then only read its cache.

    `partly`: also where training ends before every question is met, so that pairs are scored that no step asks for.
    """

    def __init__(self, trainer: DistillationTrainer, partly: bool = False):
        self.trainer = trainer
        self.partly = partly

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After `RefreshCandidates`, which gives a resumed run its candidates back."""
        self._score(state.max_steps - state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The new candidates; those that stayed are known."""
        every = self.trainer.hyper.refresh_every
        if every and state.global_step % every == 0 and state.global_step < state.max_steps:
            self._score(min(every, state.max_steps - state.global_step))

    def _score(self, steps: int) -> None:
        args = self.trainer.args
        met = steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        if self.partly or met >= len(self.trainer.questions):
            self.trainer.score_ahead()
