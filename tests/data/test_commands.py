"""check, convert, mine and generate as they are typed, and what they answer to wrong requests."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from rag_experiments.config import command_line
from rag_experiments.data import check, convert, generate, mine
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import check_required_fields, load_data
from rag_experiments.data.tools.data_command import leave_with

PASSAGES = [{"id": f"p{n}", "text": f"This is the text of number {n}."} for n in range(12)]
PASSAGES += [{"id": "copy", "text": PASSAGES[3]["text"]}, {"id": "p0", "text": "again"}, {"id": "empty", "text": ""}]
TRAIN = [{"question": f"What is {n}?", "answers": [f"number {n}"], "positive_ids": [f"p{n}"]} for n in range(10)]
TRAIN += [
    {"question": "Lost?", "positive_ids": ["nowhere"]},
    {"question": "Half lost?", "positive_ids": ["copy", "nowhere"], "negative_ids": ["p3", "p4"]},
    "not JSON",
    {"question": ""},
]


@pytest.fixture
def broken(native) -> Path:
    return native(passages=PASSAGES, train=TRAIN, dev=TRAIN[:1], test=[])


def run(command, arguments: list[str], tmp_path: Path) -> int:
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(command.start, [*arguments, f"paths.cache={tmp_path / 'cache'}"])
    return ended.value.code


def test_check_tells_everything_at_once(broken, tmp_path, capsys):
    assert run(check, ["data=jsonl", f"data.path={broken}"], tmp_path) == 2
    out, err = capsys.readouterr()
    for expected in (
        "passages    13 (11 gold, 1 with the title and text of another)",
        "questions   10 train, 1 dev, 1 test",
        "passages.jsonl:14: passage id 'p0' is used by",
        "passages.jsonl:15: 'text' is empty",
        "train.jsonl:11: positive_ids has 'nowhere'",
        "train.jsonl:12: positive_ids has 'nowhere'",
        "train.jsonl:13: not valid JSON",
        "train.jsonl:14: 'question' is empty",
        "test.jsonl: the test split has no questions",
        "train and dev: 1 questions, 1 gold passages in both",
        "1 of the 1 dev questions are asked in train as well",
        "query     What is 0?",
    ):
        assert expected in out, expected
    assert err.startswith("\nerror: 7 problem(s) (")
    assert "Traceback" not in err
    assert list((tmp_path / "cache").glob("check-*")) == []


def test_fix_writes_what_is_usable(broken, tmp_path, capsys):
    fixed = tmp_path / "fixed"
    assert run(check, ["data=jsonl", f"data.path={broken}", "--fix", str(fixed)], tmp_path) == 0
    assert run(check, ["data=jsonl", f"data.path={fixed}"], tmp_path) == 0
    assert "no problem found" in capsys.readouterr().out
    data = load_data(JsonlConfig(path=str(fixed)), tmp_path / "cache")
    assert len(data.passages) == 12
    everything = [q for questions in data.splits.values() for q in questions]
    half = next(question for question in everything if question.question == "Half lost?")
    assert half.positive_ids == ("p3",), "the copy is called as the first of its text"
    assert half.negative_ids == ("p4",), "what is gold under another id is no negative"
    assert "Lost?" not in {question.question for question in everything}


def test_a_config_dir_is_no_folder_to_write(native, tmp_path, capsys):
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "own.yaml").write_text(f"defaults: [jsonl, _self_]\npath: {native()}\n")
    for typed in (["--config-dir", str(tmp_path / "mine")], [f"--config-dir={tmp_path / 'mine'}"]):
        assert run(check, [*typed, "data=own"], tmp_path) == 0
    assert run(check, ["data=own", "--config-dir"], tmp_path) == 2
    assert "--config-dir needs the folder of your own config groups" in capsys.readouterr().err


def test_fix_leaves_out_what_an_algorithm_cannot_use(native, tmp_path, capsys):
    train = [{"question": f"{n}?", **({} if n % 3 else {"positive_ids": [f"p{n}"]})} for n in range(12)]
    arguments = ["data=jsonl", f"data.path={native(train=train)}", "check.needs=[positives]"]
    assert run(check, arguments, tmp_path) == 2
    out, err = capsys.readouterr()
    assert "train.jsonl:2: the question has no positive_ids, and check.needs has positives" in out
    assert "8 problem(s) (no positives: 8)" in err
    assert run(check, [*arguments, "--fix", str(tmp_path / "fixed")], tmp_path) == 0
    data = load_data(JsonlConfig(path=str(tmp_path / "fixed")), tmp_path / "cache")
    assert {name: len(asked) for name, asked in data.splits.items()} == {"train": 4, "dev": 2, "test": 2}
    check_required_fields(data, {"positive_ids"}, "ctl")


def test_check_of_good_data(native, tmp_path, capsys):
    assert run(check, ["data=jsonl", f"data.path={native()}", "check.examples=1"], tmp_path) == 0
    out = capsys.readouterr().out
    assert "questions   8 train, 2 dev, 2 test" in out
    assert "no problem found" in out


def test_nothing_usable(native, tmp_path, capsys):
    assert run(check, ["data=jsonl", f"data.path={native(passages=['x'])}"], tmp_path) == 2
    out, err = capsys.readouterr()
    assert "not one usable passage" in err
    assert "passages.jsonl:1: not valid JSON" in out


def test_convert(native, tmp_path, capsys):
    source = native(dev=None, test=None)
    assert run(convert, ["data=jsonl", f"data.path={source}", str(tmp_path / "out")], tmp_path) == 0
    assert "note: no dev split was given" in capsys.readouterr().out
    first = load_data(JsonlConfig(path=str(source)), tmp_path / "cache")
    second = load_data(JsonlConfig(path=str(tmp_path / "out")), tmp_path / "cache")
    assert first.content_hash == second.content_hash


def test_mine_with_bm25(native, tmp_path, capsys):
    rows = [{"id": f"p{n}", "text": f"A drawer holds thing {n}."} for n in range(12)]
    train = [{"question": f"Which drawer holds thing {n}?", "positive_ids": [f"p{n}"]} for n in range(12)]
    source = native(passages=rows, train=train)
    arguments = ["data=jsonl", f"data.path={source}", "mine.retrievers=[bm25]", "mine.margin=null", "mine.count=2"]
    assert run(mine, [*arguments, "mine.answer_match=false", str(tmp_path / "out")], tmp_path) == 0
    assert "negatives   2.00 per question" in capsys.readouterr().out
    data = load_data(JsonlConfig(path=str(tmp_path / "out")), tmp_path / "cache")
    assert all(len(q.negative_ids) == 2 for q in data.splits["train"])
    assert all(q.positive_ids[0] not in q.negative_ids for q in data.splits["train"])
    assert all(not q.negative_ids for q in data.splits["dev"])


WRONG = {
    "no folder": (convert, [], "the folder to write is missing"),
    "two folders": (convert, ["a", "b"], "give one folder to write, not 2"),
    "a full folder": (convert, ["{native}"], "exists already and is not empty"),
    "an unknown key": (mine, ["mine.cuont=3", "{new}"], "mine.cuont is an unknown key (did you mean 'count'"),
    "a wrong value": (mine, ["mine.count=0", "{new}"], "mine.count=0: input should be greater than or equal to 1"),
    "a wrong range": (mine, ["mine.first_rank=9", "mine.last_rank=3", "{new}"], "first_rank (9) is beyond"),
    "no such retriever": (mine, ["mine.retrievers=[bm52]", "{new}"], "mine.retrievers"),
    "an encoder that writes": (generate, ["model=minilm", "{new}"], "is an encoder; questions are written by a reader"),
    "a folder of something else": (generate, ["{native}"], "holds something else"),
    "fix without a folder": (check, ["--fix"], "--fix needs the folder"),
    "an unknown data key": (check, ["data.pth=x"], "data.pth is an unknown key"),
    "a word too many": (check, ["here"], "check takes one path, and not 'here' besides"),
    "no split to mine": (mine, ["mine.splits=[]", "{new}"], "mine.splits=[]: list should have at least 1 item"),
    "a variable nobody set": (check, ["name=${{HOME}}"], "name: there is no key 'HOME' to take the value from"),
    "a file as the folder": (convert, ["{native}/train.jsonl"], "exists already and is not empty"),
    "a folder in a file": (convert, ["{native}/train.jsonl/x"], "cannot be written: Not a directory"),
    "a file to generate into": (generate, ["{native}/train.jsonl"], "is a file"),
    "no such cross-encoder": (
        mine,
        ["mine.retrievers=[bm25]", "mine.margin=null", "mine.cross_encoder=/nowhere", "{new}"],
        "mine.cross_encoder: there is no folder '/nowhere'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests(name, native, tmp_path, capsys):
    command, words, message = WRONG[name]
    folder = native()
    words = [word.format(native=folder, new=tmp_path / "new") for word in words]
    assert run(command, ["data=jsonl", f"data.path={folder}", *words], tmp_path) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_unknown_format_and_missing_path(tmp_path, capsys):
    assert run(check, ["data=jsnol"], tmp_path) == 2
    assert "did you mean 'jsonl'" in capsys.readouterr().err
    assert run(check, ["data=beir"], tmp_path) == 2
    assert "data.path" in capsys.readouterr().err


def test_a_path_without_a_format_is_looked_at(native, tmp_path, capsys):
    """The default of `data=`, which reads no files, is not taken instead."""
    (tmp_path / "empty").mkdir()
    assert run(check, [f"data.path={tmp_path / 'empty'}"], tmp_path) == 2
    assert "there is nothing in that folder that is read" in capsys.readouterr().err
    assert run(check, ["data=pydocs", f"data.path={tmp_path}"], tmp_path) == 2
    assert "data=pydocs reads no files: data=auto looks at what is there" in capsys.readouterr().err
    folder = str(native())
    for words in ([folder], [f"data.path={folder}"], [f"data={folder}"], ["data=auto", f"data.path={folder}"]):
        assert run(check, words, tmp_path) == 0
        assert capsys.readouterr().out.startswith(f"data        jsonl  {folder}\n")


@pytest.mark.parametrize("empty", ["train.jsonl", "train.csv"])
def test_empty_files_are_unusable(empty, tmp_path, capsys):
    (tmp_path / empty).write_text("")
    assert run(check, ["data=hub", f"data.path={tmp_path / empty}"], tmp_path) == 2
    assert "there is not one usable passage" in capsys.readouterr().err


def test_mine_says_which_splits_there_are(native, tmp_path, capsys):
    arguments = ["data=jsonl", f"data.path={native(train=None)}", str(tmp_path / "new")]
    assert run(mine, arguments, tmp_path) == 2
    assert "the data has no train questions (it has dev, test)" in capsys.readouterr().err


def test_documents_without_questions_convert_and_say_what_is_next(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("The door opens with the brass key.")
    assert run(convert, ["data=documents", f"data.path={tmp_path / 'docs'}", str(tmp_path / "out")], tmp_path) == 0
    assert "there are no questions yet" in capsys.readouterr().out


@pytest.mark.parametrize("command", [check, convert, mine])
def test_ctrl_c_leaves_nothing(command, native, tmp_path, monkeypatch, capsys):
    """In the middle of reading, and in the middle of writing."""
    from rag_experiments.data.formats import jsonl
    from rag_experiments.data.tools import native_writer as writing

    def interrupted(*_):
        raise KeyboardInterrupt

    target = ["--fix", str(tmp_path / "out")] if command is check else [str(tmp_path / "out")]
    options = ["mine.retrievers=[bm25]", "mine.margin=null"] if command is mine else []
    for module, name in ((jsonl, "native_question"), (writing, "question_row")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            assert run(command, ["data=jsonl", f"data.path={native()}", *options, *target], tmp_path) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
        assert not (tmp_path / "out").exists()
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".partial-", "check-"))]


def test_ctrl_c_while_questions_are_written_says_that_they_are_kept(native, tmp_path, monkeypatch, capsys):
    class Interrupted:
        def run(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(generate, "make_generator", lambda *_: Interrupted())
    assert run(generate, ["data=jsonl", f"data.path={native()}", str(tmp_path / "out")], tmp_path) == 130
    said = f"interrupted; the same command continues with what {tmp_path / 'out' / 'generated.jsonl'} holds"
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_a_polite_kill_is_an_interruption_and_a_full_disk_a_sentence(capsys):
    def killed(arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    def full(arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for start, status, said in ((killed, 130, "interrupted"), (full, 1, "error: the disk is full")):
        with pytest.raises(SystemExit) as ended:
            leave_with(start)
        assert ended.value.code == status
        assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("command", [check, convert, mine, generate])
def test_help(command, capsys):
    assert command.start(["--help"]) == 0
    assert "python -m rag_experiments.data." in capsys.readouterr().out


def test_json_of_other_languages_stays_readable(native, tmp_path):
    rows = [{"id": "p0", "text": "Größe 大きさ"}]
    source = native(passages=rows, train=[{"question": "大?"}], dev=None, test=None)
    for name in ("dev", "test"):
        (source / f"{name}.jsonl").write_text(json.dumps({"question": "é?"}))
    assert run(convert, ["data=jsonl", f"data.path={source}", str(tmp_path / "out")], tmp_path) == 0
    assert "Größe 大きさ" in (tmp_path / "out" / "passages.jsonl").read_text(encoding="utf-8")
