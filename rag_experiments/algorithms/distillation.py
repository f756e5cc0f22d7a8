"""What DCA and RPG share: an encoder learns from a frozen teacher's scores of its own candidate passages.

A question's K candidates stand in one order, that of `candidates.rows_QK`; the encoder's and the teacher's scores are
both `[B, K]` matrices in it, and a place without a candidate (-1) has no weight in either.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples, check_add_gold
from rag_experiments.algorithms.shared.batches import encode_chunks, length_sorted_chunks
from rag_experiments.config.schema import RunConfig
from rag_experiments.core import distributed
from rag_experiments.data.load import RagData
from rag_experiments.data.queries import retrieval_query
from rag_experiments.retrieval.candidates import Candidates, RefreshCandidates

CandidateCount = Annotated[int, Field(ge=2)]
"""K: of a single candidate every distribution over the candidates is the same, and nothing is learnt."""

Distributions = Mapping[str, Tensor]
SCORED_AT_A_TIME = 4096  # questions whose prompts are in memory together

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


class CandidateTrainer(AlgorithmTrainer):
    """An encoder that learns over its own candidates. Subclasses implement `open_judge` and `compute_loss`.

    `config` has `candidates`, `mini_batch_size`, `sub_batch_size`, `add_gold` and `refresh_every`.
    """

    trains = frozenset({"encoder"})
    passages_learn = True
    """Whether the passages' vectors have a gradient, or the questions' alone."""
    config: Any
    candidates: Any
    """`Candidates`, or whatever else has `rows_QK`."""

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Raises `RequestError` for `add_gold` where no gold passage is known."""
        check_add_gold(config, data)

    def open_judge(self) -> None:
        """Get ready what scores candidates, before any are searched for."""
        raise TypeError(f"{type(self).__name__} must implement open_judge()")

    def make_candidates(self, golds: Sequence[Sequence[int]] | None) -> Any:
        """The encoder's own best `algorithm.candidates` of the corpus for each question; `golds` are put among them.

        Where the algorithm has `refresh`, `questions` keeps the passage vectors of the start.
        """
        mode: Any = getattr(self.config, "refresh", "corpus")
        return Candidates(self.components.retriever, self.queries, self.config.candidates, golds=golds, mode=mode)

    # -- preparing -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Questions, what scores their candidates, and the candidates."""
        components = self.components
        self.questions = components.data.splits["train"]
        self.queries = [retrieval_query(question, components.config.data.query_history) for question in self.questions]
        self.golds = [components.data.passages.rows(question.positive_ids).tolist() for question in self.questions]
        self.open_judge()
        self.candidates = self.make_candidates(self.golds if self.config.add_gold else None)
        if isinstance(self.candidates, Candidates):
            self.add_callback(
                RefreshCandidates(self.candidates, self.config.refresh_every, self.record, self.preparing)
            )
        super().prepare()

    def save_more(self, folder: Path) -> None:
        """The candidates, so that a resumed run goes on with the same."""
        if isinstance(self.candidates, Candidates):
            self.candidates.save(folder)

    def training_examples(self) -> Examples:
        """Numbers of questions: their candidates are looked up when the step is computed."""
        return Examples(range(len(self.questions)))

    # -- a step --------------------------------------------------------------------------------------

    def collate(self, features: list[int]) -> dict[str, Any]:
        """Query sub-batches and `questions_B`."""
        encoder = self.components.model
        token_ids = encoder.tokenize_queries([self.queries[number] for number in features])
        return {
            "queries": length_sorted_chunks(encoder, token_ids, self._chunk_size),
            "questions_B": torch.tensor(features),
        }

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add the candidates: now, since a batch is collated ahead of its step, and a refresh may lie between."""
        inputs = super()._prepare_inputs(inputs)
        rows_BK = self.candidates.rows_QK[inputs["questions_B"].tolist()]
        present_BK = torch.from_numpy(rows_BK >= 0).to(self.components.model.device)
        return {**inputs, "rows_BK": rows_BK, "present_BK": present_BK}

    @property
    def _chunk_size(self) -> int:
        return self.config.mini_batch_size or self.config.sub_batch_size

    def encoder_scores(self, model: Callable[..., Tensor], queries: dict[str, Any], rows_BK: np.ndarray) -> Tensor:
        """s(q, p_k) `[B, K]`, fp32; each passage of the batch encoded once. Empty places hold passage 0's.

        `model` is the encoder, or what calls it where others learn beside it.
        """
        encoder = self.components.model
        recompute = self.config.mini_batch_size is not None
        queries_BD = encode_chunks(model, queries, recompute)
        rows_P, column_BK = np.unique(np.maximum(rows_BK, 0), return_inverse=True)
        texts = self.components.data.passages.full_texts(rows_P.tolist())
        chunks = length_sorted_chunks(encoder, encoder.tokenize_passages(texts), self._chunk_size)
        self.tokens_seen += sum(int(chunk["attention_mask"].sum()) for chunk in chunks["chunks"])
        # After the questions: weights that autocast has cast for the passages alone would carry no gradient.
        with torch.set_grad_enabled(self.passages_learn and torch.is_grad_enabled()):
            passages_PD = encode_chunks(model, Trainer._prepare_inputs(self, chunks), recompute)
        scores_BP = encoder.similarity(queries_BD, passages_PD)
        return scores_BP.gather(1, torch.from_numpy(column_BK.reshape(rows_BK.shape)).to(scores_BP.device))

    def record_agreement(self, numbers: Sequence[int], rows_BK: np.ndarray, log_probs: Distributions) -> None:
        """How often a gold passage is among the candidates, and how often each distribution puts one first."""
        gold_BK = np.array([np.isin(rows_BK[b], self.golds[number]) for b, number in enumerate(numbers)])
        known = [b for b, number in enumerate(numbers) if self.golds[number]]
        if known:
            self.record("gold_in_candidates", float(gold_BK[known].any(1).mean()))
        found = gold_BK.any(1)
        if not found.any():
            return
        empty_BK = torch.from_numpy(rows_BK < 0)
        for name, given_BK in log_probs.items():
            first_B = given_BK.detach().cpu().masked_fill(empty_BK, NO_PASSAGE).argmax(1).numpy()
            self.record(f"{name}_agrees_with_gold", float(gold_BK[np.arange(len(numbers)), first_B][found].mean()))


class DistillationTrainer(CandidateTrainer):
    """A frozen teacher scores the candidates. Subclasses implement `open_teacher`, `teacher_scores` and `loss`.

    Candidates and the teacher's scores are prepared: before training, and after each refresh for the steps until the
    next. A step reads them; a score that it does not find is computed then, which is right and slow.
    """

    # -- what a subclass says ------------------------------------------------------------------------

    def open_teacher(self) -> None:
        """Open the frozen model that scores candidates."""
        raise TypeError(f"{type(self).__name__} must implement open_teacher()")

    def teacher_scores(
        self, numbers: Sequence[int], rows_BK: np.ndarray, progress: bool = False
    ) -> list[dict[str, Tensor]]:
        """What the teacher says of the candidates of each question: tensors by name, on the CPU, cached on disk."""
        raise TypeError(f"{type(self).__name__} must implement teacher_scores()")

    def loss(self, scores_BK: Tensor, teacher: dict[str, Tensor], present_BK: Tensor) -> tuple[Tensor, Distributions]:
        """The loss of the encoder's scores, mean over B, and the log-probabilities to log: name → `[B, K]`.

        Args:
            scores_BK: s(q, p_k).
            teacher: what `teacher_scores` gave, by name, padded with zeros to `[B, …]`, on the same device.
            present_BK: False where there is no k-th candidate.
        """
        raise TypeError(f"{type(self).__name__} must implement loss()")

    # -- scores --------------------------------------------------------------------------------------

    def open_judge(self) -> None:
        """See `open_teacher`."""
        self.open_teacher()

    def prepare(self) -> None:
        """As above; the first scores come when the number of steps is known."""
        self._known: dict[int, tuple[bytes, dict[str, Tensor]]] = {}
        super().prepare()
        self.add_callback(PrepareScores(self))

    def prepare_scores(self, numbers: Sequence[int]) -> None:
        """Fill the teacher's cache for these questions, each process a share, with a progress bar."""
        with self.preparing():
            rows_QK = self.candidates.rows_QK
            mine = distributed.own_share(numbers)
            for start in range(0, len(mine), SCORED_AT_A_TIME):
                some = mine[start : start + SCORED_AT_A_TIME]
                self._ask(some, rows_QK[some], progress=True)
            self.accelerator.wait_for_everyone()

    def scores_of(self, numbers: Sequence[int], rows_BK: np.ndarray) -> dict[str, Tensor]:
        """The teacher's scores of a batch: those that were prepared for the same candidates, or asked for now."""
        rows = [row_K.tobytes() for row_K in rows_BK]
        missing = [b for b, number in enumerate(numbers) if self._known.get(number, (b"",))[0] != rows[b]]
        if missing:
            self._ask([numbers[b] for b in missing], rows_BK[missing])
        return padded_stack([self._known[number][1] for number in numbers])

    def _ask(self, numbers: Sequence[int], rows_BK: np.ndarray, progress: bool = False) -> None:
        found = self.teacher_scores(numbers, rows_BK, progress)
        for number, row_K, scores in zip(numbers, rows_BK, found, strict=True):
            self._known[number] = row_K.tobytes(), scores

    # -- a step --------------------------------------------------------------------------------------

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add the teacher's scores of the candidates."""
        inputs = super()._prepare_inputs(inputs)
        teacher = self.scores_of(inputs["questions_B"].tolist(), inputs["rows_BK"])
        device = self.components.model.device
        return {**inputs, "teacher": {name: tensor.to(device) for name, tensor in teacher.items()}}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean over this process's questions."""
        rows_BK = inputs["rows_BK"]
        scores_BK = self.encoder_scores(model, inputs["queries"], rows_BK)
        loss, log_probs = self.loss(scores_BK, inputs["teacher"], inputs["present_BK"])
        self.record_agreement(inputs["questions_B"].tolist(), rows_BK, log_probs)
        return (loss, {"scores": scores_BK}) if return_outputs else loss


def padded_stack(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of one name stacked to `[B, …]`, filled up with zeros where they differ in size."""
    stacked = {}
    for name in rows[0]:
        tensors = [row[name] for row in rows]
        shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
        whole = tensors[0].new_zeros((len(tensors), *shape))
        for b, tensor in enumerate(tensors):
            place: Any = (b, *(slice(size) for size in tensor.shape))
            whole[place] = tensor
        stacked[name] = whole
    return stacked


class PrepareScores(TrainerCallback):
    """Has the trainer prepare scores when training begins and after each refresh, for the steps until the next one.

    It comes after `RefreshCandidates`, which gives a resumed run its candidates back.
    """

    def __init__(self, trainer: Any):
        """`trainer` is a `DistillationTrainer`, or whatever else has what `prepare` asks for."""
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """The questions of the steps until the first refresh, or of all steps."""
        self._prepare(state, train_dataloader)

    def on_step_end(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """The new candidates; those that stayed are known."""
        every = self.trainer.config.refresh_every
        if every and state.global_step % every == 0 and state.global_step < state.max_steps:
            self._prepare(state, train_dataloader)

    def _prepare(self, state: Any, loader: Any) -> None:
        every = self.trainer.config.refresh_every
        first = state.global_step
        self.prepare(first, min(state.max_steps, (first // every + 1) * every) if every else state.max_steps, loader)

    def prepare(self, first: int, last: int, loader: Any) -> None:
        """The questions of optimiser steps `first` to `last` (exclusive)."""
        everything = getattr(self.trainer.config, "prescore", False)
        count = len(self.trainer.questions)
        args = self.trainer.args
        numbers = list(range(count))
        if not everything:
            numbers = coming_examples(loader, first, last, args.gradient_accumulation_steps, args.world_size)
        self.trainer.prepare_scores(numbers)


def coming_examples(loader: Any, first_step: int, last_step: int, accumulation: int, processes: int) -> list[int]:
    """Numbers of the examples of optimiser steps `first_step` to `last_step` (exclusive), of all processes, each once.

    All examples where the loader's order cannot be asked for ahead. Several processes take whole batches in turn, and
    accelerate fills up an epoch's last round from the epoch's first one (`BatchSamplerShard`, `even_batches`).
    """
    steps = max(1, math.ceil(len(loader) / accumulation))
    batches = loader.batch_sampler
    while hasattr(batches, "batch_sampler"):  # one process's share of the batches
        batches = batches.batch_sampler
    sampler: Any = copy.copy(getattr(batches, "sampler", None))
    if not hasattr(sampler, "set_epoch") or last_step - first_step >= steps:
        return list(range(len(loader.dataset)))
    if getattr(sampler, "generator", None) is not None:  # seeded by the epoch; the loader's own must stay as it is
        sampler.generator = torch.Generator()
    each = batches.batch_size * processes  # examples of a round: a batch for every process
    size = each * accumulation
    found: dict[int, None] = {}
    for epoch in range(first_step // steps, (last_step - 1) // steps + 1):
        sampler.set_epoch(epoch)
        start, end = max(0, first_step - epoch * steps), min(steps, last_step - epoch * steps)
        order = list(sampler)
        if processes > 1:
            order += itertools.islice(itertools.cycle(order[:each]), -len(order) % each)
        found |= dict.fromkeys(order[: len(loader) * each][start * size : end * size])
    return list(found)
