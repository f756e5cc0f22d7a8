"""Tables as text: every cell arrives, whatever the width, and data is never markup or a terminal's control."""

from __future__ import annotations

import io
import re

import pytest

from rag_experiments.core.text_table import Grid, show, to_latex, to_markdown, to_text
from rag_experiments.evaluate import print_beside

EVIL = "[red]a[/red]\x1b[2J:smile:"
GRID = Grid(
    "title",
    ["run", "per_device_train_batch_size", "f1", "difference [95 %]", "verdict"],
    [
        ["one", "64", "0.760 ± 0.1 (3)", "-0.042 [-0.084, +0.000]", "another seed may change it: better"],
        ["two", "8", "–", "+0.1", "worse"],
    ],
    [False, True, True, True, False],
    ["a note"],
)
STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(grid: Grid, width: int, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for key, value in {"COLUMNS": str(width), "TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(key, value)
    terminal = Terminal()
    show([grid], terminal)
    return terminal.getvalue()


def test_a_pipe_gets_whole_lines_without_colour(monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    pipe = io.StringIO()
    show([GRID, GRID], pipe)
    assert pipe.getvalue() == to_text([GRID, GRID]) + "\n"
    title, head, rule, *rows, note = to_text([GRID]).splitlines()
    assert (title, note) == ("title", "a note")
    assert re.split(r"  +", head) == GRID.headers
    assert [re.split(r"  +", row.strip()) for row in rows] == GRID.rows
    assert set(rule) == {"─"}
    end = head.index("f1") + 2
    assert [row[:end].rstrip()[-1] for row in rows] == [")", "–"]  # numbers stand on the right
    assert "\x1b" not in pipe.getvalue()


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20])
def test_a_terminal_of_any_width_loses_nothing(width, monkeypatch) -> None:
    text = STYLE.sub("", shown(GRID, width, monkeypatch))
    figures = [cell for row in GRID.rows for cell in row[1:4]]
    assert all(figure in text for figure in figures), text  # never cut, never folded
    assert all(word in text for word in ["one", "two", "another", "seed", "may", "change", "it:", "better", "worse"])
    if width >= 60:
        assert max(map(len, text.splitlines())) <= width


def test_colour_says_what_the_word_says(monkeypatch) -> None:
    text = shown(GRID, 200, monkeypatch)
    assert re.search(r"\x1b\[32manother seed may change it: better", text)
    assert re.search(r"\x1b\[31mworse", text)
    assert not re.search(r"\x1b\[3[0-9]m", shown(GRID, 200, monkeypatch, NO_COLOR="1"))


def test_data_is_text(monkeypatch) -> None:
    grid = Grid(EVIL, [EVIL, "日本"], [[EVIL, "1"], ["a\nb", "22"]], [False, True], [EVIL])
    for text in (to_text([grid]), STYLE.sub("", shown(grid, 100, monkeypatch))):
        assert "\x1b" not in text
        assert text.count("[red]a[/red]\\x1b[2J:smile:") == 4
        assert "a b" in text
    wide, one, two = (line for line in to_text([grid]).splitlines() if line.endswith(("日本", "1", "22")))
    assert len(wide) + 2 == len(one) == len(two)  # two columns a letter


def test_markdown_and_latex_escape_what_they_would_read() -> None:
    grid = Grid("a_b & c", ["", "x|y"], [["[1, 2]", "5 % ± 1"], ["a\\b<c>", "x|*y*"]], [False, True], ["≥ 1"])
    head, rule, first, second = to_markdown([grid]).splitlines()[2:6]
    assert re.sub(" +", " ", head) == r"| | x\|y |"
    assert re.fullmatch(r"\|:-+\|-+:\|", rule)
    assert re.sub(" +", " ", first) == "| [1, 2] | 5 % ± 1 |"
    assert re.sub(" +", " ", second) == r"| a\\b&lt;c> | x\|\*y\* |"
    latex = re.sub(" +", " ", to_latex([grid]))
    assert r"\caption{a\_b \& c $\ge$ 1}" in latex
    assert r"\begin{tabular}{lr}" in latex
    assert r"{[}1, 2] & 5 \% $\pm$ 1 \\" in latex  # no argument of the line break before
    assert r"a\textbackslash{}b\ensuremath{<}c\ensuremath{>}" in latex


def test_a_table_without_rows_has_its_head() -> None:
    grid = Grid("", ["a", "b"], [], [False, True])
    assert to_text([grid]).splitlines()[0] == "a  b"
    assert r"\begin{tabular}{lr}" in to_latex([grid])
    assert "| a" in to_markdown([grid])


def test_an_evaluations_figures_stand_beside_the_runs(capsys) -> None:
    print_beside({"test/f1": 0.25}, {"test/f1": 0.5, "test/f1_ci_low": 0.4, "test/aurc": 0.125})
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert re.split("  +", head) == ["metric", "in the run", "here"]
    assert [row.split() for row in rows] == [["test/f1", "0.2500", "0.5000"], ["test/aurc", "0.1250"]]
