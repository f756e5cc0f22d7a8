"""Load the data of a configuration: checked passages on disk, checked questions in memory.

Data is read and checked once, and imported into a cache. The cache key depends on the content, so a second run on the
same data opens it at once, and a changed file gets another key.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_experiments.config import data_formats
from rag_experiments.config.schema import DataConfig
from rag_experiments.core import cache as disk_cache
from rag_experiments.core.digest import digest, settled_digest, without
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_json, atomic_write_jsonl
from rag_experiments.core.text import VERSION
from rag_experiments.data.builder import SPLITS, Asked, Intake, RefusedRow
from rag_experiments.data.column_report import UNUSED
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.queries import question_key
from rag_experiments.data.records import Question, Turn, Where
from rag_experiments.data.split import split_questions

log = logging.getLogger(__name__)

IMPORT_VERSION = 8
"""Part of the cache key: raised when the same files would be imported differently."""
AFTERWARDS = "what is imported is divided and cut short afterwards"
NOT_IMPORTED = {
    "path": "what is read there is in the key, not where it lies",
    **dict.fromkeys(("dev_fraction", "test_fraction", "split_seed", "max_train", "max_dev", "max_test"), AFTERWARDS),
    "query_history": "of the words that are searched with",
}
"""Keys under `data:` that do not change the imported data, with the reason."""
NEEDS = {"positives": "positive_ids", "answers": "answers"}
"""The field of a question by its name in `check.needs`."""


@dataclass
class RagData:
    """A loaded data set."""

    passages: PassageStore
    splits: dict[str, list[Question]]
    """`train`, `dev`, `test`; ids are unique within a split."""
    content_hash: str
    """Hash of passages, questions and their splits. Two runs with equal hashes may be compared."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user: a split that was made, questions that were dropped."""
    places: dict[str, dict[str, str]] = field(default_factory=dict)
    """File and line, by split and question id."""

    @property
    def corpus_hash(self) -> str:
        """Hash of the passages alone."""
        return self.passages.content_hash


def load_data(config: DataConfig, cache: Path) -> RagData:
    """Read, check, import and split the data.

    Raises:
        RequestError: something is missing or wrong; the message names file and line.
    """
    folder = import_data(config, cache)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    entries = {name: list(_stored_questions(folder / f"{name}.jsonl")) for name in manifest["splits"]}
    return assemble(PassageStore(folder), entries, config, list(manifest["notes"]))


def assemble(store: PassageStore, entries: dict[str, list[Asked]], config: DataConfig, notes: list[str]) -> RagData:
    """The part of loading that is not cached: cut missing splits, apply limits, hash the result."""
    divided, split_notes = split_questions(entries, store, config)
    selection = {name: _limited(divided.get(name, []), getattr(config, f"max_{name}"), config) for name in SPLITS}
    splits = {name: [one.question for one in questions] for name, questions in selection.items()}
    return RagData(
        passages=store,
        splits=splits,
        content_hash=_content_hash(store, splits),
        notes=[*notes, *split_notes, *_shared_questions(splits)],
        places={name: {one.question.id: str(one.where) for one in questions} for name, questions in selection.items()},
    )


def check_required_fields(data: RagData, names: Collection[str], algorithm: str) -> None:
    """Raise `RequestError` if a question lacks a field that `algorithm` needs; the message names the first place."""
    words = {name: word for word, name in NEEDS.items()}
    for name in sorted(names):
        need = words.get(name)
        fix = f"; rag_experiments.data.check … check.needs=[{need}] --fix DIR leaves them out" if need else ""
        if not any(getattr(question, name) for questions in data.splits.values() for question in questions):
            fix = _mapping_advice(data, need)
        for split, questions in data.splits.items():
            lacking = [question for question in questions if not getattr(question, name)]
            if not lacking:
                continue
            place = data.places.get(split, {}).get(lacking[0].id, f"question {lacking[0].id!r}")
            raise RequestError(
                f"{place}: no {name}, and algorithm={algorithm} needs {need or name} for every question "
                f"({len(lacking)} of the {len(questions)} {split} questions have none{fix})"
            )


def _mapping_advice(data: RagData, need: str | None) -> str:
    """What to do where not one question has a field: name its column; leaving all questions out helps nobody."""
    unused = next((note for note in data.notes if note.startswith(UNUSED)), None)
    if need is None or unused is None:
        return "; no question of any split has one"
    key = "answers" if need == "answers" else "context (data=tevatron: data.columns.positives)"
    return f"; {unused}: name the one that holds them with data.columns.{key}"


def import_data(config: DataConfig, cache: Path) -> Path:
    """Import the data unless the cache holds it; returns its folder in the cache.

    Raises:
        RequestError: as in `load_data`; also if the cache cannot be written.
    """
    module = data_formats.reader(config.format)
    key = _import_key(config, fingerprint(config))

    def fill(making: Path) -> None:
        intake = Intake(making, titles=config.titles, encoding=config.encoding)
        module.read(config, intake)
        intake.finish()
        _write_questions(making, intake, config)

    try:
        return disk_cache.entry(cache.expanduser(), "data", key, fill)
    except RefusedRow as error:
        where = f"data={config.format}" + (f" data.path={config.path}" if config.path else "")
        raise RequestError(f"{error} (rag_experiments.data.check {where} … --fix DIR writes the rest)") from error


def fingerprint(config: DataConfig) -> str:
    """A hash of everything that the data is read from.

    Raises:
        RequestError: a file is missing or cannot be read.
    """
    try:
        return data_formats.reader(config.format).fingerprint(config)
    except OSError as error:
        raise RequestError(f"data.path={config.path}: {error}") from error


def _import_key(config: DataConfig, fingerprint: str) -> str:
    """The cache key: a hash of the content and of every key that affects the import, but not of the path."""
    return digest(IMPORT_VERSION, VERSION, fingerprint, without(config, NOT_IMPORTED))


# -- the questions in the cache --------------------------------------------------------------------


def _write_questions(folder: Path, intake: Intake, config: DataConfig) -> None:
    for name, entries in intake.splits.items():
        atomic_write_jsonl(folder / f"{name}.jsonl", map(_stored, entries))
    # A note may name a column, and JSON lets a column's name hold half a character (\ud800), which no file can.
    notes = [note.encode("utf-8", "backslashreplace").decode() for note in intake.notes]
    manifest = {"splits": list(intake.splits), "notes": notes, "format": config.format}
    atomic_write_json(folder / "manifest.json", manifest)


def _stored(one: Asked) -> dict[str, Any]:
    # Only the file's name, not its folder: a copied data set shares the cache of the original.
    place = [Path(one.where.file).name, one.where.line, one.where.inside]
    return {**dataclasses.asdict(one.question), "where": place, "groups": [one.group, *one.more_groups]}


def _stored_questions(path: Path) -> Iterator[Asked]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            where, (group, *more) = Where(*values.pop("where")), values.pop("groups")
            for name in ("answers", "positive_ids", "negative_ids", "candidate_ids"):
                values[name] = tuple(values[name])
            values["history"] = tuple(Turn(**turn) for turn in values["history"])
            yield Asked(Question(**values), where, group, tuple(more))


def _limited(entries: list[Asked], limit: int | None, config: DataConfig) -> list[Asked]:
    """A seeded choice of `limit` questions, in their original order."""
    if limit is None or limit >= len(entries):
        return entries
    ranked = sorted(entries, key=lambda one: settled_digest(f"{config.split_seed}/{one.question.id}"))
    ids = {one.question.id for one in ranked[:limit]}
    return [one for one in entries if one.question.id in ids]


def _shared_questions(splits: dict[str, list[Question]]) -> list[str]:
    """A sentence for each evaluation split that shares questions with train."""
    train = {question_key(question) for question in splits["train"]}
    notes = []
    for name in ("dev", "test"):
        shared = sum(question_key(question) in train for question in splits[name])
        if shared:
            notes.append(f"{shared} of the {len(splits[name])} {name} questions are asked in train as well")
    return notes


def _content_hash(passages: PassageStore, splits: Mapping[str, Iterable[Question]]) -> str:
    def texts() -> Iterator[str]:
        yield passages.content_hash
        for name, questions in splits.items():
            yield name
            for question in questions:
                values = dataclasses.asdict(question)
                for name in ("copies", "scores"):  # the hash of data without them is as before they were recorded
                    if not values[name]:
                        del values[name]
                yield json.dumps(values, sort_keys=True, ensure_ascii=False)

    return settled_digest(texts())[:32]
