r"""CTL: contrastive learning of an encoder (Karpukhin et al. 2020, DPR; Izacard et al. 2021; Wang et al. 2022, E5).

    L = -1/B Σ_i log [ exp(s(q_i, p_i)/τ) / Σ_{j ∈ C_i} exp(s(q_i, p_j)/τ) ]

C_i is every passage of the batch, on every process, hard negatives included, less those known to be
positive for q_i (p_i itself stays). Where a question has several gold passages, `positives` says which of them the
batch shows: one of them, drawn anew each epoch; each in an example of its own; or several at once, with the loss of
`shared/multiple_positives.py`. Judgements with grades weigh.

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

import torch
import torch.nn.functional as F

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.algorithms.shared.gathering import gather_rows, gather_with_gradient
from rag_experiments.algorithms.shared.multiple_positives import (
    ContrastiveExample,
    Form,
    Positives,
    count_examples,
    make_examples,
    multi_positive_loss,
    positive_grades,
)
from rag_experiments.config.schema import NonNegativeInt, PositiveFloat, PositiveInt, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.queries import retrieval_query

NO_ROW = -1  # pads lists of passage rows


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
    positives: Positives = "one"
    """Of the gold passages of a question an epoch shows `one`, drawn anew; with `pairs` each, in an example of its
    own; with `multi` several in one example. The others are never its negatives, whichever is shown."""
    positives_per_question: PositiveInt = 4
    """With `positives: multi`, how many an example shows at most, drawn anew each epoch."""
    positives_sum: Form = "outside"
    """With `positives: multi`, where the sum over them stands: `outside` or `inside` the logarithm (SupCon's forms)."""
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
class _BatchLabels:
    """Which passages of the batch, of every process, are whose positives. Columns are passages."""

    target_B: torch.Tensor
    known_BP: torch.Tensor
    """True for the known positives of a question; with `multi` for none: they are its positives in the loss."""
    repeated_BP: torch.Tensor
    """True for columns that count elsewhere: several processes may have drawn one passage."""
    grades_BP: torch.Tensor | None
    """With `multi`, the grade of each passage as a positive, 0 where it is none."""
    weight_B: torch.Tensor | None
    """With `pairs`, the weight of each example."""


@dataclass(frozen=True)
class _Asking:
    """The questions of every process, and what each of them knows."""

    queries_QD: torch.Tensor
    known_QP: torch.Tensor
    grades_QP: torch.Tensor | None
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
    def check_config(cls, config: RunConfig) -> None:
        """Refuse an option that would have no effect."""
        own = config.algorithm
        if own.positives == "multi" and not own.mask_known_positives:
            raise RequestError(
                "algorithm.mask_known_positives=false has no effect with algorithm.positives=multi, where every known "
                "positive in the batch is a positive: leave it out"
            )

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Refuse a batch of one question that no listed negative is contrasted with: its loss is 0."""
        train = data.splits["train"]
        examples = cls.count_examples(config, data)
        each = config.trainer.get("per_device_train_batch_size", 8)
        together = min(each * int(os.environ.get("WORLD_SIZE", "1")), examples)
        listed = config.algorithm.hard_negatives and any(question.negative_ids for question in train)
        if together == 1 and not listed:
            raise RequestError(
                f"trainer.per_device_train_batch_size={each} with {len(train)} training questions: a question alone in "
                "its batch has nothing to be told apart from; take 2 or more, or list negatives "
                "(python -m rag_experiments.data.mine) with algorithm.hard_negatives=1"
            )

    @classmethod
    def count_examples(cls, config: RunConfig, data: RagData) -> int:
        """Questions, or with `positives: pairs` pairs of a question and a gold passage."""
        return count_examples(data.splits["train"], config.algorithm.positives)

    def training_examples(self) -> Examples:
        data = self.components.data
        return Examples(make_examples(data.splits["train"], data.passages, self.config.positives), self._draw)

    def _draw(self, example: ContrastiveExample, epoch: int) -> dict[str, Any]:
        """The positives shown and up to `hard_negatives` negatives: a function of seed, example and epoch alone."""
        name = example.question.id
        if self.config.positives == "pairs":  # each pair of a question meets other negatives
            name = f"{name}/{example.targets[0]}"
        generator = random.Random(f"{self.components.config.seed}/{epoch}/{name}")
        most = self.config.positives_per_question if self.config.positives == "multi" else 1
        targets = example.sample_targets(generator, most)
        count = min(self.config.hard_negatives, len(example.negatives))
        return {
            "query": retrieval_query(example.question, self.components.config.data.query_history),
            "targets": targets,
            "negatives": generator.sample(example.negatives, count),
            "positives": list(example.positives),
            "grades": list(example.grades),
            "weight": example.weight,
        }

    def collate(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Query and passage sub-batches, `passage_rows_P`, `target_B`, each question's positives and their grades."""
        # A dict keeps the first occurrence's place: targets first, in the order of their questions.
        all_rows = [row for name in ("targets", "negatives") for f in features for row in f[name]]
        rows = list(dict.fromkeys([f["targets"][0] for f in features] + all_rows))
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
            "target_B": torch.tensor([column[f["targets"][0]] for f in features]),
            "positive_rows_BM": _padded([f["positives"] for f in features], most, NO_ROW),
            "grades_BM": _padded([f["grades"] for f in features], most, 0.0),
            "weight_B": torch.tensor([f["weight"] for f in features]),
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
        labels = self._labels(inputs, offset)
        asking = self._questions_of_all(queries_BD, labels) if self.config.symmetric else None
        losses = [
            self._loss_at(dim, queries_BD, passages_PD, labels, asking) for dim in self._dimensions(queries_BD.shape[1])
        ]
        loss = torch.stack(losses).mean()
        self.record("negatives_per_question", _negatives(labels))
        return (loss, {"queries": queries_BD, "passages": passages_PD}) if return_outputs else loss

    def _labels(self, inputs: dict[str, Any], offset: int) -> _BatchLabels:
        """Of the passages of every process, for this process's questions; its own passages begin at `offset`."""
        rows_P, positives_BM = gather_rows(inputs["passage_rows_P"]), inputs["positive_rows_BM"]
        target_B = inputs["target_B"] + offset
        multi = self.config.positives == "multi"
        none_BP = torch.zeros((len(target_B), len(rows_P)), dtype=torch.bool, device=rows_P.device)
        return _BatchLabels(
            target_B,
            none_BP if multi or not self.config.mask_known_positives else known_positives(rows_P, positives_BM),
            repeats(rows_P, target_B),
            positive_grades(rows_P, positives_BM, inputs["grades_BM"]) if multi else None,
            inputs["weight_B"] if self.config.positives == "pairs" else None,
        )

    def _questions_of_all(self, queries_BD: torch.Tensor, labels: _BatchLabels) -> _Asking:
        """The questions of every process, for the way back from the passages."""
        queries_QD, offset = gather_with_gradient(queries_BD)
        grades_QP = None if labels.grades_BP is None else gather_rows(labels.grades_BP)
        return _Asking(queries_QD, gather_rows(labels.known_BP.long()).bool(), grades_QP, offset)

    def _loss_at(
        self,
        dimension: int,
        queries_BD: torch.Tensor,
        passages_PD: torch.Tensor,
        labels: _BatchLabels,
        asking: _Asking | None,
    ) -> torch.Tensor:
        similarity, temperature = self.components.model.similarity, self.config.temperature
        passages_PD = self._leading(passages_PD, dimension)
        scores_BP = similarity(self._leading(queries_BD, dimension), passages_PD)
        asked_QD = None if asking is None else self._leading(asking.queries_QD, dimension)
        if labels.grades_BP is not None:
            form = self.config.positives_sum
            loss = multi_positive_loss(scores_BP, labels.grades_BP, labels.repeated_BP, temperature, form)
            if asking is None:
                return loss
            # From each passage that is a positive of a question of this process back to all questions.
            own_C = ((labels.grades_BP > 0) & ~labels.repeated_BP).any(dim=0).nonzero().flatten()
            assert asking.grades_QP is not None
            grades_CQ = asking.grades_QP[:, own_C].T
            back_CQ = similarity(asked_QD, passages_PD[own_C]).T
            none_CQ = torch.zeros_like(grades_CQ, dtype=torch.bool)
            return (loss + multi_positive_loss(back_CQ, grades_CQ, none_CQ, temperature, form)) / 2
        target_B, weight_B = labels.target_B, labels.weight_B
        loss = ctl_loss(scores_BP, target_B, labels.known_BP | labels.repeated_BP, temperature, weight_B)
        if asking is None:
            return loss
        # From each question's own passage back to all questions, less those it is a known positive of.
        back_BQ = similarity(asked_QD, passages_PD[target_B]).T
        own_B = torch.arange(len(target_B), device=target_B.device) + asking.offset
        return (loss + ctl_loss(back_BQ, own_B, asking.known_QP[:, target_B].T, temperature, weight_B)) / 2

    def _leading(self, vectors_ND: torch.Tensor, dimension: int) -> torch.Tensor:
        """The first `dimension` values of each vector; a part of a unit vector is none, so it is made one."""
        if dimension == vectors_ND.shape[1]:
            return vectors_ND
        part_ND = vectors_ND[:, :dimension]
        return F.normalize(part_ND, dim=-1) if self.components.model.config.similarity == "cosine" else part_ND

    def _dimensions(self, full: int) -> Sequence[int]:
        return sorted({full, *(dim for dim in self.config.matryoshka_dims or [] if dim <= full)}, reverse=True)


def _negatives(labels: _BatchLabels) -> torch.Tensor:
    """Mean number of passages a question is contrasted with."""
    positive_BP = F.one_hot(labels.target_B, labels.known_BP.shape[1]).bool()
    if labels.grades_BP is not None:
        positive_BP = labels.grades_BP > 0
    return (~(labels.known_BP | labels.repeated_BP | positive_BP)).sum(dim=1).float().mean()


def _padded(rows: list[list[Any]], width: int, filling: float) -> torch.Tensor:
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows])
