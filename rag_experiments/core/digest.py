"""Every hash of the package. No other file imports `hashlib` or `xxhash`.

digest, without, Digest     keys of what is kept in the cache, and models' weights
content_digest, …           contents of a corpus and of files: fast, not against an adversary
settled_digest              what runs have recorded or drawn from: never another function
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import xxhash

BLOCK = 1 << 22
"""Bytes of a file in memory at a time."""


def digest(*parts: Any, size: int = 16) -> str:
    """A hexadecimal key of `2 * size` digits: equal for equal parts, another for any other.

    Parts are JSON values, dataclasses, paths and bytes, at any depth. Types are told apart (`1` and `"1"`), the order
    of keys is not, and the boundaries between parts count.

    Raises:
        TypeError: a part of another type, which might look the same for different content.
    """
    hasher = Digest(size)
    hasher.add(*parts)
    return hasher.hexdigest()


class Digest:
    """A `digest` of more than memory should hold at once."""

    def __init__(self, size: int = 16):
        self._hash = hashlib.blake2b(digest_size=size)

    def add(self, *parts: Any) -> None:
        """Go on with parts as `digest` takes them."""
        text = json.dumps([_plain(part) for part in parts], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        self._hash.update(text.encode("utf-8", "surrogatepass"))

    def add_bytes(self, buffer: Any) -> None:
        """Go on with bytes, or a contiguous array; `add` its name and shape first, which say where it ends."""
        self._hash.update(buffer)

    def hexdigest(self) -> str:
        """The key of all that was added."""
        return self._hash.hexdigest()


def without(config: Any, reasons: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a dataclass for a key: all but those in `reasons`, each of which says why it may be left out.

    So a new field is part of every key until somebody says why not.

    Raises:
        TypeError: `reasons` names a field that there is not.
    """
    names = [field.name for field in dataclasses.fields(config)]
    unknown = set(reasons) - set(names)
    if unknown:
        raise TypeError(f"{type(config).__name__} has no {', '.join(sorted(unknown))}")
    return {name: getattr(config, name) for name in names if name not in reasons}


# -- contents --------------------------------------------------------------------------------------------


class ContentDigest:
    """128 bits of a content that is read piece by piece."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh128()

    def add(self, piece: str | bytes) -> None:
        """Go on with text or bytes; boundaries between pieces do not count."""
        self._hash.update(piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece)

    def add_file(self, path: Path) -> None:
        """Go on with what is in a file. Raises `OSError`."""
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                self._hash.update(block)

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._hash.hexdigest()


def content_digest(text: str) -> str:
    """128 bits of a text as 32 hexadecimal digits."""
    return xxhash.xxh128_hexdigest(text.encode("utf-8", "surrogatepass"))


def content_bytes(text: str) -> bytes:
    """The 16 bytes of `content_digest`: half the memory."""
    return xxhash.xxh128_digest(text.encode("utf-8", "surrogatepass"))


def content_number(text: str) -> int:
    """64 bits of a text, for columns of numbers: two texts may share one by accident, if barely."""
    return xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass"))


def files_digest(paths: Iterable[Path]) -> str:
    """Of files' names and contents, in the order given; not of the folder they lie in. Raises `OSError`."""
    hasher = ContentDigest()
    for path in paths:
        hasher.add(f"\x1e{path.name}\x1f{path.stat().st_size}\x1f")
        hasher.add_file(path)
    return hasher.hexdigest()


# -- what runs hold --------------------------------------------------------------------------------------


def settled_digest(texts: str | Iterable[str]) -> str:
    """SHA-256 of a text, or of several after one another, as 64 hexadecimal digits.

    For what finished runs have written down (the hash of their configuration and data, names of folders) and for what
    is drawn by it (splits, generated sets): another function would part old runs from new ones.
    """
    hasher = hashlib.sha256()
    for text in [texts] if isinstance(texts, str) else texts:
        hasher.update(text.encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(inner) for inner in value), key=repr)
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"no key can be made from a {type(value).__name__}")
