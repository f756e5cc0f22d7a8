"""`--figures DIR`: which files, what they show, and that text in them is text."""

from __future__ import annotations

import io
import json
import re
import warnings
from pathlib import Path

import pypdf
import pytest

from rag_experiments.compare import make_document, parser, start
from rag_experiments.comparison.output import drawing
from rag_experiments.comparison.output.figure_choice import figure_calls
from rag_experiments.comparison.output.paper_figures import make_figures
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import rows_with, write_run
from tests.comparison.test_plots import a_run, words


def document(*arguments: object):
    return make_document(parser().parse_args([str(argument) for argument in arguments]))


def texts(figure) -> list[str]:
    data = drawing.encoded(figure, "svg", "t")
    return words(io.BytesIO(data))


def test_each_figure_in_each_form(two_runs, tmp_path, capsys) -> None:
    base, better = two_runs
    folder = tmp_path / "new" / "figures"
    arguments = (base, better, "--baseline", base, "--metric", "recall@1", "--pivot", "algorithm", "learning_rate")
    assert start([*map(str, arguments), "--figures", str(folder)]) == 0
    names = {"bars", "forest", "wins", "causes", "matrix", "cost"}
    assert {name for name, _ in figure_calls(document(*arguments))} == names
    assert {file.name for file in folder.iterdir()} == {f"{name}.{form}" for name in names for form in drawing.FORMS}
    assert "against the baseline" in capsys.readouterr().out  # the table is there as well
    for file in folder.iterdir():
        start_of = {".pdf": b"%PDF", ".png": b"\x89PNG", ".svg": b"<?xml"}[file.suffix]
        assert file.read_bytes().startswith(start_of)


def test_the_figures_are_the_tables(two_runs) -> None:
    base, better = two_runs
    arguments = (base, better, "--baseline", base, "--metric", "recall@1")
    with drawing.house_style():
        made = make_figures(document(*arguments))
        bars = [patch.get_width() for patch in made["bars"].axes[0].patches]
        assert bars == [0.8, 0.4]  # the best on top
        assert {"0.800", "0.400", "learning_rate=0.0003"} <= set(texts(made["bars"]))
        test = document(*arguments).comparison.verdicts[0].questions
        (interval,) = made["forest"].axes[0].containers
        (bar,) = interval.lines[2]
        assert bar.get_segments()[0][:, 0].tolist() == pytest.approx([test.low, test.high])
        assert "better" in texts(made["forest"])
        counts = [text for text in texts(made["wins"]) if text.isdigit()]
        outcome = next(arguments for name, arguments in figure_calls(document(*arguments)) if name == "wins")[0][0]
        assert {str(outcome.wins), str(outcome.losses)} <= set(counts)
        assert "60%" in texts(made["causes"])  # the baseline's misses
        assert {"test/recall@1", "seconds/train"} <= set(texts(made["cost"]))


def test_seeds_are_dots_and_a_spread(tmp_path) -> None:
    for seed, share in enumerate((0.4, 0.5, 0.6)):
        run = write_run(tmp_path / f"r{seed}", {"test": rows_with(share)}, {"seed": seed})
        lines = [{"step": step, "train/loss": 1.0 + seed, "dev/recall@1": share} for step in (1, 2)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with drawing.house_style():
        made = make_figures(document(tmp_path, "--metric", "recall@1"))
        axes = made["bars"].axes[0]
        assert any("± 0.100 (3)" in text for text in texts(made["bars"]))
        assert [sorted(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 3] == [[0.4, 0.5, 0.6]]
        loss, dev = made["learning_curves"].axes
        assert loss.lines[0].get_ydata().tolist() == [2.0, 2.0]  # the mean
        assert dev.get_title(loc="left") == "dev/recall@1"
        assert any("3 seeds" in text for text in texts(made["learning_curves"]))


def test_a_single_run_has_its_curves_and_its_before_and_after(tmp_path) -> None:
    run = a_run(tmp_path / "r")
    with drawing.house_style():
        made = make_figures(document(run.path))
        assert {"bars", "before_after", "learning_curves"} <= set(made)
        assert any(text.startswith("+0.200 [+0.1") for text in texts(made["before_after"]))
        assert "zero shot 0.200 (dashed)" in texts(made["learning_curves"])


def test_names_are_text_in_every_form(tmp_path, capsys) -> None:
    evil = "$\\frac{a$ <b>&\x1b[2J 日本 _x"
    for number, value in enumerate((evil, "plain")):
        write_run(tmp_path / f"r{number}", {"test": rows_with(0.5)}, {"trainer.optim": value})
    folder = tmp_path / "figures"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert start([str(tmp_path), "--metric", "recall@1", "--figures", str(folder)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert "\x1b" not in (folder / "bars.svg").read_text(encoding="utf-8")
    shown = " ".join(words(folder / "bars.svg"))
    assert "$\\frac{a$ <b>&\\x1b[2J" in shown
    page = pypdf.PdfReader(folder / "bars.pdf").pages[0]
    text = re.sub(r"\s+", " ", page.extract_text())
    assert "\\frac{a$ <b>&\\x1b[2J" in text  # letters, not drawings of them
    assert {font.get_object()["/Subtype"] for font in page["/Resources"]["/Font"].values()} <= {"/Type0", "/TrueType"}


def test_nothing_finished_draws_nothing(tmp_path, capsys) -> None:
    write_run(tmp_path / "a", {}, state="failed")
    folder = tmp_path / "figures"
    with pytest.raises(RequestError, match="nothing to draw"):
        start([str(tmp_path), "--figures", str(folder)])
    assert not folder.exists()
    assert capsys.readouterr().out == ""  # nor is half an answer given


@pytest.mark.parametrize("where", ["taken", "/proc/nothing/x"])
def test_a_folder_that_cannot_be_is_one_sentence(where, two_runs, tmp_path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RequestError, match="--figures") as error:
        start([str(two_runs[0]), "--figures", str(tmp_path / where)])
    assert "\n" not in str(error.value)


def test_the_same_runs_give_the_same_files(two_runs, tmp_path) -> None:
    for folder in ("one", "two"):
        start([str(two_runs[0].parent), "--metric", "recall@1", "--figures", str(tmp_path / folder)])
    for file in Path(tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
