"""Tables as text: what every output format is made from, so that all of them show the same figures."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from rag_experiments.core.visible import visible


@dataclass
class Grid:
    """Headed columns of text; `numeric` columns stand on the right. `notes` come below."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    notes: list[str] = field(default_factory=list)


def to_text(grids: Sequence[Grid]) -> str:
    """For a terminal: aligned columns, a rule below the head."""
    return "\n\n".join(_text(grid) for grid in grids)


def _text(grid: Grid) -> str:
    widths = [max(map(width, column)) for column in zip(grid.headers, *grid.rows, strict=True)]
    lines = [one_line(grid.title)] if grid.title else []
    lines.append(_line(grid.headers, widths, grid.numeric))
    lines.append("  ".join("─" * size for size in widths))
    lines += [_line(row, widths, grid.numeric) for row in grid.rows]
    return "\n".join([*lines, *map(one_line, grid.notes)])


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = [
        " " * (size - width(cell)) + cell if right else cell + " " * (size - width(cell))
        for cell, size, right in zip(map(one_line, cells), widths, numeric, strict=True)
    ]
    return "  ".join(padded).rstrip()


def width(text: str) -> int:
    """Columns that a terminal gives the text: two for wide letters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in one_line(text)
    )


def one_line(text: str) -> str:
    """Without line breaks, control characters written out: a name must not move the cursor of somebody's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else visible(c) for c in text)


def to_markdown(grids: Sequence[Grid]) -> str:
    """GitHub's tables; a bar in a cell is escaped, and so is what would be read as HTML."""
    parts = []
    for grid in grids:
        rule = ["---:" if right else "---" for right in grid.numeric]
        table = [grid.headers, rule, *grid.rows]
        lines = ["| " + " | ".join(row if row is rule else map(_markdown, row)) + " |" for row in table]
        title = [f"**{_markdown(grid.title)}**", ""] if grid.title else []
        notes = ["", *(f"{_markdown(note)}  " for note in grid.notes)] if grid.notes else []
        parts.append("\n".join([*title, *lines, *notes]))
    return "\n\n".join(parts)


def _markdown(text: str) -> str:
    text = one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return text.replace("*", "\\*").replace("_", "\\_").replace("`", "\\`")


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "≥": r"$\ge$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_escape(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def to_latex(grids: Sequence[Grid]) -> str:
    """`booktabs` tables."""
    parts = []
    for grid in grids:
        align = "".join("r" if right else "l" for right in grid.numeric)
        body = [" & ".join(map(latex_escape, row)) + r" \\" for row in grid.rows]
        head = " & ".join(map(latex_escape, grid.headers)) + r" \\"
        caption = latex_escape(" ".join([grid.title, *grid.notes]).strip())
        lines = [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{align}}}", r"\toprule", head]
        parts.append("\n".join([*lines, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(parts)


def to_csv(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """RFC 4180; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return buffer.getvalue().rstrip("\n")
