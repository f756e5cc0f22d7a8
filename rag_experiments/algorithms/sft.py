"""SFT: fine-tune a reader on gold passages.

    L = - 1/N Σ_i Σ_t log P(a_it | prompt(h_i, gold_i, q_i), a_i,<t)

Over answer and end token only; N is the number of supervised tokens of the whole optimiser step, over its
micro-batches and processes, so that accumulation changes nothing (a mean of means would weigh a token of
a short batch more). The reader learns to take an answer from a passage that has it; SwR (`swr.py`) is the
same with retrieved passages beside the gold ones.

An encoder-decoder that is not to read passages apart (that is FiD) trains here too.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers.trainer_pt_utils import LengthGroupedSampler

from rag_experiments.algorithms.base import AlgorithmTrainer, Examples
from rag_experiments.algorithms.shared.packing import packed_batch
from rag_experiments.algorithms.shared.reader_examples import check_examples
from rag_experiments.config.schema import ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.reader import answer_tokens
from rag_experiments.models.reader.prompts import TruncationCounts
from rag_experiments.models.reader.reader_files import check_four_bit, default_device

log = logging.getLogger(__name__)


def answer_loss(logits_NV: Tensor, targets_N: Tensor, items: Tensor | int) -> Tensor:
    """Cross-entropy of N supervised tokens, summed and divided by `items`, the optimiser step's count of them."""
    return (
        F.cross_entropy(
            logits_NV.float() if logits_NV.dtype != torch.float64 else logits_NV, targets_N, reduction="sum"
        )
        / items
    )


class ByLength(LengthGroupedSampler):
    """Batches of like length, their order drawn from seed and epoch alone: the same on every process and resumed."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(random.Random(f"{self.seed}/{self.epoch}").getrandbits(63))
        return super().__iter__()


@dataclass(kw_only=True)
class SFTConfig:
    """`algorithm:` of `algorithm=sft`."""

    name: str = "sft"
    """The algorithm's name, which stands in the run's path and in messages."""
    answer: Literal["first", "random"] = "first"
    """Which of a question's answers is learnt: the first, or another each epoch."""
    max_gold: Annotated[int, Field(ge=1)] | None = None
    """A question is read with so many of its gold passages at most; null takes all."""
    packing: bool = False
    """Put several examples into one sequence, without attention from one to another."""


def check_four_bit_training(model: ReaderConfig) -> None:
    """Raise `RequestError` where a reader in four bits cannot be trained: without a GPU, or whole."""
    if not model.load_in_4bit:
        return
    check_four_bit(default_device())
    if model.lora is None:
        raise RequestError("model.load_in_4bit=true cannot be trained whole: add adapters with model.lora.r=16.")


class SFTTrainer(AlgorithmTrainer):
    """Trainer with the loss above, on answer positions only, in batches of like length."""

    Config: ClassVar[type] = SFTConfig
    trains = frozenset({"reader"})
    required_fields = frozenset({"positive_ids", "answers"})
    scales_own_loss: ClassVar[bool] = True
    groups_by_length: ClassVar[bool] = True

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """What cannot work, before weights are read."""
        assert isinstance(config.model, ReaderConfig)  # `trains` saw to that
        if config.algorithm.packing and config.model.kind == "encoder_decoder":
            raise RequestError(
                "algorithm.packing=true needs a decoder: an encoder-decoder's inputs cannot share a row."
            )
        check_four_bit_training(config.model)

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """See `check_examples`."""
        check_examples(config, data)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Trainer counts the step's supervised tokens only for models whose forward takes loss arguments.
        self.model_accepts_loss_kwargs = True

    # -- examples --------------------------------------------------------------------------------

    def training_examples(self) -> Examples:
        """One example per question. What truncation takes from the first epoch's prompts is counted and logged."""
        self.truncation = TruncationCounts()
        self.lengths = []
        questions = self.components.data.splits["train"]
        for question in questions:
            prompt, answer = self._prompt_and_answer(question, epoch=0)
            self.truncation.add(prompt)
            self.lengths.append(len(prompt) + len(answer))
        for name, count in self.truncation.as_metrics().items():
            self.record(name, count)
        if self.truncation.prompts_truncated:
            log.warning("training: %s", self.truncation.sentence())
        return Examples(questions, self._example)

    def passages_for(self, question: Question, epoch: int) -> list[Passage]:
        """The passages of a question's prompt, in order."""
        return self.gold(question)

    def gold(self, question: Question) -> list[Passage]:
        """Its gold passages, `max_gold` at most."""
        store = self.components.data.passages
        return [store[int(row)] for row in store.rows(question.distinct_golds[: self.config.max_gold])]

    def draws(self, question: Question, epoch: int) -> random.Random:
        """Random choices for a question in an epoch: the same in a resumed run, whatever came before."""
        return random.Random(f"{self.components.config.seed}/{epoch}/{question.id}")

    def _prompt_and_answer(self, question: Question, epoch: int) -> tuple[Any, list[int]]:
        text = self.answer_of(question, epoch)
        reader = self.reader
        return reader.prompts.for_question(question, self.passages_for(question, epoch), text), reader.answer_ids(text)

    def answer_of(self, question: Question, epoch: int) -> str:
        """The answer that is learnt in an epoch."""
        answers = question.answers
        return answers[0] if self.config.answer == "first" else self.draws(question, epoch).choice(answers)

    def _example(self, question: Question, epoch: int) -> dict[str, list[int]]:
        prompt, answer = self._prompt_and_answer(question, epoch)
        return {"input_ids": prompt.ids, "answer_ids": answer}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        # As Trainer's own, but with the lengths that are known: it would make every example to measure it.
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return ByLength(size, self.lengths, self.args.seed)

    # -- batches ---------------------------------------------------------------------------------

    @property
    def reader(self) -> Any:
        """The reader that trains."""
        return self.components.models["reader"]

    def collate(self, features: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Tensors of a batch, padded to its longest. Raises `RequestError` where a row has nothing to learn."""
        prompts = [feature["input_ids"] for feature in features]
        targets = [feature["answer_ids"] for feature in features]
        if not features or not all(targets):
            raise RequestError("a training batch has an example without any answer token: there is nothing to learn.")
        reader = self.reader
        if reader.kind == "encoder_decoder":
            return answer_tokens.encoder_decoder_batch(prompts, targets, reader.pad_id)
        if self.config.packing:
            room = reader.config.max_input_length
            eager = answer_tokens.base_module(reader.module).config._attn_implementation == "eager"
            return packed_batch(prompts, targets, reader.pad_id, room, additive=eager)
        return answer_tokens.decoder_batch(prompts, targets, reader.pad_id)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a micro-batch, as its share of the optimiser step's."""
        logits_NV, targets_N = self.answer_logits(model, inputs)
        items = targets_N.numel() if num_items_in_batch is None else num_items_in_batch
        loss = answer_loss(logits_NV, targets_N, items)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # `items` counts every process's tokens, and the gradients of the processes are averaged, not summed.
            loss = loss * self.accelerator.num_processes
        return (loss, {"logits": logits_NV}) if return_outputs else loss

    def answer_logits(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits `[N, V]` at the N supervised positions of a batch, and their tokens `[N]`."""
        return answer_tokens.answer_logits(model, inputs, self.reader.kind)
