"""What the six algorithms share: a `transformers.Trainer` that knows a run's parts.

An algorithm is a subclass that declares what it trains and needs, makes examples and batches, and
overrides `compute_loss`. Everything else (checkpoints, evaluation, logging) is here, once.
"""

from __future__ import annotations

import json
import logging
import math
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from rag_experiments.config.schema import EncoderConfig, EvaluationConfig, ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_json
from rag_experiments.data.load import RagData
from rag_experiments.data.records import Question
from rag_experiments.evaluation.results import EvaluationResult, Evaluator
from rag_experiments.retrieval.retriever_kinds import Retriever

log = logging.getLogger(__name__)

TOTALS = "totals.json"
"""In every checkpoint: what Trainer sums up over steps and forgets (see `AlgorithmTrainer.take_totals`)."""


@dataclass(kw_only=True)
class Parts:
    """What a run is made of, built from its configuration.

    `model` is the component that trains (an `Encoder` or a `Reader`): it has `module`, `save(dir)`,
    `load_weights(dir)` and `fingerprint()`. `retriever` finds passages for it; where the encoder
    trains, it is that encoder's own, and `retriever.refresh()` takes up its current weights.
    """

    config: RunConfig
    data: RagData
    model: Any
    retriever: Retriever
    evaluator: Evaluator
    cache: Path

    def evaluate(self, questions: Sequence[Question], persist: bool = False) -> EvaluationResult:
        """The evaluator's figures for the model's current weights; `persist` keeps the corpus vectors on disk."""
        self.retriever.refresh(persist=persist)
        return self.evaluator.evaluate(questions)


class Examples(Dataset):
    """The training examples of an epoch: a list, and a hook that remakes an item for the epoch.

    `make(item, epoch)` must draw from nothing but its arguments, so that a resumed run sees the same.
    """

    def __init__(self, items: Sequence[Any], make: Callable[[Any, int], Any] | None = None):
        self.items = items
        self.make = make
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of an epoch (`EpochsOrder`)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        return item if self.make is None else self.make(item, self.epoch)


class EpochsOrder(TrainerCallback):
    """Tells examples and sampler which epoch begins.

    accelerate's loader does so in the plain case only: the examples are left out where several processes share the
    batches and where a run is resumed within an epoch, the sampler where both are the case.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """`state.epoch` of a resumed run has a fraction: the epoch is the one that it is in."""
        epoch = int(state.epoch or 0)
        batches = train_dataloader.batch_sampler
        while hasattr(batches, "batch_sampler"):  # one process's share of the batches
            batches = batches.batch_sampler
        parts: list[Any] = [getattr(batches, "sampler", None), train_dataloader.dataset]
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)


class EarlierSegments(TrainerCallback):
    """Gives a resumed run the sums of its earlier segments, once Trainer has set them to zero."""

    def __init__(self, trainer: AlgorithmTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            self.trainer.take_totals(Path(args.output_dir or ".") / f"checkpoint-{state.global_step}")


class AlgorithmTrainer(Trainer):
    """The base of every algorithm.

    Subclasses set the class attributes and implement `training_examples`, `collate` and `compute_loss`.
    `check_config(config)`, a static method, and `check_data(config, data)` may refuse a request (`RequestError`)
    before weights are read; `before_training()` does what must come first (prescoring, a first retrieval).
    """

    Config: ClassVar[type]
    """Dataclass of the hyper-parameters under `algorithm:`; has the fields `name` and whatever the loss takes."""
    trains: ClassVar[str | tuple[str, ...]]
    """`encoder`, `decoder`, `encoder_decoder`, or several."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What every training question must have: `positives`, `answers`."""

    def __init__(self, parts: Parts, args: TrainingArguments, callbacks: list[TrainerCallback] | None = None):
        self.parts = parts
        self.hyper = parts.config.algorithm
        self.tokens_seen = 0
        """This process's, since it started; those of earlier segments are in `earlier_tokens`."""
        self.earlier_tokens = 0
        self.earlier_seconds = 0.0
        self._started = time.perf_counter()
        self._recorded: dict[str, list[float]] = defaultdict(list)
        self.before_training()
        super().__init__(
            model=parts.model.module,
            args=args,
            data_collator=self.collate,
            train_dataset=self.training_examples(),
            eval_dataset=_Sized(parts.data.splits["dev"]),
            callbacks=[EpochsOrder(), EarlierSegments(self), *(callbacks or [])],
        )
        # Losses here are means over the batch unless an algorithm says otherwise: Trainer divides them by
        # the accumulation steps itself, and must not guess from the model's forward signature.
        self.loss_is_scaled_for_ga = self.scales_own_loss

    groups_by_length: ClassVar[bool] = False
    """True where `trainer.train_sampling_strategy=group_by_length` has a meaning: the others sort within a batch."""
    scales_own_loss: ClassVar[bool] = False
    """True where `compute_loss` divides by `num_items_in_batch`, the whole optimiser step's count."""

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Refuse what these hyper-parameters ask of the data, beyond `needs`, and it lacks. Nothing by default."""

    def before_training(self) -> None:
        """Work that must be done before examples are made. Nothing by default."""

    def training_examples(self) -> Dataset:
        """The training set, one item an example."""
        raise TypeError(f"{type(self).__name__} must implement training_examples()")

    def collate(self, features: list[Any]) -> dict[str, Any]:
        """A batch of tensors from the items of `training_examples()`."""
        raise TypeError(f"{type(self).__name__} must implement collate()")

    @classmethod
    def load_model(cls, config: EncoderConfig | ReaderConfig, cache: Path) -> Any:
        """The component that this algorithm trains and its runs are evaluated with."""
        from rag_experiments.models.model_kinds import load_model

        return load_model(config, cache)

    @classmethod
    def make_evaluator(cls, config: RunConfig, data: RagData, model: Any, retriever: Retriever) -> Evaluator:
        """Retrieval for an encoder, retrieval and generation for a reader."""
        if config.model.kind == "encoder":
            from rag_experiments.evaluation.retrieval_evaluator import RetrievalEvaluator

            return RetrievalEvaluator(retriever, config.evaluation, config.data.query_history, seed=0)
        from rag_experiments.evaluation.generation_evaluator import GenerationEvaluator

        return GenerationEvaluator(model, retriever, config)

    # -- logging ---------------------------------------------------------------------------------

    def record(self, name: str, value: float | torch.Tensor) -> None:
        """Log `value`, averaged over the steps since the last logging step, as `train/<name>`."""
        self._recorded[name].append(float(value.detach()) if isinstance(value, torch.Tensor) else float(value))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's own figures get the `train/` prefix; evaluation's have their stage already."""
        named = {_named(name): value for name, value in logs.items() if name != "epoch"}
        if "train/loss" in named:
            named |= {f"train/{name}": sum(values) / len(values) for name, values in self._recorded.items() if values}
            self._recorded.clear()
        if "train/mean_loss" in named:  # Trainer divides a resumed run's by the steps of its last segment
            named["train/mean_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
        super().log(named, start_time)

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The run's own evaluator on dev, so that figures during and after training have one meaning."""
        started = time.perf_counter()
        result = self.parts.evaluate(sample_questions(self.parts.data.splits["dev"], self.parts.config.evaluation))
        found = {**result.metrics, "seconds/evaluation": time.perf_counter() - started}
        # Every process measures, and rank 0's figures count: the best checkpoint and the end of training follow from
        # them, and two that differ in the last digit would part here.
        (found,) = broadcast_object_list([found])
        self.log({f"dev/{name}": value for name, value in found.items()})
        # Trainer looks for its best metric under `eval_<metric_for_best_model>`.
        metrics = {f"eval_dev/{name}": value for name, value in found.items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # -- tokens ----------------------------------------------------------------------------------

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Counts the tokens that are not padding, for `tokens_per_second`."""
        self.tokens_seen += _count_tokens(inputs)
        return super().training_step(model, inputs, num_items_in_batch)

    # -- checkpoints -----------------------------------------------------------------------------
    # A checkpoint's weights are what `model/` would hold, so each opens by itself, and no pickled
    # arguments lie beside them. Trainer writes `trainer_state.json` last: a checkpoint that has it has everything.

    def save_more(self, folder: Path) -> None:
        """What an algorithm adds to a checkpoint, on rank 0. Nothing by default."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._totals = self._gathered_totals()
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir or ".")
            self.parts.model.save(folder)
            self.save_more(folder)
            atomic_write_json(folder / TOTALS, self._totals)

    def _gathered_totals(self) -> dict[str, Any]:
        """All processes call this: their tokens are added up, their losses since the last logging step averaged."""
        pending = gather_object([self._tr_loss.item()])
        return {
            "loss": self._total_loss_scalar,
            "pending_loss": sum(pending) / len(pending),
            "logged_step": self._globalstep_last_logged,
            "recorded": dict(self._recorded),
            "tokens": self.total_tokens(),
            "seconds": self.total_seconds(),
        }

    def take_totals(self, checkpoint: Path) -> None:
        """Go on with the sums that the checkpoint was written with, so that the log is that of one run.

        Of the losses and figures recorded since the last logging step, tokens, seconds. Trainer begins all at zero.
        """
        if not (checkpoint / TOTALS).is_file():
            log.warning("%s holds no %s: means and totals begin anew", checkpoint, TOTALS)
            return
        totals = json.loads((checkpoint / TOTALS).read_text(encoding="utf-8"))
        self._total_loss_scalar = _number(totals["loss"])
        self._tr_loss = torch.tensor(_number(totals["pending_loss"]), device=self.args.device)
        self._globalstep_last_logged = totals["logged_step"]
        self._recorded.clear()  # of what was recorded before training: the first segment has logged it
        self._recorded.update({name: [_number(value) for value in kept] for name, kept in totals["recorded"].items()})
        self.earlier_tokens, self.earlier_seconds = totals["tokens"], totals["seconds"]
        self._started, self.tokens_seen = time.perf_counter(), 0

    def total_tokens(self) -> int:
        """Trained on, by all processes and all segments of the run. All processes call this."""
        return self.earlier_tokens + sum(gather_object([self.tokens_seen]))

    def total_seconds(self) -> float:
        """Of training, in all segments of the run; what was lost to an interruption is left out."""
        return self.earlier_seconds + time.perf_counter() - self._started

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As Trainer's; but where training had ended when the checkpoint was written, not a step more is made."""
        self._started = time.perf_counter()
        if isinstance(resume_from_checkpoint, str) and self._had_ended(Path(resume_from_checkpoint)):
            return self._take_ended(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    @staticmethod
    def _had_ended(checkpoint: Path) -> bool:
        """Whether the last step was made, or early stopping had decided. Trainer itself would make a step first."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        control: Any = (state.stateful_callbacks or {}).get("TrainerControl") or {}
        return state.global_step >= state.max_steps or bool(control.get("args", {}).get("should_training_stop"))

    def _take_ended(self, checkpoint: Path) -> None:
        """The state, and the weights that training would have left, from a checkpoint after the last step."""
        log.info("%s: training had ended; its weights are taken", checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self.state.is_world_process_zero = self.is_world_process_zero()
        self.state.is_local_process_zero = self.is_local_process_zero()
        kept = checkpoint
        if self.args.load_best_model_at_end and self.state.best_global_step:
            kept = checkpoint.with_name(f"checkpoint-{self.state.best_global_step}")
        self.parts.model.load_weights(kept)
        self._total_loss_scalar, self._tr_loss = 0.0, torch.tensor(0.0)
        self.take_totals(checkpoint)
        self._total_loss_scalar += self._tr_loss.item()
        self.log({"total_flos": self.state.total_flos, "train_loss": self._total_loss_scalar})
        if self.args.should_save and self.args.save_total_limit == 1 and kept != checkpoint:
            shutil.rmtree(checkpoint)  # as Trainer does where training ends

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.parts.model.load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self.parts.model.load_weights(Path(str(self.state.best_model_checkpoint)))


def _number(written: float | None) -> float:
    """JSON has no NaN: it is written as null."""
    return math.nan if written is None else written


def _named(name: str) -> str:
    """`loss` → `train/loss`; Trainer's closing figures lose their `train_`, and its mean loss says that it is one."""
    if "/" in name:
        return name
    return "train/mean_loss" if name == "train_loss" else f"train/{name.removeprefix('train_')}"


def check_add_gold(config: RunConfig, data: RagData) -> None:
    """Raises `RequestError` for `algorithm.add_gold` where no training question has a known gold passage."""
    if config.algorithm.add_gold and not any(question.positive_ids for question in data.splits["train"]):
        raise RequestError("algorithm.add_gold=true: no training question has positive_ids; leave it out")


def sample_questions(questions: Sequence[Question], evaluation: EvaluationConfig) -> Sequence[Question]:
    """The subset for evaluations before and during training: the same for every run, whatever its seed."""
    limit = evaluation.max_questions
    if limit is None or limit >= len(questions):
        return questions
    chosen = random.Random(0).sample(range(len(questions)), limit)
    return [questions[index] for index in sorted(chosen)]


def _count_tokens(inputs: Any) -> int:
    if isinstance(inputs, dict):
        masks = [inputs.get(name) for name in ("attention_mask", "tail_mask")]
        own = sum(int(mask.sum()) for mask in masks if isinstance(mask, torch.Tensor) and mask.dim() == 2)
        return own + sum(_count_tokens(value) for value in inputs.values() if isinstance(value, dict | list))
    return sum(_count_tokens(value) for value in inputs) if isinstance(inputs, list) else 0


class _Sized(Dataset):
    """Trainer insists on an evaluation set where it evaluates; ours is the evaluator's business."""

    def __init__(self, items: Sequence[Any]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]
