"""A checked request → the loaded parts of a run, and its trainer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    set_seed,
)
from transformers.training_args import ParallelMode

from rag_experiments.algorithms.base import AlgorithmTrainer, Parts
from rag_experiments.models.model_kinds import load_model
from rag_experiments.retrieval.retriever_kinds import Retriever, build_retriever
from rag_experiments.training.callbacks import Progress
from rag_experiments.training.request import Request
from rag_experiments.training.training_arguments import training_arguments

log = logging.getLogger(__name__)


def build_parts(request: Request) -> Parts:
    """Read the weights, open the corpus, prepare the retriever and the evaluator.

    Everything random is seeded here first, fresh adapters and heads included.
    """
    config = request.config
    set_seed(config.seed)
    trainer_class: type[AlgorithmTrainer] = request.trainer_class
    model = trainer_class.load_model(config.model, request.cache)
    retriever = make_retriever(request, model)
    return Parts(
        config=config,
        data=request.data,
        model=model,
        retriever=retriever,
        evaluator=trainer_class.make_evaluator(config, request.data, model, retriever),
        cache=request.cache,
    )


def make_retriever(request: Request, model: Any) -> Retriever:
    """The retriever over the whole corpus: with the encoder being trained, or a frozen one of its own."""
    config = request.config
    if config.model.kind == "encoder":
        encoder = model
    else:
        encoder = None if config.retriever.encoder is None else load_model(config.retriever.encoder, request.cache)
    return build_retriever(config.retriever, request.data.passages, encoder, request.cache)


def build_trainer(request: Request, parts: Parts, checkpoints: Path, callbacks: list[TrainerCallback]) -> Any:
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
    trainer = request.trainer_class(parts, args, callbacks)
    trainer.pop_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
    trainer.add_callback(Progress())
    transformers.utils.logging.disable_progress_bar()  # one for each shard of each checkpoint otherwise
    return trainer
