"""A checked request → the loaded parts of a run, and its trainer."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.training_args import ParallelMode

from rag_experiments.algorithms.base import AlgorithmTrainer, RunComponents
from rag_experiments.config import roles
from rag_experiments.retrieval.retriever import Retriever
from rag_experiments.training.callbacks import Progress
from rag_experiments.training.request import Request
from rag_experiments.training.training_arguments import training_arguments

log = logging.getLogger(__name__)


def build_components(request: Request) -> RunComponents:
    """Read the weights, open the corpus, prepare the retriever and the evaluator.

    Everything random is seeded here first, fresh adapters and heads included.
    """
    config = request.config
    set_seed(config.seed)
    trainer_class: type[AlgorithmTrainer] = request.trainer_class
    models = load_trained(request)
    retriever = make_retriever(request, models)
    return RunComponents(
        config=config,
        data=request.data,
        models=models,
        retriever=retriever,
        evaluator=trainer_class.make_evaluator(config, request.data, models, retriever),
        cache=request.cache,
    )


def load_trained(request: Request, skip: Collection[str] = ()) -> dict[str, Any]:
    """The components that the run trains, by role; `skip`: roles that are left out."""
    models: dict[str, Any] = {}
    for model in roles.models_of(request.config, request.trainer_class):
        if model.trained and model.role not in skip:
            with roles.under_key(model.key):
                models[model.role] = request.trainer_class.load_model(model.config, request.cache)
    return models


def make_retriever(request: Request, models: dict[str, Any]) -> Retriever:
    """The run's retriever over the whole corpus, by its algorithm's hook."""
    with roles.under_key(roles.RETRIEVER_KEY if request.config.retriever.encoder else roles.MODEL_KEY):
        return request.trainer_class.make_retriever(request.config, request.data, models, request.cache)


def build_trainer(
    request: Request, components: RunComponents, checkpoints: Path, callbacks: list[TrainerCallback]
) -> Any:
    """The algorithm's trainer."""
    args = training_arguments(request.config, checkpoints)
    if args.parallel_mode == ParallelMode.NOT_PARALLEL and torch.cuda.device_count() > 1 and not args.use_cpu:
        log.warning(
            "one of %d GPUs is used; all: torchrun --nproc_per_node gpu -m rag_experiments.train trainer=multi_gpu …",
            torch.cuda.device_count(),
        )
    patience = request.config.early_stopping
    if patience is not None:
        callbacks = [*callbacks, EarlyStoppingCallback(early_stopping_patience=patience)]
    trainer = request.trainer_class(components, args, callbacks)
    # In a notebook Trainer's own is another one, a table whose columns are named after losses of its own.
    trainer.pop_callback(PrinterCallback if args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
    trainer.add_callback(Progress())
    transformers.utils.logging.disable_progress_bar()  # one for each shard of each checkpoint otherwise
    return trainer
