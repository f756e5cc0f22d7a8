"""`rag-data`: the data commands under one name; and `rag.check_data`, which is one of them from Python."""

from __future__ import annotations

import json

import pytest

import rag_experiments as rag
from rag_experiments.config import command_line
from rag_experiments.core.errors import RequestError
from rag_experiments.data import check, commands, convert

PASSAGES = [{"id": f"p{n}", "text": f"This is the text of number {n}."} for n in range(12)]
TRAIN = [{"question": f"What is {n}?", "answers": [f"number {n}"], "positive_ids": [f"p{n}"]} for n in range(10)]
LOST = {"question": "Lost?", "positive_ids": ["nowhere"]}


@pytest.fixture
def good(native):
    return native(passages=PASSAGES, train=TRAIN)


@pytest.fixture
def bad(native):
    return native(passages=PASSAGES, train=[*TRAIN, LOST])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAG_EXPERIMENTS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("command", [check, convert])
def test_it_is_the_command_that_it_names(good, tmp_path, capsys, command):
    name = command.__name__.rpartition(".")[2]
    said = []
    for start, words in ((command.start, []), (commands.start, [name])):
        folder = [str(tmp_path / f"out{len(said)}")] if command is convert else []
        assert start([*words, "data=jsonl", f"data.path={good}", *folder]) == 0
        said.append(capsys.readouterr().out.replace(f"out{len(said)}", "out"))
    assert said[0] == said[1]


@pytest.mark.parametrize("words", [[], ["chek"], ["data=jsonl"], ["convrt", "x"]])
def test_without_a_command_it_says_which_there_are(words, capsys):
    with pytest.raises(SystemExit) as left:
        command_line.exit_with(commands.start, words)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: rag-data")
    assert said.count("\n") == 1
    assert "check" in said or "convert" in said


@pytest.mark.parametrize("name", sorted(commands.COMMANDS))
def test_help_of_a_command_is_its_own(name, capsys):
    assert commands.start([name, "--help"]) == 0
    assert f"rag_experiments.data.{name}" in capsys.readouterr().out


def test_findings_are_what_the_command_prints(native, capsys):
    for train, status in ((TRAIN, 0), ([*TRAIN, LOST], 2)):
        path = native(passages=PASSAGES, train=train)
        assert check.start(["data=jsonl", f"data.path={path}"]) == status
        printed = capsys.readouterr()
        found = rag.check_data(path)
        assert f"{found!r}\n" == printed.out
        assert capsys.readouterr().out == ""
        assert found.usable == (status == 0)
        assert printed.err == ("" if found.verdict is None else f"\nerror: {found.verdict}\n")


def test_problems_have_their_lines(bad):
    (problem,) = rag.check_data(str(bad)).problems
    assert problem.where.line == 11
    (row,) = rag.check_data(bad).frame.to_dict("records")
    assert row == {"file": problem.where.file, "line": 11, "kind": problem.kind, "reason": problem.reason}


def test_overrides_the_format_and_what_is_needed(native, tmp_path):
    folder = native(passages=PASSAGES, train=[*TRAIN, {"question": "No answer?", "positive_ids": ["p1"]}])
    assert rag.check_data(folder).usable
    assert not rag.check_data(folder, needs=["answers"]).usable
    assert "train q" not in repr(rag.check_data(folder, {"check.examples": 0}))
    assert repr(rag.check_data(None, "data=jsonl", {"data.path": folder})) == repr(rag.check_data(folder))
    fixed = rag.check_data(folder, needs=["answers"], fix=tmp_path / "fixed")
    assert len((tmp_path / "fixed" / "train.jsonl").read_text().splitlines()) <= 10
    assert not fixed.usable
    assert rag.check_data(tmp_path / "fixed", needs=["answers"]).usable


def test_what_cannot_be_read_is_the_sentence_of_the_command(tmp_path, capsys):
    (tmp_path / "passages.jsonl").write_text(json.dumps(PASSAGES[0]))
    for words, call in (
        (["data=jsonl", "data.path=/nowhere"], lambda: rag.check_data("/nowhere")),
        (["data=jsnl", "data.path=/x"], lambda: rag.check_data("/x", "data=jsnl")),
        (
            ["data=jsonl", "data.path=/x", "check.needs=[gold]"],
            lambda: rag.check_data("/x", "data=jsonl", "check.needs=[gold]"),
        ),
    ):
        with pytest.raises(SystemExit):
            command_line.exit_with(check.start, words)
        with pytest.raises(RequestError) as refused:
            call()
        assert capsys.readouterr().err == f"error: {refused.value}\n"
