"""RPG trainers over a tiny encoder, a tiny language model and a corpus in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

from transformers import TrainingArguments

from rag_experiments.algorithms.base import RunComponents
from rag_experiments.algorithms.rpg import RPGConfig, RPGTrainer
from rag_experiments.config.schema import EncoderConfig, EvaluationConfig, ReaderConfig, RetrieverConfig
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.retrieval.dense import DenseRetriever
from tests.examples import ListStore

ANIMALS = ["cat", "dog", "fish"]
PLACES = ["house", "tree", "river", "stone"]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


class Store(ListStore):
    """A passage store in memory, for an encoder as well."""

    @property
    def content_hash(self) -> str:
        return hashlib.sha256("\n".join(passage.full_text for passage in self.passages).encode()).hexdigest()

    def full_texts(self, rows) -> list[str]:
        found = self.passages[rows] if isinstance(rows, slice) else [self.passages[int(row)] for row in rows]
        return [passage.full_text for passage in found]


def corpus() -> tuple[list[Passage], list[Question]]:
    """Sixteen passages and eight questions; answers of one to three words."""
    passages = [
        Passage(
            id=f"p{i}", title=ANIMALS[i % 3], text=f"the {ANIMALS[i % 3]} sleeps in {PLACES[i % 4]} {NUMBERS[i % 8]}"
        )
        for i in range(16)
    ]
    questions = [
        Question(
            id=f"q{i}",
            question=f"where is the {ANIMALS[i % 3]} {NUMBERS[i]}",
            answers=((PLACES[i % 4], f"{PLACES[i % 4]} {NUMBERS[i]}", f"in {PLACES[i % 4]} {NUMBERS[i]}")[i % 3],),
            positive_ids=(f"p{i}",),
        )
        for i in range(8)
    ]
    return passages, questions


def make_trainer(encoder: Path, teacher: Path, root: Path, kind: str = "decoder", **arguments) -> RPGTrainer:
    """`algorithm_…` arguments go to `RPGConfig`, `cache` to the parts, the rest to TrainingArguments."""
    passages, questions = corpus()
    store = Store(passages)
    hyper = {
        key.removeprefix("algorithm_"): arguments.pop(key) for key in list(arguments) if key.startswith("algorithm_")
    }
    cache = arguments.pop("cache", root / "cache")
    teacher_config = ReaderConfig(
        path=str(teacher), kind=kind, precision="fp32", max_new_tokens=8, max_input_length=900, batch_size=4
    )
    config = SimpleNamespace(
        seed=0,
        algorithm=RPGConfig(**{"teacher": teacher_config, "candidates": 4, "refresh_every": 0, **hyper}),
        data=SimpleNamespace(query_history="user"),
        evaluation=EvaluationConfig(bootstrap=0),
    )
    model = Encoder.load(EncoderConfig(path=str(encoder), precision="fp32", pooling="mean", similarity="cosine"))
    retriever = DenseRetriever(RetrieverConfig(), store, model, None)
    retriever.progress = False
    parts = RunComponents(
        config=config,
        data=SimpleNamespace(passages=store, splits={"train": questions, "dev": questions[:2], "test": questions[2:4]}),
        models={"encoder": model},
        retriever=retriever,
        evaluator=None,
        cache=cache,
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
    trainer = RPGTrainer(parts, TrainingArguments(**{**defaults, **arguments}))
    trainer.prepare()
    trainer.candidates.progress = False
    return trainer


def logged(trainer: RPGTrainer, name: str) -> list[float]:
    """A figure's values, in the order of the steps that logged it; the summary at the end left out."""
    return [line[name] for line in trainer.state.log_history if name in line and "train/runtime" not in line]
