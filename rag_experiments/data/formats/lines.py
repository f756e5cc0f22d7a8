"""Read text files with or without gzip, with or without a byte-order mark, with any line end.

Every problem of a line is reported to the intake with file and line number. Pickles are never loaded.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rag_experiments.core.errors import RequestError, nearest
from rag_experiments.data.records import Where

if TYPE_CHECKING:
    from rag_experiments.config.schema import DataConfig
    from rag_experiments.data.builder import Intake

PICKLE_SUFFIXES = (".pkl", ".pickle", ".p", ".joblib", ".dill", ".pt", ".pth")
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_GZIP_START = b"\x1f\x8b"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""The first bytes of a file in this format."""


_SPREAD = {
    "{": "; an object spread over several lines must stand on one",
    "[": "; a file that is one JSON list must be written as one object per line, without the brackets",
}


def data_path(path: str | None, data_format: str, *, folder: bool | None = None) -> Path:
    """`data.path` as an existing path. It must be a folder if `folder` is True, a file if False; None allows both.

    Raises:
        RequestError: it is not set, does not exist, or is a file instead of a folder or the reverse.
    """
    if not path:
        raise RequestError(f"data={data_format} needs data.path=…: where the data is")
    location = Path(path).expanduser()
    if not location.exists():
        raise no_such_path(path)
    if folder is True and not location.is_dir():
        refuse_pickle(location)
        raise RequestError(f"data.path={path} is a file, but data={data_format} needs the folder that contains it")
    if folder is False and not location.is_file():
        raise RequestError(f"data.path={path} is a folder, but data={data_format} needs a file")
    return location


def no_such_path(path: str) -> RequestError:
    """That there is nothing at `data.path`, with the nearest name beside it."""
    location = Path(path).expanduser()
    with contextlib.suppress(OSError):
        for name in nearest(location.name, os.listdir(location.parent), 1):
            return RequestError(
                f"data.path={path}: there is no such file or folder; did you mean {str(Path(path).with_name(name))!r}?"
            )
    return RequestError(f"data.path={path}: there is no such file or folder")


def refuse_path(config: DataConfig) -> None:
    """Raise `ValueError` if a format that reads no files is given a path."""
    if config.path:
        raise ValueError(
            f"path={config.path} is given, but data={config.format} reads no files: data=auto looks at what is there"
        )


def refuse_pickle(path: Path) -> None:
    """Raise `RequestError` for a pickled file: loading one runs whatever code its writer put in it."""
    with open(path, "rb") as file:
        start = file.read(2)
    if start == _GZIP_START:
        try:
            with gzip.open(path) as inner:
                start = inner.read(2)
        except (OSError, EOFError, zlib.error):
            return  # reported with a line number when it is read
    if start in _PICKLE_STARTS or path.suffix.lower() in PICKLE_SUFFIXES:
        raise RequestError(
            f"{path} is a pickle, and no pickle is loaded here, since loading one runs whatever code is in it; in the "
            "program that wrote it, write the documents as JSON Lines instead, one object per line: "
            '{"id": …, "title": …, "text": …}'
        )


def pickle_note(folder: Path) -> str:
    """A clause about a pickle in `folder`, to append to the error about a missing file; empty without a pickle."""
    pickle_file = next((path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICKLE_SUFFIXES), None)
    if pickle_file is None:
        return ""
    return (
        f"; {pickle_file.name} is a pickle, and none is loaded here: in the program that wrote it, write its documents "
        'as JSON Lines, one {"id": …, "title": …, "text": …} per line'
    )


def open_bytes(path: Path) -> BufferedIOBase:
    """Open `path` for reading; it is unpacked if its first bytes (not its name) are gzip's.

    Raises:
        RequestError: a pickle, or a file that cannot be opened.
    """
    try:
        refuse_pickle(path)
        with open(path, "rb") as file:
            packed = file.read(2) == _GZIP_START
        return gzip.open(path, "rb") if packed else open(path, "rb")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error


def text_lines(path: Path, intake: Intake, *, keep_blank: bool = False) -> Iterator[tuple[Where, str]]:
    """Every line, decoded, without its line end and without a byte-order mark; blank lines only with `keep_blank`."""
    number = 0
    try:
        with open_bytes(path) as file:
            encoding, lines = _raw_lines(file, intake.encoding)
            for number, raw in enumerate(lines, 1):
                where = Where(str(path), number)
                try:
                    line = raw.decode(encoding).rstrip("\r\n")
                except UnicodeDecodeError as error:
                    byte = f"byte {raw[error.start]:#04x} at column {error.start + 1}"
                    intake.problem(where, not_in(encoding, byte))
                    continue
                if keep_blank or line.strip():
                    yield where, line
    except UnicodeDecodeError:
        intake.problem(Where(str(path), number + 1), "the file begins like UTF-16, but is not valid UTF-16")
    except (OSError, EOFError, zlib.error) as error:
        intake.problem(Where(str(path), number + 1), f"the file is cut short or damaged ({error})")


def decoded(raw: bytes, encoding: str, errors: str = "strict") -> str:
    """The text of a file, whose own mark of UTF-16 or UTF-8 counts more than `encoding`."""
    if raw[:2] in UTF_16:
        return raw.decode("utf-16", errors)
    return raw.decode("utf-8-sig" if raw.startswith(codecs.BOM_UTF8) else encoding, errors)


def not_in(encoding: str, byte: str) -> str:
    """The sentence about a `byte` that is no letter in `encoding`."""
    if encoding != "utf-8":
        return f"not {encoding} ({byte}): data.encoding is wrong for this file"
    return (
        f"not UTF-8 ({byte}); data.encoding=cp1252 reads what Windows wrote in its own encoding in Western Europe "
        "(cp1250: Central Europe, cp1251: Cyrillic, gb18030: Chinese)"
    )


def _raw_lines(file: BufferedIOBase, encoding: str) -> tuple[str, Iterator[bytes]]:
    """The encoding that a file's mark tells, else `encoding`, and its lines without the mark.

    The lines of a UTF-16 file (from Excel or PowerShell) are given as UTF-8.
    """
    first = file.readline()
    if first[:2] in UTF_16:
        file.seek(0)
        return "utf-8", _utf_16_lines(file)
    marked = first.startswith(codecs.BOM_UTF8)
    first = first.removeprefix(codecs.BOM_UTF8)
    return "utf-8" if marked else encoding, chain([first] if first or marked else [], file)


def _utf_16_lines(file: BufferedIOBase) -> Iterator[bytes]:
    with io.TextIOWrapper(cast(Any, file), encoding="utf-16", newline="\n") as text:
        for line in text:
            yield line.encode("utf-8", "surrogatepass")


def json_lines(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Every line as a JSON object; a line that is not an object is reported as a problem."""
    for where, line in text_lines(path, intake):
        value = parse_json(line, where, intake)
        if isinstance(value, dict):
            yield where, value
        elif value is not None:
            hint = ""
            if isinstance(value, list) and where.line == 1:
                hint = "; a file that is one JSON list must be written as one object per line"
            intake.problem(where, f"this must be a JSON object, and is {_json_kind(value)}{hint}")


def parse_json(text: str, where: Where, intake: Intake) -> Any:
    """The JSON value of `text`, or None after telling the intake why there is none."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        hint = _SPREAD.get(text.strip(), "")
        intake.problem(where, f"not valid JSON: {error.msg} ({at}){hint}")
    except (ValueError, RecursionError) as error:  # numbers that are too long, nesting that is too deep
        intake.problem(where, f"not valid JSON: {str(error).splitlines()[0]}")
    else:
        if value is None:
            intake.problem(where, "this must be a JSON object, and is null")
        return value
    return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)
