"""The command: formats that agree, the report, wrong requests."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rag_experiments.compare import start
from rag_experiments.core.errors import RequestError
from tests.comparison.conftest import ranked_row, rows_with, write_run

EVIL = "<script>alert('owned')</script>"


def output(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert start([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_table_is_best_first(two_runs, capsys) -> None:
    text = output(capsys, two_runs[0].parent, "--metric", "recall@1")
    lines = [line for line in text.splitlines() if line.startswith(("base", "better", "run"))]
    assert lines[0].split()[:3] == ["run", "learning_rate", "recall@1"]
    assert lines[1].split()[:3] == ["better", "0.0003", "0.800"]
    assert lines[2].split()[:3] == ["base", "0.0001", "0.400"]


def test_every_format_has_the_same_figures(two_runs, capsys, tmp_path) -> None:
    root = two_runs[0].parent
    table = output(capsys, root, "--metric", "recall@1")
    rows = list(csv.DictReader(io.StringIO(output(capsys, root, "--metric", "recall@1", "--format", "csv"))))
    data = json.loads(output(capsys, root, "--metric", "recall@1", "--format", "json"))
    markdown = output(capsys, root, "--metric", "recall@1", "--format", "markdown")
    latex = output(capsys, root, "--metric", "recall@1", "--format", "latex")
    report = tmp_path / "r.html"
    start([str(root), "--metric", "recall@1", "--output", str(report)])
    page = report.read_text(encoding="utf-8")
    groups = data["sections"][0]["groups"]
    for row, group in zip(rows, groups, strict=True):
        for metric in ("test/recall@1", "test/recall@4", "seconds/train"):
            figure = group["metrics"][metric]["mean"]
            assert float(row[metric]) == figure
            shown = f"{figure:.3f}" if figure < 10 else f"{figure:.1f}"
            assert shown in table
            assert re.search(rf"\| +{re.escape(shown)} \|", markdown)
            assert re.search(rf"& +{re.escape(shown)} ", latex)
            assert f'<td class="n">{shown}</td>' in page
    assert r"\begin{tabular}" in latex


def test_verdict_and_causes(two_runs, capsys) -> None:
    base, better = two_runs
    text = output(capsys, base, better, "--baseline", base, "--metric", "recall@1")
    assert re.search(r"better\s+yes\s+cannot tell: both sides have a single seed", text)
    assert "wins" in text
    assert "retriever miss" in text
    data = json.loads(output(capsys, better, "--baseline", base, "--metric", "recall@1", "--format", "json"))
    verdict = data["verdicts"][0]
    assert verdict["outcome"] == "better"
    assert verdict["difference"] == pytest.approx(0.4)
    assert verdict["questions"]["p_holm"] < 0.001


def test_two_runs_name_questions_and_how_to_repeat(two_runs, capsys) -> None:
    base, better = two_runs
    hydra = better / ".hydra"
    hydra.mkdir()
    lines = ["algorithm=ctl", "seed=0", "sweep.name='s'", "sweep.job='s j'", "hydra.run.dir=/somewhere"]
    (hydra / "overrides.yaml").write_text("".join(f"- {line}\n" for line in lines), encoding="utf-8")
    text = output(capsys, base, better, "--baseline", base, "--metric", "recall@1")
    assert re.search(r"\+1\.00\s+question q\d+\s+6\s+1\n", text)
    assert re.search(r"-1\.00\s+question q\d+\s+1\s+6\n", text)
    assert "more changed" in text
    assert re.search(r"better\s+python -m rag_experiments.train algorithm=ctl seed=0\n", text)


def test_several_metrics_are_all_judged(two_runs, capsys) -> None:
    base, better = two_runs
    arguments = (base, better, "--baseline", base, "--metric", "recall@1,mrr@10", "--format", "json")
    verdicts = json.loads(output(capsys, *arguments))["verdicts"]
    assert [v["metric"] for v in verdicts] == ["test/recall@1", "test/mrr@10"]


def test_where_and_pivot(two_runs, capsys) -> None:
    root = two_runs[0].parent
    text = output(capsys, root, "--where", "learning_rate>2e-4", "--metric", "recall@1")
    assert "1 of 2 runs" in text
    text = output(capsys, root, "--pivot", "algorithm", "learning_rate", "--metric", "recall@1")
    assert re.search(r"ctl\s+0\.800\s+0\.400", text)


def test_one_run_shows_before_and_after(tmp_path, capsys) -> None:
    run = write_run(tmp_path / "r", {"zero_shot/test": rows_with(0.4), "test": rows_with(0.6)})
    text = output(capsys, run)
    assert "before and after training" in text
    assert re.search(r"^test\s+recall@1\s+0\.400 \[.*\]\s+0\.600 \[.*\]\s+\+0\.200 \[.*\]\s+100$", text, re.M)
    other = write_run(tmp_path / "without", {"test": rows_with(0.6)})
    assert not re.search(r"^test\s+recall@1", output(capsys, other), re.M)


def test_unfinished_runs_alone(tmp_path, capsys) -> None:
    write_run(tmp_path / "a", {}, state="failed")
    assert "failed" in output(capsys, tmp_path)
    report = tmp_path / "r.html"
    assert start([str(tmp_path), "--output", str(report)]) == 0
    assert "failed" in report.read_text(encoding="utf-8")


def test_text_of_others_is_shown_not_run(tmp_path, capsys) -> None:
    def rows(rank: int) -> list[dict]:
        return [
            ranked_row(f"q{i}", rank, (f"{EVIL}{i}",), question=f"{EVIL} {i}", answer=EVIL, references=[EVIL])
            for i in range(30)
        ]

    base = write_run(tmp_path / "base", {"test": rows(6)}, {"data.path": f"/data/{EVIL}"})
    write_run(
        tmp_path / "c",
        {"test": rows(1)},
        {"trainer.optim": EVIL, "data.path": EVIL},
        status={"command": EVIL, "error": {"type": EVIL, "message": "</script>"}},
        choices={"model": EVIL},
    )
    report = tmp_path / "report.html"
    assert start([str(tmp_path), "--baseline", str(base), "--metric", "recall@1", "--output", str(report)]) == 0
    page = report.read_text(encoding="utf-8")
    assert EVIL not in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert page.count("<script") == 3  # data, plotly, ours
    assert page.count("</script>") == 3
    markdown = output(capsys, tmp_path, "--format", "markdown")
    assert "<script>" not in markdown


def test_control_characters_do_not_reach_the_terminal(tmp_path, capsys) -> None:
    write_run(tmp_path / "a", {"test": rows_with(0.5)}, {"trainer.optim": "a\x1b[2Jb\nc"})
    write_run(tmp_path / "b", {"test": rows_with(0.5)})
    text = output(capsys, tmp_path)
    assert "\x1b" not in text
    assert "a\\x1b[2Jb c" in text


def test_report_loads_nothing_from_elsewhere(two_runs, tmp_path) -> None:
    report = tmp_path / "r.html"
    start([str(two_runs[0].parent), "--baseline", str(two_runs[0]), "--output", str(report)])
    page = report.read_text(encoding="utf-8")
    head = page[: page.index("plotly.js v")]  # what stands before the library's own text
    assert not re.search(r"(src|href)=", head)
    assert "default-src 'none'" in head
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S).group(1))
    assert len(figures) >= 4
    for key in figures:
        assert f'id="{key}"' in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{root}/nothing"], "no such directory"),
        (["{root}", "--metric", "recal@1"], "recall@1"),
        (["{root}", "--baseline", "{root}/nothing"], "--baseline"),
        (["{root}", "--baseline", "{root}"], "different configs"),
        (["{root}", "--where", "algoritm=ctl"], "algorithm"),
        (["{root}", "--where", "seed=99"], "none of the 2 runs"),
        (["{root}", "--where", ""], "--where"),
        (["{root}", "--pivot", "algorithm", "nothing"], "no run has nothing"),
        (["{root}", "--format", "xml"], "invalid choice"),
        (["{root}", "--format", "html"], "--output"),
        (["{root}", "--outptu", "x"], "unrecognized"),
        ([], "required"),
        (["{root}", "--output", "/proc/nothing/x.csv"], "--output"),
    ],
)
def test_wrong_requests_are_one_sentence(two_runs, arguments: list[str], says: str) -> None:
    root = str(two_runs[0].parent)
    with pytest.raises(RequestError) as error:
        start([argument.format(root=root) for argument in arguments])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_from_the_shell_without_torch(two_runs) -> None:
    root = str(two_runs[0].parent)
    code = (
        "import sys; from rag_experiments.compare import start; "
        f"start([{root!r}, '--baseline', {str(two_runs[0])!r}]); "
        "heavy = {'torch', 'transformers', 'datasets', 'wandb', 'plotly', 'matplotlib', 'faiss'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-m", "rag_experiments.compare", root, "--metric", "nothing"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_output_is_whole_or_absent(two_runs, tmp_path, monkeypatch) -> None:
    target = tmp_path / "table.csv"
    target.write_text("earlier")
    monkeypatch.setattr("rag_experiments.comparison.output.render._csv", lambda table: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start([str(two_runs[0].parent), "--output", str(target)])
    assert target.read_text() == "earlier"
    assert sorted(p.name for p in Path(tmp_path).iterdir() if p.name.startswith("table")) == ["table.csv"]
