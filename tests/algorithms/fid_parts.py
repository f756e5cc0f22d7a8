"""DCA trainers over a tiny encoder, a tiny reader and a corpus in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transformers import TrainingArguments

from rag_experiments.algorithms.base import RunComponents
from rag_experiments.algorithms.dca import DCAConfig, DCATrainer
from rag_experiments.config.schema import (
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    FidSettings,
    ReaderConfig,
    RetrieverConfig,
    RunConfig,
)
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.retrieval.dense import DenseRetriever
from tests.algorithms.rpg_parts import Store, corpus


def teacher_config(folder: Path, kind: str) -> ReaderConfig:
    """A tiny reader that reads passages apart."""
    more = {"kind": "encoder_decoder", "max_input_length": 300} if kind == "t5" else {"max_input_length": 900}
    return ReaderConfig(
        path=str(folder), precision="fp32", max_new_tokens=8, batch_size=4, fid=FidSettings(sub_batch_size=4), **more
    )


def make_dca_trainer(
    encoder: Path,
    teacher: ReaderConfig,
    root: Path,
    candidate_ids: list | None = None,
    answered: bool = True,
    **arguments,
) -> DCATrainer:
    """`algorithm_…` arguments go to `DCAConfig`, the rest to TrainingArguments; seeds are the run's."""
    passages, questions = corpus()
    if candidate_ids is not None:
        questions = [
            dataclasses.replace(question, candidate_ids=ids)
            for question, ids in zip(questions, candidate_ids, strict=True)
        ]
    if not answered:
        questions = [dataclasses.replace(question, answers=()) for question in questions]
    store = Store(passages)
    hyper = {
        key.removeprefix("algorithm_"): arguments.pop(key) for key in list(arguments) if key.startswith("algorithm_")
    }
    model_config = EncoderConfig(path=str(encoder), precision="fp32", pooling="mean", similarity="cosine")
    values = dict.fromkeys((field.name for field in dataclasses.fields(RunConfig)), None)
    config = RunConfig(
        **{
            **values,
            "seed": arguments.get("seed", 0),
            "model": model_config,
            "algorithm": DCAConfig(**{"teacher": teacher, "candidates": 4, **hyper}),
            "data": DataConfig(format="jsonl"),
            "retriever": RetrieverConfig(),
            "evaluation": EvaluationConfig(bootstrap=0),
        }
    )
    model = Encoder.load(model_config)
    retriever = DenseRetriever(RetrieverConfig(), store, model, None)
    retriever.progress = False
    splits = {"train": questions, "dev": questions[:2], "test": questions[2:4]}
    data = Data(passages=store, splits=splits)
    parts = RunComponents(
        config=config, data=data, models={"encoder": model}, retriever=retriever, evaluator=None, cache=root / "cache"
    )
    defaults = {
        "output_dir": str(root / "checkpoints"),
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
        "max_steps": 4,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "remove_unused_columns": False,
        "lr_scheduler_type": "constant",
        "disable_tqdm": True,
        "seed": 0,
    }
    trainer = DCATrainer(parts, TrainingArguments(**{**defaults, **arguments}))
    trainer.prepare()
    trainer.candidates.progress = False
    return trainer


@dataclasses.dataclass
class Data:
    """`RagData` without files."""

    passages: Store
    splits: dict
    content_hash: str = "small"
