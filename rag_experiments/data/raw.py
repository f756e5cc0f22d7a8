"""What a format hands over, and errors that say where."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import xxhash

from rag_experiments.data.schema import Passage, Question
from rag_experiments.errors import RequestError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Located(Generic[T]):
    """Something read, and where it stands: `train.jsonl, line 7`."""

    value: T
    where: str


@dataclass
class RawData:
    """A data set as its format reads it: everything may be read once, in order, as a stream."""

    passages: Callable[[], Iterable[Located[Passage]]]
    splits: dict[str, list[Located[Question]]]
    notes: list[str] = field(default_factory=list)
    groups: dict[str, str] | None = None
    """Question id to the unit that must not be split (an article); None: gold passages decide."""


def read_jsonl(path: Path) -> Iterator[Located[dict[str, Any]]]:
    """The objects of a JSON-lines file, gzipped or not; empty lines are passed over.

    Raises:
        RequestError: a line that is no JSON object, with file and line; bytes that are no UTF-8.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if not text:
                    continue
                value = json.loads(text)
            except UnicodeDecodeError as error:
                raise RequestError(f"{where}: not UTF-8 (byte {error.start})") from None
            except json.JSONDecodeError as error:
                raise RequestError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
            if not isinstance(value, dict):
                raise RequestError(f"{where}: a {type(value).__name__} where a JSON object is wanted")
            yield Located(value, where)


def hash_files(paths: Iterable[Path]) -> str:
    """A hash of names and contents."""
    digest = xxhash.xxh128()
    for path in paths:
        digest.update(f"\x1e{path.name}\x1f".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def text_field(located: Located[dict[str, Any]], name: str, required: bool = True) -> str:
    """A string field. Raises `RequestError` where it is missing, empty or of another type."""
    value = located.value.get(name)
    if value is None and not required:
        return ""
    if value is None:
        raise RequestError(f"{located.where}: has no {name!r}")
    if not isinstance(value, str):
        raise RequestError(f"{located.where}: {name!r} is a {type(value).__name__}, a string is wanted")
    if required and not value.strip():
        raise RequestError(f"{located.where}: {name!r} is empty")
    return value


def text_list(located: Located[dict[str, Any]], name: str) -> tuple[str, ...]:
    """A list of strings; missing or null is empty. Raises `RequestError` for anything else."""
    value = located.value.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise RequestError(f"{located.where}: {name!r} must be a list of strings, such as {_example(name)}")
    return tuple(value)


def _example(name: str) -> str:
    return '["p17"]' if name.endswith("ids") else '["an answer"]'
