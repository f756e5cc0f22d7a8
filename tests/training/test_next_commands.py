"""What a completed run prints at its end: where it is, and commands that work as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from rag_experiments import ask, compare, export, train
from rag_experiments.config.command_line import compose
from rag_experiments.runs.directory import RunDirectory
from rag_experiments.training import next_commands
from rag_experiments.training.request import check_request
from tests.conftest import write_small_data
from tests.training.test_run import request

ODD = "o'dd $HOME \\ü, [1]"
"""A folder's name that a shell and Hydra's grammar would both take apart."""


def printed_commands(text: str) -> tuple[str, list[list[str]]]:
    """The directory and the words of each command at the end of an output."""
    head, _, commands = text.rpartition("What fits next:\n")
    said = head.splitlines()[-1]
    return said.removeprefix("The run is in ").removesuffix(". "), [shlex.split(line) for line in commands.splitlines()]


def ended(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, list[list[str]]]:
    capsys.readouterr()
    assert train.start(arguments) == 0
    return printed_commands(capsys.readouterr().out)


def test_an_encoders_next_commands_work_as_they_are_printed(
    tmp_path: Path,
    tiny_bert: Path,
    tiny_llama: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / ODD
    data = write_small_data(root / "data")
    monkeypatch.chdir(tmp_path)
    few = (
        "trainer.max_steps=1",
        "evaluation.zero_shot=false",
        f"hydra.run.dir={root / 'runs' / 'a'}",
        "data.max_train=30",
    )
    place, commands = ended(request(tiny_bert, data, root, *few), capsys)
    assert Path(place).resolve() == root / "runs" / "a"
    assert not Path(place).is_absolute()
    (compared, asked, trained) = commands
    assert compared == ["rag-compare", place]
    assert compare.start(compared[1:]) == 0
    assert asked[0] == "rag-ask"
    assert ask.start(asked[1:]) == 0
    assert trained[0] == "rag-train"
    more = [f"model.path={tiny_llama}", f"hydra.run.dir={root / 'runs' / 'b'}", "tracking=none", "trainer.max_steps=1"]
    small = ["model.precision=fp32", "evaluation.splits=[test]", "evaluation.zero_shot=false", "trainer.use_cpu=true"]
    _, (compared, asked, exported) = ended([*trained[1:], *more, *small, "model.max_new_tokens=4"], capsys)
    first, second = (RunDirectory.open(root / "runs" / name).read_status() for name in "ab")
    assert first["data_hash"] == second["data_hash"]
    assert compared == ["rag-compare", str(Path(place).parent)]  # there are two now
    assert compare.start(compared[1:]) == 0
    assert ask.start(asked[1:]) == 0
    assert exported[0] == "rag-export"
    assert export.start(exported[1:]) == 0
    assert (tmp_path / "exported" / "README.md").is_file()


def test_data_without_answers_train_no_reader(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_small_data(tmp_path / "data")
    for file in data.glob("*.jsonl"):
        file.write_text(file.read_text(encoding="utf-8").replace('"answers"', '"unused"'), encoding="utf-8")
    few = ("trainer.max_steps=1", "evaluation.zero_shot=false", "hydra.run.dir=run")
    place, commands = ended(request(tiny_bert, data, tmp_path, *few), capsys)
    assert place == "run"
    assert [words[0] for words in commands] == ["rag-compare", "rag-ask", "rag-export"]


@pytest.mark.parametrize("question", ["seed=1", "--help", "a\nb", "", "  ", "x" * 200])
def test_a_question_that_is_no_word_of_a_command_is_not_printed(question: str, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_predictions("test", [{"question": question}])
    assert next_commands.a_question(run) == "your question"
    run.write_predictions("dev", [{"question": "what's `it`?"}])
    assert next_commands.a_question(run) == "what's `it`?"


def test_data_are_named_as_they_were_typed_unless_an_experiment_chose_them(tmp_path: Path) -> None:
    csv = tmp_path / "mine.csv"
    rows = [f"Who is number {row}?,Ann {row},Ann {row} was here." for row in range(5)]
    csv.write_text("\n".join(["question,answer,context", *rows]), encoding="utf-8")
    typed = [f"data.path={csv}", "data.max_train=3"]
    config = check_request(compose(["algorithm=ctl", *typed], None), training=False).config
    assert next_commands.data_words(["algorithm=ctl", *typed, "data=auto"], config) == typed
    assert next_commands.data_words([], config) == []
    chosen = next_commands.data_words(["experiment=e", "data.max_train=3"], config)
    assert chosen[0] == "data=hub"
    assert {*typed} < {*chosen}
    assert compose(chosen, None).data == compose(typed, None).data
