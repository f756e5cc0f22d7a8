"""The keys of CTL, and which of them go together and with what data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rag_experiments.algorithms.ctl_teacher import TeacherLoss
from rag_experiments.algorithms.shared.multiple_positives import Form, Positives
from rag_experiments.config.key_sections import as_yaml
from rag_experiments.config.schema import (
    CrossEncoderConfig,
    EncoderConfig,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    RunConfig,
)
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData


@dataclass(kw_only=True)
class CTLConfig:
    """Hyper-parameters of CTL."""

    name: str = "ctl"
    """The algorithm's name, which stands in the run's path and in messages."""
    temperature: PositiveFloat = 0.05
    """The scores are divided by it: the lower, the more the hardest negatives count. 0.05 is for cosines, as in
    sentence-transformers; DPR has 1 for dot products."""
    hard_negatives: NonNegativeInt = 1
    """Listed or mined negatives taken for each question, drawn anew each epoch; 1 as in DPR."""
    negatives: Literal["listed", "mined", "both"] = "listed"
    """Where hard negatives come from: those that the data lists, those that the encoder being trained puts first
    (ANCE), or both together."""
    refresh_every: NonNegativeInt = 0
    """With mined negatives, optimiser steps between two searches by the current encoder; 0 keeps those of the start."""
    first_rank: PositiveInt = 1
    """The first rank that is mined, gold passages not counted; a higher one skips the likeliest unlabelled
    positives."""
    last_rank: PositiveInt = 50
    """The last rank that is mined; `hard_negatives` of the ranks are drawn."""
    margin: Annotated[float, Field(ge=0, lt=1)] | None = 0.05
    """Of mined negatives, drop those that the encoder scores higher than the gold passage less this share of its score:
    0.05 keeps what is below 95 % of it (NV-Retriever). Null drops none."""
    margin_absolute: Annotated[float, Field(ge=0)] | None = None
    """The same with a difference of scores in the place of a share; both may be given."""
    guide: EncoderConfig | CrossEncoderConfig | None = None
    """A frozen model that says which passages are no negatives of a question (GISTEmbed), chosen with
    `model@algorithm.guide=…`: an encoder, for all passages of the batch; or a cross-encoder, which drops mined
    negatives."""
    guide_margin: Annotated[float, Field(ge=0)] = 0.0
    """A passage is no negative where the guide scores it higher than the gold passage less this; 0 is as published."""
    teacher: CrossEncoderConfig | None = None
    """A frozen reranker that teaches what the question's own positive and hard negatives are worth, chosen with
    `model@algorithm.teacher=…`."""
    teacher_loss: TeacherLoss = "kl"
    """What is learnt of the teacher: its distribution over these passages (`kl`), or its margins between the positive
    and each negative (`margin_mse`)."""
    teacher_weight: PositiveFloat = 1.0
    """The teacher's loss is multiplied by it."""
    contrastive_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """With a teacher, the contrastive loss is multiplied by it; 0 leaves it out."""
    teacher_temperature: PositiveFloat = 1.0
    """The teacher's logits are divided by it. With `margin_mse` cosines differ by 2 at most, and 10 fits logits between
    -10 and 10."""
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


MINED_ONLY = ("refresh_every", "first_rank", "last_rank", "margin", "margin_absolute")
"""Keys that say how negatives are mined."""


def check_options(own: CTLConfig) -> None:
    """Refuse options that would have no effect, or that contradict each other.

    Raises:
        RequestError: the first of them, with what would be right.
    """
    if own.positives == "multi" and not own.mask_known_positives:
        raise RequestError(
            "algorithm.mask_known_positives=false has no effect with algorithm.positives=multi, where every known "
            "positive in the batch is a positive: leave it out"
        )
    if own.negatives == "listed":
        refuse_changed(own, MINED_ONLY, "is about mined negatives: add algorithm.negatives=mined, or leave it out")
    elif own.hard_negatives == 0:
        raise RequestError(
            f"algorithm.negatives={own.negatives} with algorithm.hard_negatives=0 mines negatives and shows none: take "
            "1 or more"
        )
    if own.guide is None:
        refuse_changed(own, ("guide_margin",), "is the guide's: add model@algorithm.guide=minilm, or leave it out")
    elif isinstance(own.guide, CrossEncoderConfig) and own.negatives == "listed":
        raise RequestError(
            f"algorithm.guide.path={own.guide.path} is a cross_encoder, which reads pairs and so filters mined "
            "negatives only: add algorithm.negatives=mined, or take an encoder"
        )
    check_teacher_options(own)
    if own.first_rank > own.last_rank:
        raise RequestError(f"algorithm.first_rank={own.first_rank} is beyond algorithm.last_rank={own.last_rank}")


def check_teacher_options(own: CTLConfig) -> None:
    """See `check_options`: those of the teacher."""
    if own.teacher is None:
        reason = "is about a teacher: add model@algorithm.teacher=minilm_reranker_msmarco, or leave it out"
        refuse_changed(own, ("teacher_loss", "teacher_weight", "contrastive_weight", "teacher_temperature"), reason)
        return
    if own.hard_negatives == 0:
        raise RequestError(
            "algorithm.hard_negatives=0 leaves the teacher one passage a question, nothing to compare: take 1 or more"
        )
    if own.contrastive_weight == 0:
        reason = "is about the contrastive loss, and algorithm.contrastive_weight=0 leaves it out: leave it out too"
        refuse_changed(own, ("symmetric", "mask_known_positives", "positives_sum"), reason)
        if isinstance(own.guide, EncoderConfig):
            raise RequestError(f"algorithm.guide.path={own.guide.path} {reason}")


def refuse_changed(own: CTLConfig, names: tuple[str, ...], reason: str) -> None:
    """Raise `RequestError` for the first of the keys `names` that is not at its default."""
    for name in names:
        value = getattr(own, name)
        if value != getattr(CTLConfig, name):
            raise RequestError(f"algorithm.{name}={as_yaml(value)} {reason}")


def check_negatives(config: RunConfig, data: RagData, examples: int) -> None:
    """Refuse what the options ask of the data about negatives, and it lacks.

    Args:
        examples: training examples of an epoch.

    Raises:
        RequestError: a batch of one question that no hard negative is contrasted with, since its loss is 0; ranks
            that the corpus does not have; negatives of the list where there is none.
    """
    own, train = config.algorithm, data.splits["train"]
    lists = any(question.negative_ids for question in train)
    if own.negatives != "listed" and own.first_rank >= len(data.passages):
        raise RequestError(
            f"algorithm.first_rank={own.first_rank}: the corpus has {len(data.passages)} passages, gold ones among "
            "them, so no negative is left"
        )
    if own.teacher is not None and own.negatives == "listed" and not lists:
        raise RequestError(
            "algorithm.teacher compares a question's positive with its hard negatives, and no training question lists "
            "negatives (negative_ids): add algorithm.negatives=mined, or list some with "
            "python -m rag_experiments.data.mine"
        )
    if own.negatives == "both" and not lists:
        raise RequestError(
            "algorithm.negatives=both: no training question lists negatives (negative_ids); take "
            "algorithm.negatives=mined"
        )
    each = config.trainer.get("per_device_train_batch_size", 8)
    together = min(each * int(os.environ.get("WORLD_SIZE", "1")), examples)
    if together == 1 and not (own.hard_negatives and (lists or own.negatives != "listed")):
        raise RequestError(
            f"trainer.per_device_train_batch_size={each} with {len(train)} training questions: a question alone in "
            "its batch has nothing to be told apart from; take 2 or more, or list negatives "
            "(python -m rag_experiments.data.mine) with algorithm.hard_negatives=1"
        )
