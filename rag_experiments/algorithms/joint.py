r"""JOINT: encoder and reader learn in one run, the encoder from what that reader finds useful now (Izacard et al. 2022,
Atlas, arXiv 2208.03299; in turns: Lin et al. 2023, RA-DIT, arXiv 2310.01352, `experiment=alternate`).

    L   = w_r · L_r + w_e · L_e
    L_r = - 1/N Σ_i Σ_t log P(a_it | the first train_k of C_i, q_i, a_i,<t)      SFT's or FiD's loss
    L_e = 1/B Σ_i D_i                                 over the encoder's K candidates C_i of question i

    pdist        D = KL(Q ‖ P_R), Q = softmax_k( LM(a|p_k, q) / β )              P_R = softmax_k( s(q, p_k) / γ )
    emdr2        D = −1/T Σ_t log Σ_k p(a_t|p_k, q) P_R(p_k|q)
    loop         D = KL(Q ‖ P_R), LM(a|p_k, q) := −LM(a| all of C but p_k, q)
    adist        D = KL(softmax_k( G_k / β ) ‖ P_R), G_k = attention to p_k times its values' norm (FiD readers)
    adist_peak   the same, of each layer the head that attends to p_k most (`models/fid/fid_attention.py`)

N and B are the supervised tokens and the questions of the whole optimiser step, over its micro-batches and processes.
The reader scores the candidates with the weights of the step, without dropout and without gradient, and nothing is
cached: Q is a constant. So L_r alone moves the reader and L_e alone the encoder. Candidates come from the whole corpus,
in one `[B, K]` order, and are found anew every `refresh_every` steps.

Where we deviate, and why:
- Atlas pretrains both halves together and its reader is T5; here any encoder and any reader (`reader_loss: sft` puts
  the passages into one prompt, as RA-DIT does).
- G is divided by a question's own standard deviation, as in DCA, so that one β fits readers of any scale.
- `refresh: questions` is Atlas's query-side fine-tuning but for one thing. There the passage encoder is another one and
  stays; here one encoder embeds both, and what is evaluated and saved embeds the corpus anew. So the passages' vectors
  have no gradient, but are those of the weights of the step; the index of the start only chooses the candidates. (With
  RPG's `refresh: questions` the passages do have a gradient.)
- A question with several answers is read and scored with its first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from rag_experiments.algorithms.base import RunComponents
from rag_experiments.algorithms.dca import dca_loss, standardised
from rag_experiments.algorithms.distillation import (
    CandidateCount,
    CandidateTrainer,
    candidate_log_probs,
    entropy,
)
from rag_experiments.algorithms.fid import takes_checkpointing
from rag_experiments.algorithms.joint_reading import ATTENTION, Objective, ReadingDesk
from rag_experiments.algorithms.resumable import count_tokens
from rag_experiments.algorithms.rpg import Target, log_target, replug_loss, rpg_loss
from rag_experiments.algorithms.sft import answer_loss, check_four_bit_training
from rag_experiments.algorithms.shared.reader_examples import check_examples
from rag_experiments.config import roles
from rag_experiments.config.schema import (
    FidSettings,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ReaderConfig,
    RunConfig,
)
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.models.reader import answer_tokens

log = logging.getLogger(__name__)

READER_KEY = "algorithm.reader"
TEMPERATURES: dict[str, float] = {"pdist": 0.1, "loop": 0.1, "adist": 0.5, "adist_peak": 0.5}
"""β where nothing is said: RPG's of log-probabilities, DCA's of standardised attention."""


@dataclass(kw_only=True)
class JointConfig:
    """Hyper-parameters of joint training."""

    name: str = "joint"
    """The algorithm's name, which stands in the run's path and in messages."""
    reader: ReaderConfig
    """The reader that is trained, chosen with `model@algorithm.reader=…`."""
    reader_loss: Literal["sft", "fid"] = "sft"
    """How the reader reads: all passages in one prompt, or each apart (Fusion-in-Decoder). A reader with settings under
    `algorithm.reader.fid` reads apart in any case."""
    objective: Objective = "pdist"
    """The encoder's loss: one of Atlas's. `adist` and `adist_peak` take the attention of a reader that reads apart."""
    reader_weight: NonNegativeFloat = 1.0
    """The weight w_r, which multiplies the reader's loss; 0 leaves the reader as it is."""
    encoder_weight: NonNegativeFloat = 1.0
    """The weight w_e, which multiplies the encoder's loss; 0 leaves the encoder as it is."""
    learning_rates: dict[str, PositiveFloat] | None = None
    """The learning rate of each role (`encoder`, `reader`); one that is not named has `trainer.learning_rate`."""
    target: Target = "mean"
    """What LM(a|·) is, of the answer's token log-probabilities, for `pdist` and `loop`."""
    temperature: PositiveFloat = 0.05
    """The temperature γ, which divides the encoder's scores: 0.05 is for cosines."""
    target_temperature: PositiveFloat | None = None
    """The temperature β, which divides the reader's scores; null is 0.1, and 0.5 for the standardised ones of `adist`
    and `adist_peak`. `emdr2` has none."""
    candidates: CandidateCount = 8
    """K, the candidates of a question over the whole corpus, clamped to it. Atlas has 20; 8 fits two CPU cores."""
    train_k: PositiveInt | None = None
    """Passages that the reader reads in training, the first of the candidates; null is `retriever.k`, or all
    candidates where they are fewer."""
    add_gold: bool = False
    """Put a known gold passage in the last candidate's place where it is not among them, and in the last place of what
    the reader reads."""
    refresh_every: NonNegativeInt = 30
    """Optimiser steps between two searches for candidates; 0 keeps those of the start."""
    refresh: Literal["corpus", "questions"] = "corpus"
    """What a refresh embeds anew: the whole corpus, or the questions only, which then search the passage vectors of
    the start; passages then have no gradient either."""
    mini_batch_size: PositiveInt | None = None
    """Texts are encoded so many at a time, and once more in the backward pass, for batches larger than memory; null
    takes the whole batch in one pass."""
    sub_batch_size: PositiveInt = 32
    """Texts of similar length are padded together, so many at a time, where `mini_batch_size` is null."""


def attention_loss(
    scores_BK: Tensor, attention_BK: Tensor, temperature: float, target_temperature: float, present_BK: Tensor
) -> tuple[Tensor, Tensor]:
    """ADist's loss, mean over B, and log Q `[B, K]`; gradient in `scores_BK` alone."""
    target_BK = standardised(attention_BK.detach(), present_BK)
    loss = dca_loss(scores_BK, target_BK, temperature, target_temperature, present_BK)
    return loss, candidate_log_probs(target_BK, target_temperature, present_BK)


class JointTrainer(CandidateTrainer):
    """An `Encoder` under `model` and a reader under `algorithm.reader`, which learn in the same steps."""

    Config: ClassVar[type] = JointConfig
    trains = frozenset({"encoder", "reader"})
    required_fields = frozenset({"answers"})
    scales_own_loss: ClassVar[bool] = True
    config: JointConfig

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """Settle the reader's kind; raises `RequestError` for what cannot work together or has no effect."""
        own = config.algorithm
        with roles.under_key(READER_KEY):
            check_four_bit_training(own.reader)
        if own.reader.fid is not None:
            own.reader_loss = "fid"
        if own.reader_loss == "fid":
            own.reader.fid = own.reader.fid or FidSettings()
        elif own.objective in ATTENTION:
            raise RequestError(
                f"algorithm.objective={own.objective} takes the attention of a reader that reads its passages apart: "
                "add algorithm.reader_loss=fid, or use algorithm.objective=pdist"
            )
        if own.train_k is not None and own.train_k > own.candidates:
            raise RequestError(
                f"algorithm.train_k={own.train_k}: the reader reads candidates, and there are "
                f"algorithm.candidates={own.candidates} of them"
            )
        for role in own.learning_rates or {}:
            if role not in cls.trains:
                raise RequestError(f"algorithm.learning_rates.{role}: the roles are {' and '.join(sorted(cls.trains))}")
        _refuse_without_effect(own)

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """See `check_examples`; raises `RequestError` for `add_gold` where no gold passage is known."""
        super().check_data(config, data)
        check_examples(config, data, config.algorithm.reader, READER_KEY)

    def __init__(
        self, components: RunComponents, args: TrainingArguments, callbacks: list[TrainerCallback] | None = None
    ):
        own = components.config.algorithm
        self.recompute = False
        if own.reader_loss == "fid" and takes_checkpointing(args):
            self.recompute = True
            components.model.activation_checkpointing_enable()
        super().__init__(components, args, callbacks)
        # Trainer counts the step's supervised tokens only for models whose forward takes loss arguments.
        self.model_accepts_loss_kwargs = True
        self.passages_learn = own.refresh == "corpus"
        self.questions_in_step: int | None = None
        """Of all processes, where their tokens are added up too; known once a step's batches are there."""

    # -- preparing -----------------------------------------------------------------------------------

    def open_judge(self) -> None:
        """The reader with its weights of the moment; refuses questions that do not fit its prompt."""
        config = self.config
        self.desk = ReadingDesk(
            self.components.models["reader"],
            self.questions,
            self.components.data.passages,
            objective=config.objective,
            read_k=config.train_k or min(self.components.config.retriever.k, config.candidates),
            golds=self.golds if config.add_gold else None,
        )

    # -- a step --------------------------------------------------------------------------------------

    def collate(self, features: list[int]) -> dict[str, Any]:
        """Query sub-batches, `questions_B`, and the answers' tokens `labels` `[B, T]`, by which Trainer counts N."""
        answers = [self.desk.answer_ids(number) for number in features]
        return {**super().collate(features), "labels": answer_tokens.pad_right(answers, answer_tokens.IGNORE)}

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Trainer's batches of an optimiser step and N; B is counted as N is."""
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(sum(len(batch["questions_B"]) for batch in batches), device=device)
        if self.args.average_tokens_across_devices:
            count = self.accelerator.gather(count).sum()
        self.questions_in_step = int(count)
        return batches, tokens

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add the candidates, what the reader reads, and what it thinks of each candidate."""
        inputs = super()._prepare_inputs(inputs)
        numbers, rows_BK = inputs["questions_B"].tolist(), inputs["rows_BK"]
        if self.config.reader_weight:
            inputs["reading"] = self.desk.reading(numbers, rows_BK)
            self.tokens_seen += count_tokens(inputs["reading"])
        if self.config.encoder_weight:
            judged = self.desk.judged(numbers, rows_BK)
            inputs["judged"] = {name: tensor.to(self.components.model.device) for name, tensor in judged.items()}
        return inputs

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a micro-batch, as its share of the optimiser step's."""
        parts = model(partial(self.parts, inputs=inputs))  # one forward for the wrapper: see `RoleModules`
        config, questions = self.config, len(inputs["questions_B"])
        tokens = inputs["labels"].ne(answer_tokens.IGNORE).sum()
        in_step = num_items_in_batch is not None
        all_tokens = num_items_in_batch if in_step else tokens
        all_questions = (self.questions_in_step if in_step else None) or questions
        shares = {
            "reader": config.reader_weight * tokens / all_tokens,
            "encoder": config.encoder_weight * questions / all_questions,
        }
        for name, part in parts.items():
            self.record(f"{name}_loss", part)
        loss = torch.stack([shares[name] * part for name, part in parts.items()]).sum()
        if in_step and self.args.average_tokens_across_devices:
            # Both counts are every process's, and the gradients of the processes are averaged, not summed.
            loss = loss * self.accelerator.num_processes
        return (loss, parts) if return_outputs else loss

    def parts(self, modules: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """`reader`: mean over the batch's answer tokens; `encoder`: mean over its questions. Of weight 0: left out."""
        parts = {}
        if "judged" in inputs:
            parts["encoder"] = self.encoder_loss(partial(modules, "encoder"), inputs)
        if "reading" in inputs:
            logits_NV, targets_N = self.answer_logits(modules, inputs["reading"])
            parts["reader"] = answer_loss(logits_NV, targets_N, targets_N.numel())
        return parts

    def answer_logits(self, modules: Any, reading: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits `[N, V]` at the N supervised positions, and their tokens `[N]`."""
        reader = self.desk.reader
        if self.config.reader_loss == "fid":
            return reader.answer_logits(reading, modules["reader"], self.recompute)
        return answer_tokens.answer_logits(modules["reader"], reading, reader.kind)

    def encoder_loss(self, encoder: Callable[..., Tensor], inputs: dict[str, Any]) -> Tensor:
        """L_e of a batch. Logs KL(P_R ‖ Q) and Q's entropy in nats."""
        config, rows_BK, judged, present_BK = self.config, inputs["rows_BK"], inputs["judged"], inputs["present_BK"]
        scores_BK = self.encoder_scores(encoder, inputs["queries"], rows_BK)
        heat = config.target_temperature or TEMPERATURES.get(config.objective, 0.1)
        if "attention" in judged:
            loss, log_target_BK = attention_loss(scores_BK, judged["attention"], config.temperature, heat, present_BK)
        else:
            objective: Any = config.objective
            token_log_probs_BKT, mask_BT = judged["token_log_probs"], judged["token_mask"]
            loss = rpg_loss(
                scores_BK, token_log_probs_BKT, mask_BT, objective, config.target, config.temperature, heat, present_BK
            )
            log_target_BK = log_target(token_log_probs_BKT, mask_BT, objective, config.target, heat, present_BK)
        log_retriever_BK = candidate_log_probs(scores_BK.detach(), config.temperature, present_BK)
        self.record("kl", replug_loss(log_retriever_BK, log_target_BK))
        self.record("target_entropy", entropy(log_target_BK))
        log_probs = {"target": log_target_BK, "retriever": log_retriever_BK}
        self.record_agreement(inputs["questions_B"].tolist(), rows_BK, log_probs)
        return loss

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's; says at the end what the reader's prompts have lost."""
        result = super().train(*args, **kwargs)
        if self.desk.truncation.prompts_truncated:
            log.warning("training: %s", self.desk.truncation.sentence())
        return result


def _refuse_without_effect(own: JointConfig) -> None:
    """Raise `RequestError` for a key that changes nothing beside the others."""
    if not own.reader_weight and not own.encoder_weight:
        raise RequestError("algorithm.reader_weight=0 and algorithm.encoder_weight=0: nothing would be learnt")
    if not own.encoder_weight and own.refresh == "questions":
        raise RequestError(
            "algorithm.refresh=questions has no effect: algorithm.encoder_weight=0 leaves the encoder as it is"
        )
    if not own.encoder_weight:
        own.refresh_every = 0  # the same encoder finds the same candidates
    if own.objective == "emdr2" and own.target_temperature is not None:
        raise RequestError("algorithm.target_temperature has no effect with algorithm.objective=emdr2: leave it out")
    if own.objective not in ("pdist", "loop") and own.target != "mean":
        raise RequestError(
            f"algorithm.target={own.target} has no effect with algorithm.objective={own.objective}: leave it out"
        )
