"""What all algorithms share: a `transformers.Trainer` that knows a run's components.

An algorithm is a subclass that declares which roles it trains and what it needs of the data, prepares its examples,
makes batches and overrides `compute_loss`. Everything else (checkpoints, evaluation, logging) is here, once. Whoever
reads an algorithm's file needs this one and no other.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments

from rag_experiments.algorithms.health import check_finite
from rag_experiments.algorithms.resumable import ResumableTrainer
from rag_experiments.config import roles
from rag_experiments.config.kinds import MODEL_KINDS, RETRIEVER_KINDS, imported
from rag_experiments.config.schema import EvaluationConfig, ModelConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.records import Question
from rag_experiments.data.shown_ids import shown_rows
from rag_experiments.evaluation.results import EvaluationResult, Evaluator
from rag_experiments.retrieval.factory import build_retriever
from rag_experiments.retrieval.retriever import Retriever


@dataclass(kw_only=True)
class RunComponents:
    """What a run is made of, built from its configuration."""

    config: RunConfig
    data: RagData
    models: dict[str, Any]
    """Role → `models.component.Component`, of every role that is trained; the role of `model` comes first."""
    retriever: Retriever
    """Finds passages. Where an encoder trains it is that encoder's own, and `refresh()` takes up its weights."""
    evaluator: Evaluator
    cache: Path

    @property
    def model(self) -> Any:
        """The component that stands under `model` in the configuration."""
        return next(iter(self.models.values()))

    def evaluate(self, questions: Sequence[Question], persist: bool = False) -> EvaluationResult:
        """The evaluator's figures for the models' current weights; `persist` keeps the corpus vectors on disk."""
        self.retriever.refresh(persist=persist)
        result = self.evaluator.evaluate(questions)
        return replace(result, rows=list(shown_rows(result.rows, self.data.passages)))

    def module(self) -> nn.Module:
        """What is trained: the only role's module, or a `RoleModules` of all."""
        if len(self.models) == 1:
            return self.model.module
        return RoleModules({role: component.module for role, component in self.models.items()})

    def save(self, folder: Path) -> None:
        """Write what was trained: one model into `folder`, several into `folder/<role>`.

        Raises:
            NothingLearnt: a weight is NaN or infinite.
        """
        for role, component in self.models.items():
            check_finite(component.module, f"the {role}")
        for role, component in self.models.items():
            component.save(folder / role if len(self.models) > 1 else folder)

    def load_weights(self, folder: Path) -> None:
        """Take the weights of a folder that `save` wrote, in place."""
        for role, component in self.models.items():
            component.load_weights(folder / role if len(self.models) > 1 else folder)


SAME_FIGURES = (
    "use_cpu", "disable_tqdm", "dataloader_pin_memory", "ddp_backend", "ddp_timeout", "ddp_broadcast_buffers",
    "ddp_find_unused_parameters",
)  # fmt: skip
"""`trainer.*` keys that a first run takes over from the run that needs it: they say how to compute, not what."""


@dataclass(kw_only=True)
class FirstRun:
    """A run whose model another one reads: it is made first, without evaluation, and kept in the cache."""

    trainer_class: type[AlgorithmTrainer]
    role: str
    """The role of `config.model` in that run."""
    config: RunConfig
    questions: list[Question]
    """What it trains on."""


class RoleModules(nn.ModuleDict):
    """The modules of several roles as one, for one optimiser and one wrapper of several processes."""

    def forward(self, role: str | Callable[[RoleModules], Any], **inputs: Any) -> Any:
        """The forward pass of a role's module. Calls go through here, so that a wrapper sees them.

        Instead of a role, a function that gets these modules and calls several of them: the wrapper of several
        processes takes the weights that one forward does not reach for unused, and must see a whole step as one.
        """
        return self[role](**inputs) if isinstance(role, str) else role(self)

    def activation_checkpointing_enable(self, *given: Any, **named: Any) -> None:
        """Of every role (`trainer.activation_checkpointing=true`)."""
        modules: Any = self.values()
        for module in modules:
            module.activation_checkpointing_enable(*given, **named)

    def gradient_checkpointing_enable(self, *given: Any, **named: Any) -> None:
        """The same, as Trainer calls it before transformers 5.23."""
        modules: Any = self.values()
        for module in modules:
            module.gradient_checkpointing_enable(*given, **named)


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


class AlgorithmTrainer(ResumableTrainer):
    """The base of every algorithm.

    Subclasses set the class attributes and implement `training_examples`, `collate` and `compute_loss`. They may
    override `check_config` and `check_data`, which refuse a request before weights are read; `prepare`, for work that
    comes before the first step; `before_run`, where another run must come first; and the four hooks that make a run's
    components.
    """

    Config: ClassVar[type]
    """Dataclass of the keys under `algorithm:`. Its fields of a model type are further models, by role."""
    trains: ClassVar[frozenset[str]] = frozenset()
    """Roles that learn. The one that is no field of `Config` is the role of `model`: `encoder` or `reader` for most."""
    required_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that every question must have: `positive_ids`, `answers`."""
    groups_by_length: ClassVar[bool] = False
    """True where `trainer.train_sampling_strategy=group_by_length` has a meaning: the others sort within a batch."""
    contrasts_in_batch: ClassVar[bool] = False
    """True where the passages of the other questions in a forward pass are a question's negatives."""
    scales_own_loss: ClassVar[bool] = False
    """True where `compute_loss` divides by `num_items_in_batch`, the whole optimiser step's count."""

    def __init__(
        self, components: RunComponents, args: TrainingArguments, callbacks: list[TrainerCallback] | None = None
    ):
        """Nothing heavy happens here: `prepare()` comes before `train()`."""
        self.components = components
        self.config = components.config.algorithm
        self.seconds_preparing = 0.0
        self.dev_rows: list[dict[str, Any]] = []
        """The questions of the last evaluation on dev, one by one."""
        self.schedule_steps: int | None = None
        """Steps over which the learning rate changes, where training ends before them."""
        super().__init__(
            model=components.module(),
            args=args,
            data_collator=self.collate,
            train_dataset=Examples(components.data.splits["train"]),  # its size; `prepare` puts the examples here
            eval_dataset=_Sized(components.data.splits["dev"]),
            callbacks=[EpochsOrder(), *(callbacks or [])],
        )
        # Losses here are means over the batch unless an algorithm says otherwise: Trainer divides them by
        # the accumulation steps itself, and must not guess from the model's forward signature.
        self.loss_is_scaled_for_ga = self.scales_own_loss

    # -- checks, before weights are read -----------------------------------------------------------

    @classmethod
    def check_config(cls, config: RunConfig) -> None:
        """Refuse values that cannot work together, or fill in what follows from others. Nothing by default."""

    @classmethod
    def check_data(cls, config: RunConfig, data: RagData) -> None:
        """Refuse what the configuration asks of the data, beyond `required_fields`, and it lacks."""

    @classmethod
    def count_examples(cls, config: RunConfig, data: RagData) -> int:
        """How many training examples an epoch has: a question each, unless an algorithm makes more of one."""
        return len(data.splits["train"])

    # -- components: hooks -------------------------------------------------------------------------

    @classmethod
    def load_model(cls, config: ModelConfig, cache: Path) -> Any:
        """The component of a role that this algorithm trains and its runs are evaluated with."""
        from rag_experiments.models.component import load_model

        return load_model(config, cache)

    @classmethod
    def make_retriever(cls, config: RunConfig, data: RagData, models: dict[str, Any], cache: Path) -> Retriever:
        """A retriever over the whole corpus: with the encoder and reranker that train, or frozen ones of its own."""
        kind = RETRIEVER_KINDS[config.retriever.type]
        encoder = models.get(kind.encoder_role)
        if encoder is None and kind.needs_encoder and config.retriever.encoder is not None:
            from rag_experiments.models.component import load_model

            encoder = load_model(config.retriever.encoder, cache, frozen=True)
        reranker = models.get("reranker")
        if reranker is None and config.retriever.reranker is not None:
            from rag_experiments.models.component import load_model

            with roles.under_key(roles.RERANKER_KEY):
                reranker = load_model(config.retriever.reranker, cache, frozen=True)
        return build_retriever(config.retriever, data.passages, encoder, cache, reranker)

    @classmethod
    def evaluator_class(cls, config: RunConfig) -> type[Evaluator]:
        """Of the reader where one trains, which measures retrieval as well; else of the kind of `model`."""
        beside = "reader" in cls.trains and "reader" in roles.config_roles(cls.Config)
        measured = config.algorithm.reader if beside else config.model
        return imported(MODEL_KINDS[measured.kind].evaluator)

    @classmethod
    def make_evaluator(
        cls, config: RunConfig, data: RagData, models: dict[str, Any], retriever: Retriever
    ) -> Evaluator:
        """The evaluator of `evaluator_class`."""
        return cls.evaluator_class(config).for_run(config, data, models, retriever)

    # -- preparing -----------------------------------------------------------------------------------

    @classmethod
    def before_run(cls, config: RunConfig, data: RagData) -> dict[str, FirstRun]:
        """Runs whose model this one reads, by the role that their model takes here. None by default."""
        return {}

    def prepare(self) -> None:
        """All work before the first step; also that of a resumed run. Examples are made here."""
        self.train_dataset = self.training_examples()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count the time within as `seconds/prepare`, not as training."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds_preparing += time.perf_counter() - started

    def training_examples(self) -> Dataset:
        """The training set, one item per example."""
        raise TypeError(f"{type(self).__name__} must implement training_examples()")

    def collate(self, features: list[Any]) -> dict[str, Any]:
        """A batch of tensors from the items of `training_examples()`."""
        raise TypeError(f"{type(self).__name__} must implement collate()")

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As Trainer's; with several roles each has groups of its own, at `algorithm.learning_rates.<role>`."""
        if len(self.components.models) == 1 or self.optimizer is not None:
            return super().create_optimizer(model)
        module: Any = self.model
        decayed = set(self.get_decay_parameter_names(module))
        rates = getattr(self.config, "learning_rates", None) or {}
        groups: list[dict[str, Any]] = []
        for role in self.components.models:
            own = [(n, p) for n, p in module.named_parameters() if n.startswith(f"{role}.") and p.requires_grad]
            for decay in (True, False):
                parameters = [parameter for name, parameter in own if (name in decayed) is decay]
                weight_decay = self.args.weight_decay if decay else 0.0
                rate = rates.get(role, self.args.learning_rate)
                groups.append({"params": parameters, "weight_decay": weight_decay, "lr": rate})
        optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, module)
        self.optimizer = optimizer_class([group for group in groups if group["params"]], **settings)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As Trainer's, over `schedule_steps` where they are set."""
        return super().create_scheduler(self.schedule_steps or num_training_steps, optimizer)

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The run's own evaluator on dev, so that figures during and after training have one meaning."""
        started = time.perf_counter()
        result = self.components.evaluate(
            sample_questions(self.components.data.splits["dev"], self.components.config.evaluation)
        )
        self.dev_rows = result.rows
        found = {**result.metrics, "seconds/evaluation": time.perf_counter() - started}
        # Every process measures, and rank 0's figures count: the best checkpoint and the end of training follow from
        # them, and two that differ in the last digit would part here.
        (found,) = broadcast_object_list([found])
        self.log({f"dev/{name}": value for name, value in found.items()})
        # Trainer looks for its best metric under `eval_<metric_for_best_model>`.
        metrics = {f"eval_dev/{name}": value for name, value in found.items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # -- checkpoints -----------------------------------------------------------------------------

    def save_weights(self, folder: Path) -> None:
        """A checkpoint's weights are what `model/` would hold, so each opens by itself."""
        self.components.save(folder)

    def load_weights(self, folder: Path) -> None:
        """Of a checkpoint, in place."""
        self.components.load_weights(folder)


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


class _Sized(Dataset):
    """Trainer insists on an evaluation set where it evaluates; ours is the evaluator's business."""

    def __init__(self, items: Sequence[Any]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]
