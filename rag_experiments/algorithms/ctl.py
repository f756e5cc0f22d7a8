r"""CTL: contrastive learning of an encoder (Karpukhin et al. 2020, DPR; Izacard et al. 2021; Wang et al. 2022, E5).

    L = -1/B Σ_i log [ exp(s(q_i, p_i)/τ) / Σ_{j ∈ C_i} exp(s(q_i, p_j)/τ) ]

C_i is every passage of the batch, on every process, hard negatives included, less those known to be
positive for q_i (p_i itself stays).

Where we deviate, and why:
- A passage that occurs twice in a batch counts once: C_i is a set, on however many processes. With dropout off the
  loss is the published one whenever no passage repeats.
- Known positives are masked by passage id. On one support-article set, two questions on one passage meet
  in a batch of 256 for 44 % of the questions; unmasked, the gold passage is then its own negative.
- Batches larger than memory (`mini_batch_size`) use activation checkpointing around the encoder, a
  sub-batch at a time: the gradients and the cost of GradCache (Gao et al. 2021), one more forward,
  with the random state and autocast of the first pass kept by PyTorch instead of by us.
- Sub-batches are sorted by length, which saves the padding and changes nothing else.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.algorithms.shared.gathering import gather_rows, gather_with_gradient
from rag_experiments.config.schema import NonNegativeInt, PositiveFloat, PositiveInt, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.queries import retrieval_query
from rag_experiments.data.records import Question

NO_ROW = -1  # pads lists of passage rows


def ctl_loss(
    scores_BP: torch.Tensor, target_B: torch.Tensor, excluded_BP: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean cross-entropy of each question's target among the passages that are not excluded.

    Args:
        scores_BP: s(q_i, p_j).
        target_B: column of each question's own positive.
        excluded_BP: True where p_j is another known positive of q_i. The target may be marked: it stays.
        temperature: τ.
    """
    return F.cross_entropy(masked_scores(scores_BP / temperature, target_B, excluded_BP), target_B)


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


@dataclass(kw_only=True)
class CTLConfig:
    """Hyper-parameters of CTL."""

    name: str = "ctl"
    """The algorithm's name, which stands in the run's path and in messages."""
    temperature: PositiveFloat = 0.05
    """The scores are divided by it: the lower, the more the hardest negatives count. 0.05 is for cosines, as in
    sentence-transformers; DPR has 1 for dot products."""
    hard_negatives: NonNegativeInt = 1
    """Listed negatives taken for each question, drawn anew each epoch; 1 as in DPR."""
    mini_batch_size: PositiveInt | None = None
    """Texts are encoded so many at a time, and once more in the backward pass, for batches larger than memory; null
    takes the whole batch in one pass."""
    sub_batch_size: PositiveInt = 32
    """Texts of similar length are padded together, so many at a time, where `mini_batch_size` is null."""
    symmetric: bool = False
    """Add the loss from passages to questions, and halve the sum."""
    matryoshka_dims: list[PositiveInt] | None = None
    """Train these leading dimensions as well, such as [256, 128] (Kusupati et al. 2022); the loss is the mean over them
    and the whole."""
    mask_known_positives: bool = True
    """A known positive of a question is never its negative."""


@dataclass(frozen=True)
class _Asking:
    """The questions of every process, and what each of them excludes."""

    queries_QD: torch.Tensor
    excluded_QP: torch.Tensor
    offset: int
    """Where this process's own begin."""


class CTLTrainer(AlgorithmTrainer):
    """Contrastive training of an `Encoder` on questions with gold passages."""

    Config = CTLConfig
    trains = frozenset({"encoder"})
    required_fields = frozenset({"positive_ids"})
    contrasts_in_batch = True
    config: CTLConfig

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Refuse a batch of one question that no listed negative is contrasted with: its loss is 0."""
        train = data.splits["train"]
        each = config.trainer.get("per_device_train_batch_size", 8)
        together = min(each * int(os.environ.get("WORLD_SIZE", "1")), len(train))
        listed = config.algorithm.hard_negatives and any(question.negative_ids for question in train)
        if together == 1 and not listed:
            raise RequestError(
                f"trainer.per_device_train_batch_size={each} with {len(train)} training questions: a question alone in "
                "its batch has nothing to be told apart from; take 2 or more, or list negatives "
                "(python -m rag_experiments.data.mine) with algorithm.hard_negatives=1"
            )

    def training_examples(self) -> Examples:
        store = self.components.data.passages
        questions = self.components.data.splits["train"]
        items = [
            (question, store.rows(question.positive_ids), store.rows(question.negative_ids)) for question in questions
        ]
        return Examples(items, self._draw)

    def _draw(self, item: tuple[Question, np.ndarray, np.ndarray], epoch: int) -> dict[str, Any]:
        """One positive and up to `hard_negatives` negatives: a function of seed, question and epoch alone."""
        question, positives, negatives = item
        drawn = random.Random(f"{self.components.config.seed}/{epoch}/{question.id}")
        count = min(self.config.hard_negatives, len(negatives))
        return {
            "query": retrieval_query(question, self.components.config.data.query_history),
            "target": int(drawn.choice(list(positives))),
            "negatives": [int(row) for row in drawn.sample(list(negatives), count)],
            "positives": [int(row) for row in positives],
        }

    def collate(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Query and passage sub-batches, `passage_rows_P`, `target_B` and `positive_rows_BM`."""
        # A dict keeps the first occurrence's place: targets first, in the order of their questions.
        rows = list(dict.fromkeys([f["target"] for f in features] + [row for f in features for row in f["negatives"]]))
        column = {row: index for index, row in enumerate(rows)}
        most = max(len(f["positives"]) for f in features)
        encoder = self.components.model
        size = self.config.mini_batch_size or self.config.sub_batch_size
        return {
            "queries": length_sorted_chunks(encoder, encoder.tokenize_queries([f["query"] for f in features]), size),
            "passages": length_sorted_chunks(
                encoder, encoder.tokenize_passages(self.components.data.passages.full_texts(rows)), size
            ),
            "passage_rows_P": torch.tensor(rows),
            "target_B": torch.tensor([column[f["target"]] for f in features]),
            "positive_rows_BM": torch.tensor(
                [f["positives"] + [NO_ROW] * (most - len(f["positives"])) for f in features]
            ),
        }

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """See the module's docstring; the mean over this process's questions."""
        cached = self.config.mini_batch_size is not None
        queries_BD = encode_chunks(model, inputs["queries"], recompute=cached)
        own_PD = encode_chunks(model, inputs["passages"], recompute=cached)
        passages_PD, offset = gather_with_gradient(own_PD)
        passage_rows_P = gather_rows(inputs["passage_rows_P"])
        target_B = inputs["target_B"] + offset
        excluded_BP = known_positives(passage_rows_P, inputs["positive_rows_BM"])
        if not self.config.mask_known_positives:
            excluded_BP = torch.zeros_like(excluded_BP)
        repeated_BP = repeats(passage_rows_P, target_B)  # several processes may have drawn one passage

        asking = self._questions_of_all(queries_BD, excluded_BP) if self.config.symmetric else None
        losses = [
            self._loss_at(dim, queries_BD, passages_PD, target_B, excluded_BP, repeated_BP, asking)
            for dim in self._dimensions(queries_BD.shape[1])
        ]
        loss = torch.stack(losses).mean()
        self.record("negatives_per_question", _negatives(target_B, excluded_BP | repeated_BP))
        return (loss, {"queries": queries_BD, "passages": passages_PD}) if return_outputs else loss

    def _questions_of_all(self, queries_BD: torch.Tensor, excluded_BP: torch.Tensor) -> _Asking:
        """The questions of every process, for the way back from the passages."""
        queries_QD, offset = gather_with_gradient(queries_BD)
        return _Asking(queries_QD, gather_rows(excluded_BP.long()).bool(), offset)

    def _loss_at(
        self,
        dimension: int,
        queries_BD: torch.Tensor,
        passages_PD: torch.Tensor,
        target_B: torch.Tensor,
        excluded_BP: torch.Tensor,
        repeated_BP: torch.Tensor,
        asking: _Asking | None,
    ) -> torch.Tensor:
        encoder = self.components.model
        passages_PD = self._leading(passages_PD, dimension)
        scores_BP = encoder.similarity(self._leading(queries_BD, dimension), passages_PD)
        loss = ctl_loss(scores_BP, target_B, excluded_BP | repeated_BP, self.config.temperature)
        if asking is None:
            return loss
        # From each question's own passage back to all questions, less those it is a known positive of.
        back_BQ = encoder.similarity(self._leading(asking.queries_QD, dimension), passages_PD[target_B]).T
        own_B = torch.arange(len(target_B), device=target_B.device) + asking.offset
        excluded_BQ = asking.excluded_QP[:, target_B].T
        return (loss + ctl_loss(back_BQ, own_B, excluded_BQ, self.config.temperature)) / 2

    def _leading(self, vectors_ND: torch.Tensor, dimension: int) -> torch.Tensor:
        """The first `dimension` values of each vector; a part of a unit vector is none, so it is made one."""
        if dimension == vectors_ND.shape[1]:
            return vectors_ND
        part_ND = vectors_ND[:, :dimension]
        return F.normalize(part_ND, dim=-1) if self.components.model.config.similarity == "cosine" else part_ND

    def _dimensions(self, full: int) -> Sequence[int]:
        return sorted({full, *(dim for dim in self.config.matryoshka_dims or [] if dim <= full)}, reverse=True)


def _negatives(target_B: torch.Tensor, excluded_BP: torch.Tensor) -> torch.Tensor:
    """Mean number of passages a question is contrasted with."""
    counted_BP = ~(excluded_BP | F.one_hot(target_B, excluded_BP.shape[1]).bool())
    return counted_BP.sum(dim=1).float().mean()
