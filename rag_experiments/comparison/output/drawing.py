"""How matplotlib draws here: for paper and for a screen, without a display, whatever the user's matplotlibrc says.

    with house_style():
        figure, axes = canvas(height=2.4)
        …
        data = encoded(figure, "pdf", "title")

Text stays text in SVG and PDF, so that it can be searched and edited. Names come from users: `$` sets no formula, and
control characters are written out. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
import matplotlib.style
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rag_experiments.core.text_table import one_line

FORMS = ("pdf", "png", "svg")
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Arial Unicode MS")
"""The first comes with matplotlib; the others, where they are installed, have the letters that it lacks."""
WIDTH = 6.3
"""Inches: the text of an A4 page."""
INK, SOFT, FRAME, RULE, PAPER = "#1c2430", "#5d6875", "#aab4c0", "#e3e8ee", "#ffffff"
BEFORE = "#a9b4c2"
BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BROWN = (
    "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#8a5a00",
)  # fmt: skip
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
"""Told apart by colour-blind eyes (Okabe & Ito 2008), and by `DASHES` and `MARKERS` in print."""
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")
_DARK = {
    INK: "#e4e9f0", SOFT: "#9aa6b5", FRAME: "#4a5564", RULE: "#262d37", PAPER: "#12161c", BEFORE: "#5c6878",
    BLUE: "#6ea3f5", BROWN: "#e3b341",
}  # fmt: skip
"""An SVG's colours where the reader's screen is dark."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rag_experiments",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.size": 8.5,
    "text.color": INK,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.edgecolor": FRAME,
    "axes.labelcolor": SOFT,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": FRAME,
    "ytick.color": FRAME,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
}


@contextmanager
def house_style() -> Iterator[None]:
    """The look of everything made and encoded within."""
    font_names = set(font_manager.get_font_names())
    fonts = [name for name in FONTS if name in font_names]
    with warnings.catch_warnings(), matplotlib.style.context(["default", {**_STYLE, "font.family": fonts}]):
        yield


def canvas(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure `height` inches high, and its axes, row by row."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def titled(figure: Figure, title: str) -> Figure:
    """With a title on the left, above everything."""
    figure.suptitle(wrapped(title, 62), x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def wrapped(text: str, width: int = 30) -> str:
    """A name as lines of at most `width` letters."""
    return "\n".join(textwrap.wrap(one_line(text), width)) or " "


def named_rows(axes: Axes, names: list[str]) -> None:
    """Names along the left, the first on top."""
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def legend_below(figure: Figure, entries: dict[str, Any], columns: int = 3) -> None:
    """Name → what is drawn, below everything."""
    if entries:
        names = [wrapped(name, 96 // columns) for name in entries]
        figure.legend(list(entries.values()), names, loc="outside lower left", ncols=min(columns, len(entries)))


def encoded(figure: Figure, form: str, title: str) -> bytes:
    """The figure as one of `FORMS`; an SVG also follows a dark screen."""
    file = io.BytesIO()
    warnings.filterwarnings("ignore", message="Glyph .* missing")  # restored with the style; the letter is a box
    stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form, {})
    figure.savefig(file, format=form, metadata={"Title": one_line(title), **stamp})
    if form != "svg":
        return file.getvalue()
    dark = "".join(
        f'[style*="{what}: {light}"]{{{what}:{colour}!important}}'
        for light, colour in _DARK.items()
        for what in ("fill", "stroke")
    )
    head = f"<title>{escape(one_line(title))}</title>\n<style>@media (prefers-color-scheme:dark){{{dark}}}</style>\n"
    return file.getvalue().decode("utf-8").replace(" <metadata>", f" {head} <metadata>", 1).encode("utf-8")
