"""Rows out of JSON Lines, JSON, CSV, TSV and Parquet files, gzipped or not, one at a time."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.data.lines import Where, json_lines, open_bytes, refuse_pickle, text_lines
from rag_experiments.errors import RequestError

if TYPE_CHECKING:
    from rag_experiments.data.intake import Intake

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
SPLIT_NAMES = {"train": ("train", "training"), "dev": ("dev", "validation", "valid", "eval"), "test": ("test",)}
"""What the splits' files are called by those who make data sets; ours is the key."""


def kind_of(path: Path) -> str:
    """The suffix that says how `path` is read, `.gz` aside."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def rows(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Every row of `path` as a mapping; what cannot be read is a problem of its line.

    Raises:
        RequestError: the file is a pickle, or of a kind that is not read here.
    """
    kind = kind_of(path)
    if kind in (".jsonl", ".ndjson"):
        yield from json_lines(path, intake)
    elif kind == ".json":
        yield from _json(path, intake)
    elif kind in (".csv", ".tsv"):
        yield from _delimited(path, intake, "," if kind == ".csv" else "\t")
    elif kind == ".parquet":
        yield from _parquet(path, intake)
    else:
        refuse_pickle(path)
        raise RequestError(f"{path} is of no kind that is read here: {', '.join(SUFFIXES)} (each also with .gz)")


def split_files(folder: Path, given: Mapping[str, str | None]) -> dict[str, Path]:
    """Which file is which split: as `given` says, else by name (`train.jsonl`, `nq-dev.json.gz`, …).

    Raises:
        RequestError: a file that `given` names is not there, or two files could be one split.
    """
    found: dict[str, Path] = {}
    for split, name in given.items():
        if name:
            path = Path(name) if Path(name).is_absolute() else folder / name
            if not path.is_file():
                raise RequestError(f"data.files.{split}={name}: there is no such file in {folder}")
            found[split] = path
    for split, names in SPLIT_NAMES.items():
        if split in given:
            continue
        fitting = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_split(path, names)]
        if len(fitting) > 1:
            raise RequestError(
                f"data.path={folder}: {fitting[0].name} and {fitting[1].name} could both be {split}; "
                f"say which with data.files.{split}=…"
            )
        if fitting:
            found[split] = fitting[0]
    return found


def _is_split(path: Path, names: tuple[str, ...]) -> bool:
    stem = path.name.lower().split(".")[0]
    words = stem.replace("_", "-").split("-")
    return kind_of(path) in SUFFIXES and any(name in words for name in names)


def _json(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """A file that is one JSON list of objects (read whole), or JSON lines under another name."""
    value = read_json(path, intake)
    if value is None:
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        where = Where(f"{path}[{number}]")
        if isinstance(row, dict):
            yield where, row
        else:
            intake.problem(where, f"a JSON object is wanted, and this is a {type(row).__name__}")


def read_json(path: Path, intake: Intake) -> Any:
    """The JSON value of a whole file, or None after telling the intake why there is none."""
    where = Where(str(path))
    try:
        with open_bytes(path) as file:
            text = file.read().decode("utf-8-sig")
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:
            return [row for _, row in json_lines(path, intake)]
        intake.problem(Where(str(path), error.lineno), f"not valid JSON: {error.msg} (column {error.colno})")
    except UnicodeDecodeError as error:
        intake.problem(where, f"not UTF-8 (byte {error.start})")
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        intake.problem(where, f"cannot be read: {str(error).splitlines()[0]}")
    else:
        if isinstance(value, dict | list):
            return value
        intake.problem(where, f"a JSON object or list is wanted, and this is a {type(value).__name__}")
    return None


def _delimited(path: Path, intake: Intake, delimiter: str) -> Iterator[tuple[Where, dict[str, Any]]]:
    # A field may be a whole document; the default limit is 128 KiB.
    csv.field_size_limit(1 << 30)
    last = [Where(str(path), 1)]

    def lines() -> Iterator[str]:
        for where, line in text_lines(path, intake, keep_blank=True):
            last[0] = where
            yield line + "\n"

    # In TSV files of passages a quote is a character like any other.
    reader = csv.reader(lines(), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            intake.problem(last[0], f"not readable as CSV: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = cells
            continue
        if len(cells) != len(header):
            intake.problem(last[0], f"{len(cells)} columns where the header has {len(header)}")
            continue
        yield last[0], {name: cell for name, cell in zip(header, cells, strict=True) if cell != ""}


def _parquet(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield Where(f"{path}[{number}]"), row
    except (pa.ArrowException, OSError) as error:
        intake.problem(Where(f"{path}[{number + 1}]"), f"not readable as Parquet: {str(error).splitlines()[0]}")
