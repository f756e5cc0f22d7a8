"""The manual's page on Python runs from top to bottom, on small data with tiny models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rag_experiments as rag
from tests.commands.test_reopen import request as reader_request
from tests.conftest import write_small_data
from tests.training.test_run import request as encoder_request

PAGE = Path(__file__).parents[2] / "docs" / "manual" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_runs_from_top_to_bottom(tiny_bert, tiny_llama, tmp_path, monkeypatch, capsys):
    data = write_small_data(tmp_path / "my_data")
    monkeypatch.chdir(tmp_path)
    tiny = {
        "ctl": dict(word.split("=", 1) for word in encoder_request(tiny_bert, data, tmp_path)),
        "swr": dict(word.split("=", 1) for word in reader_request(tiny_llama, tiny_bert, data, tmp_path)),
    }
    del tiny["swr"]["retriever.encoder.path"]  # the page gives it
    numbers = {"trainer.max_steps": 3, "trainer.logging_steps": 1, "evaluation.latency": 0, "evaluation.bootstrap": 50}
    for settings in tiny.values():
        for key in ("algorithm", "data", "data.path"):
            del settings[key]
    names: dict[str, object] = {"tiny": {role: {**settings, **numbers} for role, settings in tiny.items()}}
    assert len(BLOCKS) >= 8
    for block in BLOCKS:
        role = "swr" if "algorithm=swr" in block else "ctl"
        exec(block.replace(", small", f", small, tiny[{role!r}]"), names)
    printed = capsys.readouterr().out
    assert "(did you mean 'learning_rate'?)" in printed
    assert "True None" in printed
    run, reader, table = names["run"], names["reader"], names["table"]
    assert isinstance(run, rag.Run)
    assert isinstance(reader, rag.Run)
    assert reader.config["retriever"]["encoder"]["path"] == f"run://{run.path}"
    assert list(table["verdict"]).count("baseline") == 1  # type: ignore[index]
    assert (tmp_path / "exported" / "README.md").is_file()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\brag\.(\w+)", PAGE.read_text(encoding="utf-8")))))
def test_every_name_on_the_page_is_there(name):
    assert hasattr(rag, name)
