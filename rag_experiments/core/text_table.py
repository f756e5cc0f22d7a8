"""Tables as text: what every output format is made from, so that all of them show the same figures.

rich lays tables out, as wide as they need to be or, on a terminal, as wide as that is; tabulate writes Markdown and
LaTeX, and the standard library CSV. To each of them data is text: nothing in it is read as markup or moves a cursor.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import LATEX_ESCAPE_RULES, tabulate

from rag_experiments.core.visible import say, visible

UNLIMITED = 1_000_000
"""Columns of a page that nothing has to fit on."""
LEAST = 24
"""Columns below which no text is folded, on a terminal that is too narrow for a table."""
HEAD = 10
"""The same for the head of numbers."""
COLOURS = {
    "better": "green",
    "worse": "red",
    "undecided": "yellow",
    "failed": "red",
    "unreadable": "red",
    "interrupted": "yellow",
    "running": "yellow",
}
"""On a terminal, of a cell that ends with the word and stands in one of the columns `COLOURED`."""
COLOURED = ("verdict", "state")


@dataclass
class Grid:
    """Headed columns of text; `numeric` columns stand on the right. `notes` come below."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    notes: list[str] = field(default_factory=list)


# -- plain text and terminals ---------------------------------------------------------------------------


def to_text(grids: Sequence[Grid]) -> str:
    """For a pipe, a file, a log: aligned columns, a rule below the head; no line is wrapped, and there is no colour."""
    page = io.StringIO()
    console = Console(file=page, width=UNLIMITED, color_system=None, force_terminal=False, force_jupyter=False)
    _print(console, grids)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def show(grids: Sequence[Grid], file: TextIO | None = None) -> None:
    """Print on standard output (or `file`): a terminal gets colour and its own width, all else gets `to_text`."""
    file = file or sys.stdout
    if file.isatty():
        _print(Console(file=file, force_jupyter=False), grids)
    else:
        say(to_text(grids), file=file)


def _print(console: Console, grids: Sequence[Grid]) -> None:
    for number, grid in enumerate(grids):
        if number:
            console.print()
        if grid.title:
            console.print(Text(one_line(grid.title), "bold"))
        for columns in _pages(grid, console.width):
            console.print(_table(grid, columns, console.width), crop=False)
        for note in grid.notes:
            console.print(Text(one_line(note)))


def _pages(grid: Grid, width: int) -> Iterator[list[int]]:
    """The columns of each table that `grid` is shown as: several, each with the first column, where one is too wide."""
    page: list[int] = []
    for column in range(len(grid.headers)):
        if len(page) > 1 and sum(_least(grid, i) + 2 for i in [*page, column]) - 2 > width:
            yield page
            page = [0]
        page.append(column)
    yield page


def _least(grid: Grid, column: int) -> int:
    """The width below which a column is not folded: that of its numbers, or `LEAST` of text."""
    head, widest = _widths(grid, column)
    return max(widest, min(head, HEAD)) if grid.numeric[column] else min(max(head, widest), LEAST)


def _widths(grid: Grid, column: int) -> tuple[int, int]:
    """Of the head, and of the widest cell below it."""
    head, *below = (cell_len(one_line(row[column])) for row in [grid.headers, *grid.rows])
    return head, max(below, default=0)


def _table(grid: Grid, columns: Sequence[int], width: int) -> Table:
    fits = sum(max(_widths(grid, i)) + 2 for i in columns) - 2 <= width
    least = sum(_least(grid, i) + 2 for i in columns) - 2
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.width = least if least > width else None  # rather past the edge than a column less
    for i in columns:
        table.add_column(
            Text(one_line(grid.headers[i])),
            justify="right" if grid.numeric[i] else "left",
            overflow="fold",
            width=_least(grid, i) if grid.numeric[i] and not fits else None,
        )
    for row in grid.rows:
        table.add_row(*(_cell(grid.headers[i], row[i]) for i in columns))
    return table


def _cell(header: str, cell: str) -> Text:
    return Text(one_line(cell), COLOURS.get(cell.rpartition(" ")[2], "") if header in COLOURED else "")


def one_line(text: str) -> str:
    """Without line breaks, control characters written out: a name must not move the cursor of somebody's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else visible(c) for c in text)


# -- files ----------------------------------------------------------------------------------------------


def to_markdown(grids: Sequence[Grid]) -> str:
    """GitHub's tables; a bar in a cell is escaped, and so is what would be read as HTML."""
    parts = []
    for grid in grids:
        title = [f"**{_markdown(grid.title)}**", ""] if grid.title else []
        notes = ["", *(f"{_markdown(note)}  " for note in grid.notes)] if grid.notes else []
        parts.append("\n".join([*title, _written(grid, "pipe", _markdown), *notes]))
    return "\n\n".join(parts)


def _written(grid: Grid, form: str, cell: Callable[[str], str]) -> str:
    """By tabulate, which reads no cell as a number and takes the alignment of columns from the first row."""
    rows = grid.rows or [[""] * len(grid.headers)]
    align = ["right" if numeric else "left" for numeric in grid.numeric]
    text = [[cell(value) for value in row] for row in [grid.headers, *rows]]
    return tabulate(text[1:], text[0], form, disable_numparse=True, colalign=align)


def _markdown(text: str) -> str:
    """tabulate escapes nothing in Markdown."""
    text = one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return text.replace("*", "\\*").replace("_", "\\_").replace("`", "\\`")


_SYMBOLS = str.maketrans({"±": r"$\pm$", "–": "--", "−": "$-$", "×": r"$\times$", "≥": r"$\ge$", "→": r"$\to$"})
"""What the tables say that not every LaTeX reads; tabulate escapes what LaTeX reads as its own."""


def to_latex(grids: Sequence[Grid]) -> str:
    """`booktabs` tables."""
    parts = []
    for grid in grids:
        caption = one_line(" ".join([grid.title, *grid.notes]).strip()).translate(str.maketrans(LATEX_ESCAPE_RULES))
        # A line that begins with a bracket would be an argument of the line break before it.
        table = re.sub(r"^ \[", " {[}", _written(grid, "latex_booktabs", one_line), flags=re.MULTILINE)
        parts.append(f"\\begin{{table}}\n\\caption{{{caption}}}\n{table}\n\\end{{table}}".translate(_SYMBOLS))
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(parts)


def to_csv(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """RFC 4180; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return buffer.getvalue().rstrip("\n")
