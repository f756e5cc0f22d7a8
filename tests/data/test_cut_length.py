"""How passages were cut, and what would fit the encoder: `check`, `plan=true` and the rule behind both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_experiments import train
from rag_experiments.config.schema import DataConfig
from rag_experiments.data import check
from rag_experiments.data.cut_length import cut_key, shorter
from rag_experiments.data.formats.documents import DocumentsConfig
from rag_experiments.data.formats.hub import HubConfig
from tests.conftest import write_jsonl

DENSE = "Dr. A.-B. wrote: f(x)=3.14*x^2-(y/7)+{z}; "
"""Words of many tokens: 180 of them are more than MiniLM reads."""


@given(st.lists(st.integers(1, 900), min_size=1, max_size=50), st.integers(20, 400))
def test_the_advice_makes_nearly_all_fit(lengths: list[int], limit: int) -> None:
    config = HubConfig(path="x")
    advice = shorter(config, lengths, limit)
    usual = float(np.percentile(lengths, 99))
    assert bool(advice) is (usual > limit)
    if advice:
        assert config.passage_words
        assert usual * int(advice.removeprefix("data.passage_words=")) / config.passage_words <= limit


def test_only_formats_that_cut_are_advised() -> None:
    assert cut_key(DocumentsConfig(path="x")) == "chunk_tokens"
    assert cut_key(HubConfig(path="x", passage_words=None)) is None
    assert cut_key(DataConfig(format="jsonl", path="x")) is None
    assert shorter(DataConfig(format="jsonl", path="x"), [900], 20) == ""


@pytest.fixture
def dense(tmp_path: Path) -> list[str]:
    rows = [
        {"question": f"q {n}?", "answer": "f(x)", "context": f"{n}. " + DENSE * 40, "title": f"t{n}"} for n in range(30)
    ]
    return ["data=hub", f"data.path={write_jsonl(tmp_path / 'rows.jsonl', rows)}", f"paths.cache={tmp_path / 'cache'}",
            "data.columns.answers=answer"]  # fmt: skip


def test_check_and_plan_say_what_the_encoder_cuts_and_what_fits(
    dense: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.start([*dense, "model=minilm"]) == 0
    shown = capsys.readouterr().out
    assert "are longer than the model's 256, and cut; with data.passage_words=" in shown
    advised = shown.partition("with ")[2].partition(" 99 %")[0]
    assert "passages as they were cut (data.passage_words=180):" in shown
    assert train.start(["algorithm=ctl", *dense, "tracking=none", "plan=true"]) == 0
    assert f"longer than 256 and cut when they are read ({advised} makes 99 % fit)" in capsys.readouterr().out
    assert check.start([*dense, "model=minilm", advised]) == 0
    shown = capsys.readouterr().out
    assert "data.passage_words=" in shown  # as they were cut
    assert "(the model reads 256)" in next(line for line in shown.splitlines() if line.startswith("  passages"))


def test_check_shows_documents_as_they_were_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("semantic_text_splitter")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text(" ".join(f"Sentence {n} is here." for n in range(200)), encoding="utf-8")
    words = [str(tmp_path / "docs"), "data=documents", f"paths.cache={tmp_path / 'cache'}", "check.examples=2"]
    assert check.start(words) == 0
    lines = capsys.readouterr().out.partition("passages as they were cut (data.chunk_tokens=180):\n")[2].splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["a.txt#0", "a.txt#1"]
    assert all(100 < int(line.split()[1]) <= 190 for line in lines[:2])
    assert lines[2] == ""
