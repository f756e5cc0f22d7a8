"""A data configuration → passages on disk and questions in memory, checked.

What a format reads is checked as a whole once and imported into a cache that is keyed by content, so
that the second run of the same data opens it in a moment. A changed file has another key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from rag_experiments.data import formats
from rag_experiments.data.passages import PassageStore, write_passages
from rag_experiments.data.raw import Located, RawData
from rag_experiments.data.schema import Passage, Question, Turn
from rag_experiments.data.split import split_questions
from rag_experiments.errors import RequestError
from rag_experiments.files import atomic_directory, atomic_write_json, atomic_write_jsonl
from rag_experiments.schema import DataConfig

log = logging.getLogger(__name__)

IMPORT_VERSION = 1
"""Part of the cache's key: raised when what is imported changes."""
SPLITS = ("train", "dev", "test")
NEEDS = {"positives": "positive_ids", "answers": "answers"}


@dataclass
class RagData:
    """A data set as the rest of the program sees it."""

    passages: PassageStore
    splits: dict[str, list[Question]]
    content_hash: str
    """Of passages, questions and their splits: two runs with the same one may be compared."""
    notes: list[str] = field(default_factory=list)
    """What the user should know: a split that was made, questions that were dropped."""
    places: dict[str, str] = field(default_factory=dict)
    """Question id to file and line."""

    @property
    def corpus_hash(self) -> str:
        """Of the passages alone."""
        return self.passages.content_hash


def load_data(config: DataConfig, cache: Path) -> RagData:
    """Read, check, import, split.

    Raises:
        RequestError: something is missing or wrong, with file and line.
    """
    folder = import_data(config, cache)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    places: dict[str, str] = {}
    splits = {name: list(_stored_questions(folder / f"{name}.jsonl", places)) for name in manifest["splits"]}
    notes = list(manifest["notes"])
    splits, split_notes = split_questions(splits, manifest["groups"], config)
    splits = {name: _limited(splits.get(name, []), getattr(config, f"max_{name}"), config) for name in SPLITS}
    passages = PassageStore(folder)
    return RagData(
        passages=passages,
        splits=splits,
        content_hash=_content_hash(passages, splits),
        notes=notes + split_notes,
        places=places,
    )


def check_needs(data: RagData, needs: Collection[str], algorithm: str) -> None:
    """Raise `RequestError` for the first training question that lacks what `algorithm` needs."""
    for need in sorted(needs):
        name = NEEDS[need]
        lacking = [question for question in data.splits["train"] if not getattr(question, name)]
        if lacking:
            place = data.places.get(lacking[0].id, f"question {lacking[0].id!r}")
            more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise RequestError(
                f"{place}: no {name}, which algorithm={algorithm} needs for every training question{more}"
            )


def import_data(config: DataConfig, cache: Path) -> Path:
    """The folder of the imported data: made now, or found in the cache."""
    module = formats.reader(config.format)
    key = hashlib.sha256(
        json.dumps([IMPORT_VERSION, config.format, module.signature(config), config.titles]).encode("utf-8")
    ).hexdigest()[:32]
    root = cache.expanduser() / "data"
    folder = root / key
    if (folder / "manifest.json").is_file():
        return folder
    raw = module.read(config)
    check_questions_apart(raw)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{key}.lock"):
        if not (folder / "manifest.json").is_file():
            with atomic_directory(folder) as making:
                _write_import(making, raw, config)
    return folder


def _write_import(folder: Path, raw: RawData, config: DataConfig) -> None:
    count = write_passages(folder, _passages_of(raw, config))
    if count == 0:
        raise RequestError(f"data.path={config.path}: there are no passages")
    store = PassageStore(folder)
    check_unique(store, raw)
    check_references(store, raw)
    for name, questions in raw.splits.items():
        atomic_write_jsonl(folder / f"{name}.jsonl", map(_stored, questions))
    manifest = {"splits": list(raw.splits), "notes": raw.notes, "groups": raw.groups, "format": config.format}
    atomic_write_json(folder / "manifest.json", manifest)


def _passages_of(raw: RawData, config: DataConfig) -> Iterator[Passage]:
    for located in raw.passages():
        yield located.value if config.titles else dataclasses.replace(located.value, title="")


# -- checks across lines ---------------------------------------------------------------------------


def check_unique(store: PassageStore, raw: RawData) -> None:
    """Raise `RequestError` where two passages have one id."""
    if store.ids_are_unique():
        return
    seen: dict[str, str] = {}
    for located in raw.passages():
        first = seen.setdefault(located.value.id, located.where)
        if first != located.where:
            raise RequestError(f"{located.where}: the passage id {located.value.id!r} is that of {first} already")


def check_questions_apart(raw: RawData) -> None:
    """Raise `RequestError` where two questions have one id, or a split that is there has no question."""
    seen: dict[str, str] = {}
    for name, questions in raw.splits.items():
        if not questions:
            raise RequestError(f"the {name} split has no questions: its file is empty")
        for located in questions:
            first = seen.setdefault(located.value.id, located.where)
            if first != located.where:
                raise RequestError(f"{located.where}: the question id {located.value.id!r} is that of {first} already")


def check_references(store: PassageStore, raw: RawData) -> None:
    """Raise `RequestError` where a question names a passage that is not in the corpus."""
    for questions in raw.splits.values():
        for located in questions:
            question = located.value
            for name in ("positive_ids", "negative_ids", "candidate_ids"):
                try:
                    store.rows(getattr(question, name))
                except KeyError as error:
                    raise RequestError(
                        f"{located.where}: {name} holds {error.args[0]!r}, which is the id of no passage"
                    ) from None
            both = set(question.positive_ids) & set(question.negative_ids)
            if both:
                raise RequestError(f"{located.where}: {sorted(both)[0]!r} is in positive_ids and in negative_ids")


# -- the cache's own questions ---------------------------------------------------------------------


def _stored(located: Located[Question]) -> dict[str, Any]:
    return {**dataclasses.asdict(located.value), "where": located.where}


def _stored_questions(path: Path, places: dict[str, str]) -> Iterator[Question]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            places[values["id"]] = values.pop("where")
            for name in ("answers", "positive_ids", "negative_ids", "candidate_ids"):
                values[name] = tuple(values[name])
            values["history"] = tuple(Turn(**turn) for turn in values["history"])
            yield Question(**values)


def _limited(questions: list[Question], limit: int | None, config: DataConfig) -> list[Question]:
    """A seeded choice of `limit` questions, in their order."""
    if limit is None or limit >= len(questions):
        return questions
    ranked = sorted(questions, key=lambda question: _rank(f"{config.split_seed}/{question.id}"))
    kept = {question.id for question in ranked[:limit]}
    return [question for question in questions if question.id in kept]


def _rank(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _content_hash(passages: PassageStore, splits: dict[str, Iterable[Question]]) -> str:
    digest = hashlib.sha256(passages.content_hash.encode())
    for name, questions in splits.items():
        digest.update(name.encode())
        for question in questions:
            digest.update(json.dumps(dataclasses.asdict(question), sort_keys=True, ensure_ascii=False).encode("utf-8"))
    return digest.hexdigest()[:32]
