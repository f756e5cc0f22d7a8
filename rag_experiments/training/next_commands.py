"""What fits a completed run: where it is, and three commands to go on with, each ready to be pasted into a shell."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rag_experiments.config.command_line import split_words
from rag_experiments.config.overrides import split_override, typed
from rag_experiments.training import chain, resume

if TYPE_CHECKING:
    from rag_experiments.config.schema import RunConfig
    from rag_experiments.data.load import RagData
    from rag_experiments.runs.directory import RunDirectory

LONGEST_QUESTION = 100
"""Characters of a question that is printed in a command."""


def farewell(run: RunDirectory, config: RunConfig, data: RagData) -> str:
    """The directory of a completed run, and `next_commands`; empty for a stage of a chain, which goes on by itself."""
    if chain.is_chain(run.path.parent):
        return ""
    return "\n".join([f"\nThe run is in {shown(run.path)}. What fits next:", *next_commands(run, config, data)])


def next_commands(run: RunDirectory, config: RunConfig, data: RagData) -> list[str]:
    """Compare; ask; and train a reader on a trained encoder, where the data have what that needs, else export."""
    at = shown(run.path)
    others = [place for place in run.path.parent.glob("*/") if place != run.path and (place / "status.json").is_file()]
    compared = shown(run.path.parent) if others else at
    ask = f"rag-ask {typed('run', at)} {shlex.quote(a_question(run))}"
    return [f"rag-compare {shlex.quote(compared)}", ask, _next_half(run, config, data, at) or _export(run, at)]


def shown(path: Path) -> str:
    """The path as one would type it: from the working directory, if it is below that."""
    path = path.absolute()
    near = os.path.relpath(path)
    if near.startswith(os.pardir):
        return str(path)
    return f"./{near}" if near.startswith("-") else near


def a_question(run: RunDirectory) -> str:
    """One that the run answered, if it can be told from an override on a command line."""
    questions = [row["question"] for split in ("test", "dev") for row in run.read_predictions(split)]
    fitting = (text for text in questions if len(text) <= LONGEST_QUESTION and text.isprintable() and text.strip())
    return next((text for text in fitting if split_words([text]) == ([text], [])), "your question")


def _export(run: RunDirectory, at: str) -> str:
    name = "exported" if not Path("exported").exists() else f"exported-{run.path.name}"
    return f"rag-export {typed('run', at)} {shlex.quote(name)}"


def _next_half(run: RunDirectory, config: RunConfig, data: RagData, at: str) -> str | None:
    """A reader behind the encoder that the run trained, on the same data."""
    train = data.splits.get("train", [])
    if (run.model_dir / "reader").is_dir():  # it was trained beside the encoder
        return None
    if config.model.kind != "encoder" or not any(question.answers and question.positive_ids for question in train):
        return None
    stored = resume.stored_overrides(run.path, settled=False)
    config_dir = resume.stored_config_dir(run.path)
    chosen = [*data_words(stored, config), *(value for value in stored if value.startswith("paths."))]
    words = ["rag-train", *(["--config-dir", config_dir] if config_dir else []), "algorithm=swr"]
    words += ["model@retriever.encoder=run", *chosen]
    return f"{shlex.join(words)} {typed('retriever.encoder.path', f'run://{at}')}"


def data_words(stored: list[str], config: RunConfig) -> list[str]:
    """The run's data as they were typed, and with all their keys where an experiment chose some of them."""
    keys = [split_override(value)[0] for value in stored]
    words = [value for value, key in zip(stored, keys, strict=True) if key.split(".")[0] == "data"]
    if "experiment" not in keys:
        return [value for value in words if value != "data=auto" or "data.path" not in keys]
    try:
        return resume.data_overrides(dataclasses.asdict(config.data))
    except LookupError:  # a format from outside the package, under the name that was typed
        return words
