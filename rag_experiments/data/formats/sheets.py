"""Read rows of binary tables: Parquet, Arrow (what `datasets` and Feather write) and Excel's .xlsx."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.core.errors import RequestError, first_line
from rag_experiments.data.column_names import role_of
from rag_experiments.data.records import Where

if TYPE_CHECKING:
    from rag_experiments.data.builder import Intake

INSTALL = "pip install 'rag_experiments[excel]'"
_FILE_START = b"ARROW1"
_MOST_ROWS_BEFORE = 30
"""A table may have so many rows of remarks above its header."""


def parquet_rows(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """The rows of a Parquet file."""
    import pyarrow.parquet as parquet

    def batches() -> Iterator[Any]:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=1000)

    yield from _batch_rows(path, batches(), "Parquet", intake)


def arrow_rows(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """The rows of an Arrow file, in either of Arrow's two layouts."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        with open(path, "rb") as source:
            is_file = source.read(len(_FILE_START)) == _FILE_START
        with pa.memory_map(str(path)) as source:
            if is_file:
                file = pa.ipc.open_file(source)
                yield from (file.get_batch(number) for number in range(file.num_record_batches))
            else:
                yield from pa.ipc.open_stream(source)

    yield from _batch_rows(path, batches(), "Arrow", intake)


def _batch_rows(
    path: Path, batches: Iterator[Any], kind: str, intake: Intake
) -> Iterator[tuple[Where, dict[str, Any]]]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield Where(str(path), inside=f"[{number}]"), row
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        OverflowError,
    ) as error:  # OverflowError: dates outside Python's range
        where = Where(str(path), inside=f"[{number + 1}]")
        intake.problem(where, f"not readable as {kind}: {str(error).splitlines()[0]}")


def excel_rows(path: Path, intake: Intake) -> Iterator[tuple[Where, dict[str, Any]]]:
    """The rows of one sheet: the first one with a header that names a column of ours, else the first one with rows.

    The header is the first row that names such a column, else the first one that is not empty. Values, not formulas.

    Raises:
        RequestError: openpyxl is not installed.
    """
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise RequestError(f"{path} is an Excel file, and reading one needs openpyxl: {INSTALL}") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # zipfile, XML and openpyxl raise many kinds
        intake.problem(Where(str(path)), f"not readable as Excel: {first_line(error)}")
        return
    try:
        places = {sheet.title: _header(sheet, set(intake.column_report.mapping.values())) for sheet in book.worksheets}
        title = max(places, key=lambda title: (places[title][1], places[title][0] > 0), default=None)
        for sheet in book.worksheets:
            start, _ = places[sheet.title]
            if sheet.title != title:
                if start:
                    intake.remark(f"the sheet {sheet.title!r} is not read, but {title!r} is", Where(str(path)))
                continue
            header: list[str] | None = None
            for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
                texts = [_cell_text(cell) for cell in cells]
                if number < start or not any(texts):
                    continue
                if header is None:
                    header = [text or "" for text in texts]
                    continue
                row = {name: text for name, text in zip(header, texts, strict=False) if name}
                yield Where(str(path), number), row
    finally:
        book.close()


def _header(sheet: Any, columns: set[str]) -> tuple[int, bool]:
    """The number of a sheet's header row (0: it has no rows), and whether it names a question or one of `columns`."""
    first = 0
    for number, cells in enumerate(islice(sheet.iter_rows(values_only=True), _MOST_ROWS_BEFORE), 1):
        texts = [text for text in map(_cell_text, cells) if text]
        first = first or (number if texts else 0)
        if len(texts) > 1 and any(text in columns or role_of(text) == "question" for text in texts):
            return number, True
    return first, False


def _cell_text(value: Any) -> str | None:
    """A cell as it would stand in a CSV; None for an empty one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
