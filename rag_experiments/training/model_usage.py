"""README.md beside a model: code to copy that uses it without this package, and gives the same vectors or answers.

A model's folder says everything that the text needs (`rag_experiments.json`, tokenizer, `config.json`), so it can be
written for any run's model at any time; no weights are read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from rag_experiments.core.files import atomic_write_text
from rag_experiments.data.shown_ids import own_ids
from rag_experiments.model_files.metadata import ADAPTER_CONFIG, base_of_adapters, is_adapter, read_facts, read_json
from rag_experiments.model_files.sentence_transformers_format import TRUNCATE_FOLDER, read_folder
from rag_experiments.model_files.sources import resolve
from rag_experiments.models.encoder.encoder_files import half_class
from rag_experiments.models.reader import reader_files
from rag_experiments.models.reader.decoding import decoding_values
from rag_experiments.models.reader.prompts import PromptBuilder
from rag_experiments.models.reader.reader import LONGEST_ANSWER

if TYPE_CHECKING:
    from rag_experiments.config.schema import RunConfig
    from rag_experiments.data.load import RagData
    from rag_experiments.runs.directory import RunDirectory

log = logging.getLogger(__name__)

README = "README.md"
_DTYPES = {"fp32": "torch.float32", "bf16": "torch.bfloat16", "fp16": "torch.float16"}
_LOOKED_AT = 50
"""Rows of the predictions among which the shortest example is chosen."""


@dataclass(frozen=True)
class Example:
    """A question, passages as (title, text), and what a reader answered to just these; None where nobody knows."""

    question: str
    passages: list[tuple[str, str]]
    answer: str | None = None


def write_readmes(run: RunDirectory, config: RunConfig, data: RagData) -> None:
    """`README.md` in each folder of `model/` that holds an encoder, a reranker or a reader."""
    if not run.writes:
        return
    example = example_of(run, data)
    for folder in model_folders(run.model_dir):
        text = model_readme(folder, run.path.name, config, example)
        if text:
            atomic_write_text(folder / README, text)


def model_folders(model_dir: Path) -> list[Path]:
    """The folders with a model: `model/` itself, or one a role."""
    return [folder for folder in [model_dir, *sorted(model_dir.glob("*/"))] if read_facts(folder)]


def model_readme(folder: Path, name: str, config: RunConfig, example: Example, trained: bool = True) -> str:
    """The text for a model's folder; empty for a kind from outside the package, of which nothing is known here.

    Args:
        trained: false for an encoder that the run only searched with.
    """
    kind = (read_facts(folder) or {}).get("kind")
    shared = {"name": name, "algorithm": config.algorithm.name, "question": example.question, "answer": example.answer}
    if kind == "encoder":
        return rendered(
            "encoder.md", **shared, trained=trained, passages=example.passages[:2], **encoder_values(folder)
        )
    if kind == "cross_encoder":
        settings = (read_facts(folder) or {})["config"]
        values = {**settings, "base": base_for_others(folder)}
        return rendered("cross_encoder.md", **shared, passages=example.passages[:2], **values)
    if kind in ("decoder", "encoder_decoder"):
        values = reader_values(folder, config)
        return rendered("reader.md", **shared, passages=example.passages, **values)
    return ""


def encoder_values(folder: Path) -> dict[str, Any]:
    """What `encoder.md` says of the encoder in `folder`."""
    base = base_for_others(folder)
    facts, model_config = read_folder(folder), AutoConfig.from_pretrained(base or folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dense = [path for path in facts.dense if path != TRUNCATE_FOLDER]
    return {
        "base": base,
        "similarity": facts.similarity,
        "pooling": facts.pooling,
        "query_prefix": facts.query_prefix or "",
        "passage_prefix": facts.passage_prefix or "",
        "max_query_length": facts.max_query_length,
        "max_passage_length": facts.max_passage_length,
        "dimension": facts.dimension or dense_width(folder, dense) or model_config.hidden_size,
        "truncated": TRUNCATE_FOLDER in facts.dense,
        "dense": dense,
        "auto": half_class(model_config) or "AutoModel",
        "reads_lines": tokenizer("a\nb")["input_ids"] != tokenizer("a b")["input_ids"],
    }


def base_for_others(folder: Path) -> str | None:
    """What an encoder's or reranker's adapters go onto, as other libraries name it; None for a whole model."""
    return str(read_json(folder / ADAPTER_CONFIG)["base_model_name_or_path"]) if is_adapter(folder) else None


def dense_width(folder: Path, dense: Sequence[str]) -> int | None:
    """Components of a vector behind the last Dense layer; None without one."""
    return int(read_json(folder / dense[-1] / "config.json")["out_features"]) if dense else None


def reader_values(folder: Path, config: RunConfig, place: str = ".") -> dict[str, Any]:
    """What `reader.md` says of the reader in `folder`, which the code opens at `place`."""
    facts = (read_facts(folder) or {})["config"]
    kind, tokenizer = facts["kind"], AutoTokenizer.from_pretrained(folder)
    longest = facts["max_new_tokens"] or LONGEST_ANSWER
    prompts = PromptBuilder(
        tokenizer,
        max_length=facts["max_input_length"],
        reserve=longest,
        kind=kind,
        chat_template=facts["chat_template"],
        instruction=facts["instruction"],
        date=facts["template_date"],
    )
    base, base_folder = None, folder
    if is_adapter(folder):
        base = base_of_adapters(folder)
        base_folder = reader_files.model_folder(base, None, Path(config.paths.cache).expanduser())
        base = str(base_folder) if resolve(base).local is not None else base
    own = base_folder / "generation_config.json"
    model_config = AutoConfig.from_pretrained(base_folder)
    decoding = decoding_values(
        GenerationConfig.from_pretrained(base_folder)
        if own.is_file()
        else GenerationConfig.from_model_config(model_config),
        model_config,
        tokenizer,
        prompts.end_id,
        longest,
        config.evaluation.num_beams,
    )
    head, tail = prompts.frame
    return {
        "folder": place,
        "base": base,
        "reranked_by": config.retriever.reranker.path if config.retriever.reranker is not None else None,
        "fid": facts.get("fid"),
        "decoder": kind == "decoder",
        "auto": "AutoModelForCausalLM" if kind == "decoder" else "AutoModelForSeq2SeqLM",
        "decoding": {key: value for key, value in decoding.items() if value is not None},
        "head": as_text(tokenizer, head),
        "head_text": tokenizer.decode(head),
        "tail": as_text(tokenizer, tail),
        "tail_text": tokenizer.decode(tail),
        "special": tokenizer.decode([prompts.end_id]),
        "room": facts["max_input_length"] - (longest if kind == "decoder" else 0),
        "dtype": _DTYPES[facts["precision"]],
    }


def as_text(tokenizer: Any, ids: Sequence[int]) -> str | tuple[int, ...]:
    """The text that becomes `ids`; the ids themselves where none does (a first space that a tokenizer adds)."""
    text = tokenizer.decode(ids)
    return text if tokenizer(text, add_special_tokens=False)["input_ids"] == list(ids) else tuple(ids)


def example_of(run: RunDirectory, data: RagData) -> Example:
    """The shortest of the first questions that the run answered, right before wrong; else one of the data's own."""
    alone = {question.id for questions in data.splits.values() for question in questions if not question.history}
    rows = [row for split in ("test", "dev") for row in run.read_predictions(split)[:_LOOKED_AT] if row["id"] in alone]
    found: list[tuple[bool, float, int, int, Example]] = []
    for row in rows:
        ids = own_ids(row, "given_ids") if "given_ids" in row else own_ids(row, "retrieved_ids")[:2]
        if ids:
            passages = [data.passages[int(number)] for number in data.passages.rows(ids)]
            right = (row.get("metrics") or {}).get("exact_match", 0.0)
            size = sum(len(passage.full_text) for passage in passages)
            example = Example(row["question"], [(one.title, one.text) for one in passages], row.get("answer"))
            found.append((row.get("answer") is None, -right, size, len(found), example))
    if found:
        return min(found)[-1]
    questions = [question.question for questions in data.splits.values() for question in questions[:1]]
    passages = [data.passages[row] for row in range(min(2, len(data.passages)))]
    return Example(questions[0] if questions else "your question", [(one.title, one.text) for one in passages])


def rendered(template: str, **values: Any) -> str:
    """A text of `templates/`; `py` writes a value as Python does, on one line."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(  # Markdown and Python; `py` quotes whatever comes from data
        loader=PackageLoader("rag_experiments.training", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["py"] = repr
    return environment
