"""Fixtures that several test folders share: small real things, made here, no network."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from absl import logging as absl_logging
from hypothesis import settings

from rag_experiments.config import data_formats, kinds
from tests.tiers import is_numeric, tiers
from tests.tiny_readers import tiny_llama, tiny_plain_llama, tiny_t5  # noqa: F401 - fixtures

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is imported: tiny models gain nothing from more threads, and figures are equal on any number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts pytest in the background lets it ignore Ctrl-C, and so what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# absl, which rouge-score brings, keeps what standard error is when it is imported, and closes that whenever logging is
# configured anew, as Hydra does for each job: pytest's own capture, where a test's file imports rouge-score.
if sys.__stderr__ is not None:
    absl_logging.get_absl_handler().python_handler.setStream(sys.__stderr__)

# More examples where there is time: pytest --hypothesis-profile=long (the long tier).
settings.register_profile("long", max_examples=1000, deadline=None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m unit` does not even import a file of another tier: torch takes longer than these tests."""
    if config.option.markexpr != "unit":
        return None
    if collection_path.is_dir():
        files = list(collection_path.rglob("test_*.py"))
        return (bool(files) and not any("unit" in tiers(file) for file in files)) or None
    return (collection_path.name.startswith("test_") and "unit" not in tiers(collection_path)) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Markers by what a test's file imports and what the test asks for. `real` and `long` are set by hand."""
    for item in items:
        if is_numeric(item.path.relative_to(Path(__file__).parent).as_posix()):
            item.add_marker("numeric")
        names = (getattr(item, "originalname", item.name), *getattr(item, "fixturenames", ()))
        for name in tiers(item.path, names):
            item.add_marker(name)


@pytest.fixture(autouse=True, scope="module")
def imported_modules_stay() -> None:
    """Collections need not look through what was imported: each run makes full ones, half a second each."""
    if len(sys.modules) > imported["modules"] + 100:
        imported["modules"] = len(sys.modules)
        gc.collect()
        gc.freeze()


imported = {"modules": 0}
"""How many modules there were when what was there was last left out of collections."""


WORDS = (  # noqa: SIM905
    "the a of to and in is red blue green cat dog fish house tree river stone runs eats sleeps who what where "
    "small large old new sun moon star one two three four five six seven eight nine ten colour animal"
).split()


@pytest.fixture(autouse=True)
def registries():
    """What a test registers from outside the package is gone after it, so that no test depends on those before."""
    registered = (data_formats.FORMATS, kinds.MODEL_KINDS, kinds.RETRIEVER_KINDS)
    before = [dict(registry) for registry in registered]
    yield
    for registry, content in zip(registered, before, strict=True):
        registry.clear()
        registry.update(content)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT."""
    return write_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


def write_tiny_bert(folder: Path) -> Path:
    """A BERT of two layers and 32 dimensions, random weights, and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """A native data set: 40 passages, each the gold of one train question, some of dev and test."""
    return write_small_data(tmp_path / "data")


def write_small_data(folder: Path, passages: int = 40) -> Path:
    """`passages.jsonl`, `train.jsonl`, `dev.jsonl` and `test.jsonl` of number words and animals."""
    folder.mkdir(parents=True, exist_ok=True)
    animals, places, colours = ["cat", "dog", "fish"], ["house", "tree", "river", "stone"], ["red", "blue", "green"]
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows = []
    for index in range(passages):
        animal, place, colour = animals[index % 3], places[index % 4], colours[(index // 3) % 3]
        number = numbers[index % 10]
        rows.append({"id": f"p{index}", "title": animal, "text": f"the {colour} {animal} sleeps in {place} {number}"})
    questions = [
        {
            "id": f"q{index}",
            "question": f"where is the {row['text'].split()[1]} {row['title']} {numbers[index % 10]}",
            "answers": [row["text"].split()[-2]],
            "positive_ids": [row["id"]],
            "negative_ids": [f"p{(index + 7) % passages}", f"p{(index + 11) % passages}"],
        }
        for index, row in enumerate(rows)
    ]
    write_jsonl(folder / "passages.jsonl", rows)
    write_jsonl(folder / "train.jsonl", questions)
    write_jsonl(folder / "dev.jsonl", [{**q, "id": f"dev-{q['id']}"} for q in questions[: passages // 4]])
    write_jsonl(folder / "test.jsonl", [{**q, "id": f"test-{q['id']}"} for q in questions[-(passages // 4) :]])
    return folder


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
