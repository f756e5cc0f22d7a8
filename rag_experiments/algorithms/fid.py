r"""FiD: Fusion-in-Decoder (Izacard & Grave 2020, arXiv 2007.01282).

    L = - 1/N Σ_i Σ_t log P(a_it | a_i,<t , [enc(q_i, p_i1); …; enc(q_i, p_iK)])

Each passage is encoded with the question and without the other passages; the answer is written over the states
of all of them. N is the number of answer tokens of the whole optimiser step. Passages are the K best of a
frozen retriever over the whole corpus (or the data's own); no gold passage is needed.

Where we deviate, and why:
- Besides encoder-decoders, decoder LMs are trained so (`models/fid/fid_states.py`): those are the weights that ship in
  a package, and no pretrained encoder-decoder does.
- Passages of a batch are encoded sorted by length, each distinct input once, without padding passages: the same
  numbers for less work.
- `trainer.gradient_checkpointing=true` (or `activation_checkpointing`) recomputes the passages a chunk at a time: the
  states stay, as large as the reader's input, the activations do not. Hugging Face's own would drop a decoder's states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from rag_experiments.algorithms.base import RunComponents, check_add_gold
from rag_experiments.algorithms.sft import SFTTrainer, check_four_bit_training
from rag_experiments.config.schema import FidSettings, PositiveInt, ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.queries import retrieval_query
from rag_experiments.data.records import Passage, Question
from rag_experiments.retrieval.search_cache import cached_search


@dataclass(kw_only=True)
class FiDConfig:
    """`algorithm:` of `algorithm=fid`. How passages are read is `model.fid`, since it is saved with the model."""

    name: str = "fid"
    """The algorithm's name, which stands in the run's path and in messages."""
    answer: Literal["first", "random"] = "random"
    """Which of a question's answers is learnt: the first, or another each epoch, as published."""
    passages: Literal["retriever", "data"] = "retriever"
    """Which passages a question is read with: the retriever's, or those that the data lists for it (`ctxs` of the DPR
    and FiD formats), in order."""
    train_k: PositiveInt | None = None
    """Passages that a question has in training; null is `retriever.k`."""
    add_gold: bool = False
    """Put a known gold passage in the last one's place where it is not among them."""


class FiDTrainer(SFTTrainer):
    """Trains a `FidReader`: an encoder-decoder, or a decoder LM that encodes each passage independently.

    The changes from SFT: which passages a question is read with, and how a batch is read.
    """

    Config = FiDConfig
    required_fields = frozenset({"answers"})
    groups_by_length: ClassVar[bool] = False
    config: FiDConfig

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """Fill in `model.fid`, and refuse what cannot work before weights are read."""
        assert isinstance(config.model, ReaderConfig)  # `trains` saw to that
        check_four_bit_training(config.model)
        config.model.fid = config.model.fid or FidSettings()

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Raises `RequestError` for `passages: data` and `add_gold` where the questions list none."""
        if config.algorithm.passages == "data":
            check_listed(data.splits["train"])
        check_add_gold(config, data)
        super().check_data(config, data)

    def __init__(
        self, components: RunComponents, args: TrainingArguments, callbacks: list[TrainerCallback] | None = None
    ):
        self.recompute = takes_checkpointing(args)
        super().__init__(components, args, callbacks)

    def prepare(self) -> None:
        """Find the passages of every training question, once."""
        questions = self.components.data.splits["train"]
        rows = passage_rows(self.components, questions, self.config)
        self.rows = {question.id: question_rows for question, question_rows in zip(questions, rows, strict=True)}
        super().prepare()

    def passages_for(self, question: Question, epoch: int) -> list[Passage]:
        """The retriever's passages, or the data's own."""
        store = self.components.data.passages
        return [store[row] for row in self.rows[question.id]]

    def _example(self, question: Question, epoch: int) -> dict[str, Any]:
        prompt, answer = self._prompt_and_answer(question, epoch)
        return {"prompt": prompt, "answer": answer}

    def collate(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `fid_batch.training_batch`."""
        return self.reader.training_batch([f["prompt"] for f in features], [f["answer"] for f in features])

    def answer_logits(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The answer is written over the states of all passages."""
        with self.accelerator.autocast():
            return self.reader.answer_logits(inputs, model, self.recompute)


def takes_checkpointing(args: TrainingArguments) -> bool:
    """Whether activations are to be recomputed; Trainer is told that they are not, since it would drop states."""
    # One setting under its old and its new name.
    names = [name for name in ("gradient_checkpointing", "activation_checkpointing") if hasattr(args, name)]
    wanted = any(getattr(args, name) for name in names)
    for name in names:
        setattr(args, name, False)
    return wanted


def passage_rows(components: RunComponents, questions: Sequence[Question], config: FiDConfig) -> list[list[int]]:
    """Rows of the passages that each question is read with, best first."""
    store = components.data.passages
    k = min(config.train_k or components.config.retriever.k, len(store))
    if config.passages == "data":
        rows_by_question = [listed_rows(store, question)[:k] for question in questions]
    else:
        queries = [retrieval_query(question, components.config.data.query_history) for question in questions]
        result = cached_search(components.retriever, queries, k, components.cache)
        rows_by_question = [[row for row in rows if row >= 0] for rows in result.rows_QK.tolist()]
    if not config.add_gold:
        return rows_by_question
    return [
        with_gold(rows, store.rows(q.positive_ids).tolist(), k)
        for rows, q in zip(rows_by_question, questions, strict=True)
    ]


def check_listed(questions: Sequence[Question]) -> None:
    """Raise `RequestError` for a question that lists no passages of its own."""
    for question in questions:
        if not question.candidate_ids:
            raise RequestError(
                f"algorithm.passages=data: question {question.id!r} lists no passages of its own (candidate_ids; ctxs "
                "of data=dpr); use algorithm.passages=retriever"
            )


def listed_rows(store: Any, question: Question) -> list[int]:
    """Rows of the data's own candidates of a question (`check_listed` saw that there are some)."""
    return store.rows(question.candidate_ids).tolist()


def with_gold(rows: list[int], golds: list[int], k: int) -> list[int]:
    """`rows`, at most `k`, with the first of `golds` in the last one's place where none of them is there."""
    top_rows = rows[:k]
    if not golds or set(top_rows) & set(golds):
        return top_rows
    return [*top_rows[: k - 1], golds[0]]
