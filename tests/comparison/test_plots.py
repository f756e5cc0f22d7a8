"""The pictures that a run leaves: what they show, and that names in them are text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from rag_experiments.comparison.output import drawing
from rag_experiments.comparison.output.run_plots import Curve, curves_figure, curves_of, write_plots
from rag_experiments.comparison.records.history import points
from rag_experiments.runs.directory import RunDirectory
from tests.comparison.conftest import rows_with, write_run

LINES = [
    {"step": 0, "epoch": 0.0, "seconds": 1.0, "zero_shot/dev/recall@1": 0.2, "zero_shot/dev/recall@4": 0.5},
    {"step": 0, "epoch": 0.0, "seconds": 2.0, "zero_shot/test/recall@1": 0.1},
    {"step": 1, "epoch": 0.5, "seconds": 3.0, "train/loss": 2.0},
    {"step": 1, "epoch": 0.5, "seconds": 4.0, "dev/recall@1": 0.3, "dev/recall@4": 0.5},
    {"step": 2, "epoch": 1.0, "seconds": 5.0, "train/loss": float("nan")},
    {"step": 2, "epoch": 1.0, "seconds": 6.0, "dev/recall@1": 0.25, "dev/recall@4": 0.5},
    {"step": 2, "epoch": 1.0, "seconds": 7.0, "train/runtime": 3.0},
    {"step": 2, "epoch": 1.0, "seconds": 8.0, "dev/recall@1": 0.9, "dev/recall@4": 0.9},
    {"step": 2, "epoch": 1.0, "seconds": 9.0, "test/recall@1": 0.8},
]


def a_run(path: Path, lines: list[dict] = LINES, **changes: object) -> RunDirectory:
    stages = {"zero_shot/test": rows_with(0.4), "test": rows_with(0.6)}
    run = RunDirectory(write_run(path, stages, {"trainer.metric_for_best_model": "dev/recall@1", **changes}))
    run.history_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return run


def words(file: Path | IO[bytes]) -> list[str]:
    """Every text of an SVG; fails where it is not well formed."""
    return [node.text or "" for node in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]


def test_both_pictures_and_what_they_say(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    assert write_plots(run) == ["plots/learning_curves.svg", "plots/before_after.svg"]
    curves = words(run.path / "plots" / "learning_curves.svg")
    assert {"train/loss", "dev/recall@1", "zero shot 0.200 (dashed)"} <= set(curves)
    bars = words(run.path / "plots" / "before_after.svg")
    assert "test, 100 questions" in bars
    assert any(text.startswith("+0.200 [+0.1") for text in bars)


def test_a_curve_is_of_one_measurement(tmp_path: Path) -> None:
    """The evaluation after training is of another model over other questions."""
    assert points(LINES, "dev/recall@1") == [(0, 0.2), (1, 0.3), (2, 0.25)]
    assert points(LINES, "test/recall@1") == [(2, 0.8)]  # there is nothing else
    assert points(LINES, "train/loss") == [(1, 2.0)]  # no number, no point
    assert points(LINES, "dev/recall@1", "seconds")[1] == (4.0 / 60, 0.3)
    curves = {curve.name: curve for curve in curves_of(a_run(tmp_path / "r"))}
    assert curves["dev/recall@1"].points == [(0, 0.2), (1, 0.3), (2, 0.25)]
    assert "dev/recall@4" not in curves  # training left it as it was


def test_names_are_text(tmp_path: Path) -> None:
    run = a_run(tmp_path / "<script>alert(1)<")
    write_plots(run)
    for file in (run.path / "plots").iterdir():
        assert "<script" not in file.read_text(encoding="utf-8")
        assert any("<script>alert(1)<" in text for text in words(file))


def test_nothing_to_draw_draws_nothing(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "r", {"test": rows_with(0.5)}))
    assert write_plots(run) == []
    assert not (run.path / "plots").exists()


def test_a_flat_and_a_single_point_have_an_axis() -> None:
    for values in ([(5, 0.5)], [(0, 0.0), (3, 0.0)], [(0, -2.0), (3, -2.0)], [(0, 1e-9), (10**6, 2e9)]):
        with drawing.house_style():
            figure = curves_figure([Curve("x", values)], "t")
            text = drawing.encoded(figure, "svg", "t").decode("utf-8")
        low, high = figure.axes[0].get_ylim()
        assert low < min(value for _, value in values)
        assert high > max(value for _, value in values)
        assert "nan" not in text
        assert "inf" not in text


def test_a_small_step_of_a_share_looks_small() -> None:
    with drawing.house_style():
        figure = curves_figure(
            [Curve("dev/f1", [(0, 0.98), (1, 0.99)]), Curve("train/loss", [(0, 0.98), (1, 0.99)])], "t"
        )
    spans = [high - low for low, high in (axes.get_ylim() for axes in figure.axes)]
    assert spans[0] >= 0.1
    assert spans[1] < 0.02


def test_a_figure_is_the_same_whatever_the_users_matplotlib_is_told(tmp_path: Path) -> None:
    import matplotlib

    run = a_run(tmp_path / "r")
    first = [(run.path / file).read_bytes() for file in write_plots(run)]
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert [(run.path / file).read_bytes() for file in write_plots(run)] == first
        assert matplotlib.rcParams["font.size"] == 30  # nor is theirs changed


def test_a_dark_screen_has_colours_of_its_own(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    for file in write_plots(run):
        text = (run.path / file).read_text(encoding="utf-8")
        rules = re.search(r"<style>@media \(prefers-color-scheme:dark\){(.*?)}</style>", text).group(1)
        body = text[text.index("</metadata>") :]
        for light in (drawing.INK, drawing.PAPER, drawing.BLUE):
            assert f"fill: {light}" in body
            assert f'[style*="fill: {light}"]' in rules
