"""Trainers of tiny readers on a data set made here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from transformers import TrainingArguments

from rag_experiments.algorithms.base import RunComponents
from rag_experiments.config.schema import EvaluationConfig, ReaderConfig
from rag_experiments.data.records import Passage, Question
from rag_experiments.models.fid.fid_reader import FidReader
from rag_experiments.models.reader.reader import Reader
from tests.examples import ListStore, WordRetriever

ANIMALS = ["cat", "dog", "fish", "bird", "cow", "horse", "sheep", "goat"]
PLACES = ["house", "old tree", "river", "nest of twigs", "field", "barn", "hill", "rock"]


def small_set() -> tuple[list[Passage], list[Question]]:
    """Eight passages with one question each, answers of different lengths, and four passages that are nobody's gold."""
    passages = [
        Passage(id=f"p{i}", title=animal, text=f"The {animal} sleeps in the {place}.")
        for i, (animal, place) in enumerate(zip(ANIMALS, PLACES, strict=True))
    ]
    others = [
        Passage(id=f"x{i}", text=f"Where does the {animal} eat? In the rain.") for i, animal in enumerate(ANIMALS[:4])
    ]
    questions = [
        Question(
            id=f"q{i}",
            question=f"Where does the {animal} sleep?",
            answers=(place, f"in the {place}"),
            positive_ids=(f"p{i}",),
        )
        for i, (animal, place) in enumerate(zip(ANIMALS, PLACES, strict=True))
    ]
    return passages + others, questions


def make_trainer(trainer_class, folder: Path, tmp_path: Path, model=None, questions=None, passages=None, **arguments):
    """A trainer over `small_set`. `algorithm_…` arguments go to its configuration, the rest to TrainingArguments."""
    stored, asked = small_set()
    store = ListStore(passages or stored)
    hyper = trainer_class.Config(
        **{
            key.removeprefix("algorithm_"): arguments.pop(key)
            for key in list(arguments)
            if key.startswith("algorithm_")
        }
    )
    reader_config = model or ReaderConfig(path=str(folder), precision="fp32", max_new_tokens=16, max_input_length=700)
    config = SimpleNamespace(
        seed=0,
        algorithm=hyper,
        model=reader_config,
        data=SimpleNamespace(query_history="user"),
        retriever=SimpleNamespace(k=2),
        evaluation=EvaluationConfig(bootstrap=0),
    )
    parts = RunComponents(
        config=config,
        data=SimpleNamespace(
            passages=store, splits={"train": questions or asked, "dev": asked[:2], "test": asked[2:4]}
        ),
        models={"reader": (FidReader if reader_config.fid else Reader).load(reader_config, device="cpu")},
        retriever=WordRetriever(store),
        evaluator=None,
        cache=tmp_path / "cache",
    )
    defaults = {
        "output_dir": str(tmp_path / "checkpoints"),
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 1,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "max_grad_norm": 0.0,
        "remove_unused_columns": False,
        "lr_scheduler_type": "constant",
        "disable_tqdm": True,
    }
    trainer = trainer_class(parts, TrainingArguments(**{**defaults, **arguments}))
    trainer.prepare()
    return trainer


def losses(trainer) -> list[float]:
    """`train/loss` of every logged step."""
    return [line["train/loss"] for line in trainer.state.log_history if "train/loss" in line]


def spy(trainer) -> list[list[tuple[list[int], list[int]]]]:
    """The rows (tokens, supervised tokens) of every batch that reaches `compute_loss`, padding left out."""
    seen = []
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        rows = []
        for ids, mask, labels in zip(inputs["input_ids"], inputs["attention_mask"], inputs["labels"], strict=True):
            rows.append((ids[mask.bool()].tolist(), labels[mask.bool()].tolist()))
        seen.append(rows)
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    return seen
