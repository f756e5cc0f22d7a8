"""One way to make a key from content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import PurePath
from typing import Any


def digest(*parts: Any, size: int = 16) -> str:
    """A hexadecimal key of `2 * size` digits: equal for equal parts, another for any other.

    Parts are JSON values, dataclasses, paths and bytes, at any depth. Types are told apart (`1` and `"1"`), the order
    of keys is not, and the boundaries between parts count.

    Raises:
        TypeError: a part of another type, which might look the same for different content.
    """
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


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
