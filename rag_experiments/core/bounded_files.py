"""Reading files that anybody may have written: JSON, JSON lines and YAML, bounded in bytes, depth and time.

A file is a regular one or is not opened, has a size that such a file can have, and its values are plain: text that
is Unicode, numbers that arithmetic can take, lists and mappings that are not nested without end. Whatever else it
holds is a `ValueError` whose message is the reason.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

SETTINGS_BYTES = 1 << 20
"""A YAML file: parsing takes about a second a mebibyte, and a real configuration has 10 KiB."""
RECORD_BYTES = 8 << 20
"""A JSON file of a run (status, figures)."""
LINES_BYTES = 1 << 30
LINE_BYTES = 8 << 20
BROKEN_LINES = 1_000
"""Blank or broken lines after which a file of lines is not read on."""
DEPTH = 64
NODES = 100_000
"""Values of a YAML file with its aliases written out."""
LARGEST_INTEGER = 1 << 64
LARGEST_NUMBER = 1e100
"""Its square and sums of squares are still numbers; what is larger counts as infinite."""

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a directory"),
)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def open_regular(path: Path | str, limit: int = LINES_BYTES) -> BinaryIO:
    """The file, opened for reading bytes.

    Raises:
        FileNotFoundError: nothing has this name.
        OSError: it cannot be opened.
        ValueError: it is no regular file (a named pipe would be waited for), or larger than `limit` bytes.
    """
    try:
        _check(os.stat(path), limit)  # before opening: to open some devices is to use them
    except FileNotFoundError:
        if os.path.islink(path):
            raise ValueError("it is a link to nothing") from None
        raise
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _check(os.fstat(descriptor), limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check(stat_result: os.stat_result, limit: int) -> None:
    for is_kind, name in _KINDS:
        if is_kind(stat_result.st_mode):
            raise ValueError(f"it is {name}, not a file")
    if stat_result.st_size > limit:
        raise ValueError(f"it has {stat_result.st_size:,} bytes; at most {limit:,} are read")


def read_text(path: Path | str, limit: int = RECORD_BYTES) -> str:
    """The whole file as text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, or not UTF-8.
    """
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:  # it grows, or its size is not told (/proc)
        raise ValueError(f"it has more than {limit:,} bytes")
    return _decoded(content)


def read_json(path: Path | str) -> Any:
    """The value of a JSON file; NaN and infinities as they are (see `parse_json`)."""
    return parse_json(read_text(path))


def read_yaml(path: Path | str) -> Any:
    """The value of a YAML file (see `parse_yaml`)."""
    return parse_yaml(read_text(path, SETTINGS_BYTES))


def read_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of a file of lines, blank ones left out.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file or too large, a line is too long, or thousands are blank.
    """
    with open_regular(path) as file:
        yield from lines_of(file)


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The same of an open file, from where it stands."""
    number = blank = 0
    while line := file.readline(LINE_BYTES + 1):
        number += 1
        if len(line) > LINE_BYTES:
            raise ValueError(f"line {number} has more than {LINE_BYTES:,} bytes")
        if line.strip():
            yield number, line
            continue
        blank += 1
        if blank > BROKEN_LINES:
            raise ValueError(f"more than {BROKEN_LINES:,} lines are blank")


def parse_json(text: str | bytes) -> Any:
    """A JSON value. Numbers too large to reckon with, written as they may be, are infinite ones.

    Raises:
        ValueError: it is no JSON or not UTF-8, an integer has more than 64 bits, it is nested too deep, or holds half
            a character.
    """
    if isinstance(text, bytes):
        text = _decoded(text)
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_real)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEPTH} levels") from None
    if text.count("[") + text.count("{") > DEPTH and isinstance(value, dict | list) and _deeper(value, DEPTH):
        raise ValueError(f"it is nested deeper than {DEPTH} levels")
    if "\\ud" in text or "\\uD" in text:
        _decodable(json.dumps(value, ensure_ascii=False))
    return value


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start})") from None


def _decodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("it holds text that is no Unicode (half of a character)") from None


def _integer(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) >= LARGEST_INTEGER:
        raise ValueError(f"it holds an integer of {len(text.lstrip('-'))} digits")
    return value


def _real(text: str) -> float:
    value = float(text)
    return value if abs(value) <= LARGEST_NUMBER else math.copysign(math.inf, value)


def _deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels + 1):
        held = (outer.values() if isinstance(outer, dict) else outer for outer in layer)
        layer = [inner for inner_values in held for inner in inner_values if isinstance(inner, dict | list)]
        if not layer:
            return False
    return True


def parse_yaml(text: str) -> Any:
    """A YAML value made of text, numbers, lists and mappings with text as keys; `.inf` and `.nan` become text.

    Raises:
        ValueError: it is no YAML, is nested too deep or without end, grows by its aliases, or holds what is no plain
            value (a date, a set, bytes, an integer of more than 64 bits).
    """
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _Plain().value(node)
    except yaml.YAMLError as error:
        raise ValueError(next(iter(str(error).splitlines()), "it is no YAML")) from None
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEPTH} levels") from None


def _check_events(text: str) -> None:
    """Depth, before anything recursive sees it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH:
            raise ValueError(f"it is nested deeper than {DEPTH} levels")
        if count > 2 * NODES:
            raise ValueError(f"it holds more than {NODES:,} values")


class _Plain:
    """Nodes → values. Every alias is written out and counted, so that a bomb ends early; merges are not made."""

    def __init__(self) -> None:
        self.left = NODES
        self.loader = _Loader("")

    def value(self, node: Any, depth: int = 0) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"it holds more than {NODES:,} values with its aliases written out")
        if depth > DEPTH:
            raise ValueError("it contains itself, or is nested too deep")
        kind = node.tag.rpartition(":")[2]
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return {self.key(key): self.value(item, depth + 1) for key, item in node.value}
        if isinstance(node, yaml.ScalarNode) and kind in ("null", "bool", "int", "float", "str"):
            return self.scalar(node, kind)
        kind_name = {"timestamp": "a date", "set": "a set", "binary": "bytes", "merge": "a merge"}.get(
            kind, f"a {kind!r}"
        )
        raise ValueError(f"line {node.start_mark.line + 1} holds {kind_name}, which is no plain value")

    def key(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag.endswith(":merge"):
            raise ValueError(f"line {node.start_mark.line + 1} has a key that is no text")
        return str(node.value)

    def scalar(self, node: Any, kind: str) -> Any:
        if kind == "int" and len(node.value) > 80:
            raise ValueError(f"line {node.start_mark.line + 1} holds an integer of {len(node.value)} digits")
        try:
            value = self.loader.construct_object(node)
        except (KeyError, IndexError):  # a tag that its text does not fit: !!bool maybe
            raise ValueError(f"line {node.start_mark.line + 1} holds {node.value!r}, which is no {kind}") from None
        if isinstance(value, str):
            _decodable(value)
        if kind == "int" and abs(value) >= LARGEST_INTEGER:
            raise ValueError(f"line {node.start_mark.line + 1} holds an integer of more than 64 bits")
        if kind == "float" and not abs(value) <= LARGEST_NUMBER:
            return str(node.value)
        return value
