"""Read rows of JSON Lines, JSON, CSV, TSV, Parquet, Arrow and Excel files one by one; find the splits' files."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.json_objects import rows_inside
from rag_experiments.data.formats.lines import (
    UTF_16,
    decoded,
    json_lines,
    not_in,
    open_bytes,
    pickle_note,
    refuse_pickle,
    text_lines,
)
from rag_experiments.data.formats.sheets import arrow_rows, excel_rows, parquet_rows
from rag_experiments.data.records import Where

if TYPE_CHECKING:
    from rag_experiments.data.builder import Intake

BINARY = {".parquet": parquet_rows, ".arrow": arrow_rows, ".feather": arrow_rows, ".xlsx": excel_rows}
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", *BINARY)
SPLIT_NAMES = {"train": ("train", "training"), "dev": ("dev", "validation", "valid", "eval"), "test": ("test",)}
"""Usual names of the splits' files, by our name of the split."""
SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")
"""The name of one of several files of a split, as on the Hugging Face hub."""
ID_NAMES = frozenset(("id", "pid", "qid", "docid", "doc-id", "query-id", "corpus-id", "passage-id", "question-id"))
"""Usual names of the first column in a header."""
SEPARATORS = (",", ";", "\t", "|")
LONGEST_CELL = 1000
"""A quoted cell of a tab-separated file has at most this many lines."""
_NAMED_SEPARATOR = re.compile(r"\s*\"?sep=([,;|\t])\"?[,;|\t]*\s*", re.IGNORECASE)
"""Excel's own first line, which names the separator."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def kind_of(path: Path) -> str:
    """The suffix that decides how `path` is read, without `.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def rows(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Every row of `path` as a mapping; a row that cannot be read is reported with its line.

    Raises:
        RequestError: the file is a pickle, or its suffix is not supported.
    """
    kind = kind_of(path)
    if kind == ".json" or (kind in (".jsonl", ".ndjson") and _is_list(path)):
        yield from json_rows(read_json(path, intake), path, intake)
    elif kind in (".jsonl", ".ndjson"):
        yield from json_lines(path, intake)
    elif kind in (".csv", ".tsv"):
        yield from _delimited(path, intake, "," if kind == ".csv" else "\t")
    elif kind in BINARY:
        refuse_pickle(path)
        yield from BINARY[kind](path, intake)
    else:
        refuse_pickle(path)
        raise RequestError(
            f"{path} has another suffix than those that are read: {', '.join(SUFFIXES)} (those of text also with .gz)"
        )


def named_rows(path: Path, intake: Intake, names: Sequence[str]) -> Iterator[tuple[Where, dict[str, Any]]]:
    """As `rows`; the columns of a TSV without a header (as MS MARCO's) are `names`, in their order.

    The first line is a header if its first cell is a usual name of an id column.
    """
    if kind_of(path) not in (".tsv", ".txt"):
        yield from rows(path, intake)
        return
    header: list[str] | None = None
    for number, (where, cells) in enumerate(_tab_rows(text_lines(path, intake))):
        if number == 0 and cells[0].strip().lower().lstrip("#_").replace("_", "-") in ID_NAMES:
            header = [cell.strip() for cell in cells]
            continue
        if header is None and not 2 <= len(cells) <= len(names):
            column_list = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            intake.problem(
                where, f"{len(cells)} columns, and without a header they are {column_list} (tabs between them)"
            )
        elif header is not None and len(cells) != len(header):
            intake.problem(where, f"{len(cells)} columns where the header has {len(header)}")
        else:
            columns = header or names[: len(cells)]
            yield where, {name: cell or None for name, cell in zip(columns, cells, strict=True)}


def all_rows(paths: Sequence[Path], intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """The rows of every file, one file after the other."""
    for path in paths:
        yield from rows(path, intake)


def find_files(path: Path, file_names: Mapping[str, str | None]) -> dict[str, tuple[Path, ...]]:
    """Files by split: `path` is train if it is a file; in a folder `file_names` and the names found there decide.

    Raises:
        RequestError: as in `split_files`; also if there is no file, or if the train split is given twice.
    """
    if not path.is_file():
        files = split_files(path, file_names)
        if not files:
            raise RequestError(
                f"data.path={path}: no file there is called train, dev or test ({', '.join(SUFFIXES)}); "
                f"choose one with data.files.train=…{pickle_note(path)}"
            )
        return files
    if file_names.get("train"):
        raise RequestError(f"data.path={path} is a file, the train split, and data.files.train names another")
    return {"train": (path,), **_named_files(path.parent, file_names)}


def split_files(folder: Path, file_names: Mapping[str, str | None]) -> dict[str, tuple[Path, ...]]:
    """Files by split: as in `file_names`, else by name (`train.jsonl`, `nq-dev.json.gz`, …).

    Several files make one split if they are its shards (`train-00000-of-00002.parquet`), or if `file_names` has a
    pattern (`part-*.jsonl`).

    Raises:
        RequestError: a file that `file_names` names is not there, or two files could be one split.
    """
    files = _named_files(folder, file_names)
    for split, names in SPLIT_NAMES.items():
        if split in file_names:
            continue
        fitting = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_split(path, names)]
        if len({SHARD.sub("", path.name) for path in fitting}) > 1:
            raise RequestError(
                f"data.path={folder}: {fitting[0].name} and {fitting[-1].name} could both be {split}; "
                f"choose one with data.files.{split}=… (null: there is none)"
            )
        if fitting:
            files[split] = tuple(fitting)
    return files


def _named_files(folder: Path, file_names: Mapping[str, str | None]) -> dict[str, tuple[Path, ...]]:
    files: dict[str, tuple[Path, ...]] = {}
    for split, name in file_names.items():
        if split not in SPLIT_NAMES:
            raise RequestError(f"data.files.{split} is not a split: give train, dev or test")
        if not name:
            continue
        path = folder / Path(name).expanduser()
        paths = sorted(path.parent.glob(path.name)) if "*" in path.name or "?" in path.name else [path]
        if not paths or not all(file.is_file() for file in paths):
            raise RequestError(f"data.files.{split}={name}: there is no such file in {folder}")
        files[split] = tuple(paths)
    return files


def _is_split(path: Path, names: tuple[str, ...]) -> bool:
    stem = path.name.lower().split(".")[0]
    words = stem.replace("_", "-").split("-")
    return kind_of(path) in SUFFIXES and any(name in words for name in names)


def _is_list(path: Path) -> bool:
    """Whether a file with the suffix .jsonl holds one JSON list."""
    try:
        with open_bytes(path) as file:
            start = file.read(256)
        if start[:2] in UTF_16:
            return start.decode("utf-16", "ignore").lstrip().startswith("[")
        return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except (OSError, EOFError, zlib.error):
        return False  # reported with a line number when it is read


def json_rows(value: Any, path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """The rows of a value that `read_json` returned: a list of objects, an object with rows inside, one object, or
    `Lines`."""
    if isinstance(value, Lines):
        yield from value
        return
    if value is None:
        return
    inside = rows_inside(value) if isinstance(value, dict) else None
    for number, row in enumerate(inside if inside is not None else value if isinstance(value, list) else [value], 1):
        where = Where(str(path), inside=f"[{number}]")
        if isinstance(row, dict):
            yield where, row
        else:
            intake.problem(where, f"this must be a JSON object, and is a {type(row).__name__}")


class Lines(list[tuple[Where, dict[str, Any]]]):
    """Rows of a file with the suffix .json that holds JSON lines."""


def read_json(path: Path, intake: Intake) -> Any:
    """The JSON value of a whole file, or `Lines`; None after the reason was reported to the intake."""
    where = Where(str(path))
    try:
        with open_bytes(path) as file:
            raw = file.read()
        text = decoded(raw, intake.encoding)
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:
            return Lines(json_lines(path, intake))
        intake.problem(Where(str(path), error.lineno), f"not valid JSON: {error.msg} (column {error.colno})")
    except UnicodeDecodeError as error:
        intake.problem(where, not_in(intake.encoding, f"byte {error.start}"))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        intake.problem(where, f"cannot be read: {str(error).splitlines()[0]}")
    else:
        if isinstance(value, dict | list):
            return value
        intake.problem(where, f"this must be a JSON object or list, and is a {type(value).__name__}")
    return None


def _delimited(path: Path, intake: Intake, usual: str) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Rows of a CSV or TSV file. The header decides the separator; `usual` is used if the header does not tell."""
    # A field may be a whole document; the default limit is 128 KiB.
    csv.field_size_limit(1 << 30)
    lines = text_lines(path, intake, keep_blank=True)
    first = next(((where, line) for where, line in lines if line.strip()), None)
    if first is None:
        return
    named = _NAMED_SEPARATOR.fullmatch(first[1])
    delimiter = named.group(1) if named else separator_of(first[1], usual)
    rest = lines if named else chain([first], lines)
    # In tab-separated files a quote is usually an ordinary character.
    rows = _tab_rows(rest) if delimiter == "\t" else _quoted_rows(rest, path, intake, delimiter)
    header: list[str] | None = None
    for where, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = cells
            twice = next((name for name in header if name.strip() and header.count(name) > 1), None)
            if twice is not None:
                intake.problem(where, f"two columns are called {twice!r}")
            continue
        if len(cells) != len(header):
            intake.problem(where, f"{len(cells)} columns where the header has {len(header)}")
            continue
        yield where, {name: cell or None for name, cell in zip(header, cells, strict=True)}


def separator_of(header: str, usual: str) -> str:
    """The separator in `header`: the one that occurs most often outside quotes (Excel writes `;` if the comma is the
    decimal sign). `usual` wins a tie."""
    bare = _QUOTED.sub("", header)
    return max((usual, *SEPARATORS), key=bare.count)


def _quoted_rows(
    lines: Iterable[tuple[Where, str]], path: Path, intake: Intake, delimiter: str
) -> Iterator[tuple[Where, list[str]]]:
    """Rows of a CSV file; a quoted cell may have several lines."""
    row_lines: list[Where] = []
    """The lines of the row being read."""

    def fed() -> Iterator[str]:
        for where, line in lines:
            row_lines.append(where)
            yield line + "\n"

    # With `strict`, a quote that is never closed is an error; without it the rest of the file would become one cell.
    reader = csv.reader(fed(), delimiter=delimiter, strict=True)
    while True:
        row_lines.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = "a quote is opened here and not closed" if "end of data" in str(error) else str(error)
            intake.problem(row_lines[0] if row_lines else Where(str(path)), f"not readable as CSV: {why}")
            continue
        yield row_lines[0], cells


def _tab_rows(lines: Iterable[tuple[Where, str]]) -> Iterator[tuple[Where, list[str]]]:
    """Rows of cells between tabs. A quote is an ordinary character unless the whole cell is quoted. A quoted cell may
    have several lines; they are joined if the row then has as many columns as the header."""
    waiting: deque[tuple[Where, str]] = deque()
    source = iter(lines)
    columns = 0
    while True:
        following = waiting.popleft() if waiting else next(source, None)
        if following is None:
            return
        where, line = following
        cells = line.split("\t")
        columns = columns or len(cells)
        more: list[str] = []
        while len(cells) <= columns and _is_open(cells[-1]) and len(more) < LONGEST_CELL:
            if len(more) == len(waiting) and (next_line := next(source, None)) is not None:
                waiting.append(next_line)
            if len(more) == len(waiting):
                break
            more.append(waiting[len(more)][1])
            if '"' in more[-1] and (joined := _joined(line, more, columns)) is not None:
                cells = joined
                for _ in more:
                    waiting.popleft()
                break
            if more[-1].count("\t") >= columns - 1 > 0:  # a row of its own
                break
        yield where, [_unquoted(cell) for cell in cells]


def _is_open(cell: str) -> bool:
    """Whether `cell` begins with a quote that it does not close."""
    return cell.startswith('"') and cell.count('"') % 2 == 1


def _joined(line: str, more: list[str], columns: int) -> list[str] | None:
    """The cells of a row of several lines; None if their number is not `columns`, or if a cell is still open."""
    whole = "\n".join([line, *more])
    cells = whole.split("\t")
    return None if len(cells) != columns or any(map(_is_open, cells)) else cells


def _unquoted(cell: str) -> str:
    """A TSV cell without its quotes, if the whole cell is quoted and inner quotes are doubled (DPR's psgs_w100.tsv)."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and _QUOTED.fullmatch(cell) else cell
