"""The native format: what is read, and every way in which it can be wrong."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import RagData, check_required_fields, load_data
from rag_experiments.data.records import Turn


def load(folder: Path, tmp_path: Path, **keys: object) -> RagData:
    return load_data(JsonlConfig(path=str(folder), **keys), tmp_path / "cache")


def test_reads_everything(native, tmp_path):
    question = {
        "question": "And then?",
        "answers": ["a", "b"],
        "positive_ids": ["p1", "p2"],
        "negative_ids": ["p3"],
        "history": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hm"}],
        "relevance": {"p1": 2, "p2": 1},
        "candidate_ids": ["p3", "p1"],
        "something_else": 7,
    }
    data = load(native(train=[question]), tmp_path)
    read = data.splits["train"][0]
    assert read.id == "train-1"
    assert read.answers == ("a", "b")
    assert read.positive_ids == ("p1", "p2")
    assert read.negative_ids == ("p3",)
    assert read.history == (Turn("user", "Hello"), Turn("assistant", "Hm"))
    assert read.relevance == {"p1": 2, "p2": 1}
    assert read.candidate_ids == ("p3", "p1")
    assert [len(data.splits[name]) for name in ("train", "dev", "test")] == [1, 2, 2]
    assert data.passages[3].full_text == "Title 3\nThis is text 3."
    assert data.notes == ["columns not used: something_else"]


BAD = {
    "bad JSON": ("train", 3, '{"question": "x"', "not valid JSON"),
    "a list": ("train", 2, "[1]", "must be a JSON object"),
    "null": ("train", 2, "null", "null"),
    "NaN": ("train", 2, '{"question": NaN}', "NaN is not JSON"),
    "absurd nesting": ("train", 2, "[" * 100_000, "not valid JSON"),
    "an absurd number": ("train", 2, '{"question": ' + "9" * 5000 + "}", "not valid JSON"),
    "half a character": ("train", 2, '{"question": "\\ud800"}', "half a character"),
    "no question": ("train", 2, {"query": "x"}, "there is no 'question' (the keys here are 'query')"),
    "empty question": ("dev", 1, {"question": "  "}, "'question' is empty"),
    "question of a wrong type": ("train", 2, {"question": 3}, "'question' must be a string, and is 3"),
    "answers no list": ("train", 2, {"question": "x", "answers": "y"}, "'answers' must be a list of strings"),
    "an empty answer": ("train", 2, {"question": "x", "answers": [""]}, "'answers' holds an empty string"),
    "gold not in the corpus": ("test", 2, {"question": "x", "positive_ids": ["zz"]}, "'zz', and no passage"),
    "negative not in the corpus": ("test", 2, {"question": "x", "negative_ids": ["zz"]}, "'zz', and no passage"),
    "both gold and negative": (
        "train",
        2,
        {"question": "x", "positive_ids": ["p1"], "negative_ids": ["p1"]},
        "in positive_ids and in negative_ids",
    ),
    "question id twice": ("train", 2, {"id": "q0", "question": "x"}, "question id 'q0' is used by"),
    "history of a wrong kind": ("train", 2, {"question": "x", "history": [["y"]]}, "'history' must be a list of"),
    "history of a wrong role": (
        "train",
        2,
        {"question": "x", "history": [{"role": "judge", "content": "y"}]},
        "the role 'judge'",
    ),
    "grades of a wrong kind": ("train", 2, {"question": "x", "relevance": {"p1": "high"}}, "'relevance' must map"),
    "passage without text": ("passages", 2, {"id": "z"}, "there is no 'text'"),
    "passage with empty text": ("passages", 2, {"id": "z", "text": " "}, "'text' is empty"),
    "passage id of a wrong type": ("passages", 2, {"id": 7, "text": "x"}, "'id' must be a string, and is 7"),
    "passage id twice": ("passages", 2, {"id": "p0", "text": "x"}, "passage id 'p0' is used by"),
    "title of a wrong type": ("passages", 2, {"id": "z", "text": "x", "title": []}, "'title' must be a string"),
}


@pytest.mark.parametrize("name", BAD)
def test_says_file_and_line(name, native, tmp_path):
    file, line, row, message = BAD[name]
    folder = native()
    path = folder / f"{file}.jsonl"
    lines = path.read_text().splitlines()
    lines[line - 1 : line - 1] = [row if isinstance(row, str) else json.dumps(row)]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RequestError) as caught:
        load(folder, tmp_path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert f"{file}.jsonl:{line}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    leftovers = [path.name for path in (tmp_path / "cache" / "data").iterdir() if path.suffix != ".lock"]
    assert leftovers == [], "a refused import leaves nothing behind"


def test_duplicate_passage_names_both_places(native, tmp_path):
    rows = [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}, {"id": "a", "text": "z"}]
    folder = native(passages=rows, train=[{"question": "x"}], dev=None, test=None)
    with pytest.raises(RequestError, match=r"passages\.jsonl:3: passage id 'a' is used by .*passages\.jsonl:1 already"):
        load(folder, tmp_path)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_empty_split(split, native, tmp_path):
    with pytest.raises(RequestError, match=rf"{split}\.jsonl: the {split} split has no questions"):
        load(native(**{split: []}), tmp_path)


def test_empty_corpus(native, tmp_path):
    with pytest.raises(RequestError, match="not one usable passage"):
        load(native(passages=[]), tmp_path)


@pytest.mark.parametrize("missing", ["passages", "train"])
def test_missing_file(missing, native, tmp_path):
    extra = {"dev": None, "test": None} if missing == "train" else {}
    with pytest.raises(RequestError, match=f"there is no {missing}.jsonl"):
        load(native(**{missing: None, **extra}), tmp_path)


def test_missing_folder_and_no_path(tmp_path):
    with pytest.raises(RequestError, match="there is no such file or folder"):
        load(tmp_path / "nowhere", tmp_path)
    with pytest.raises(RequestError, match=r"data\.path="):
        load_data(JsonlConfig(), tmp_path / "cache")


def test_byte_order_mark_windows_line_ends_blank_lines_and_gzip_change_nothing(native, tmp_path):
    folder = native()
    plain = load(folder, tmp_path)
    for path in list(folder.iterdir()):
        text = path.read_text().replace("\n", "\r\n\r\n")
        with gzip.open(f"{path}.gz", "wb") as packed:
            packed.write(b"\xef\xbb\xbf" + text.encode())
        path.unlink()
    assert load(folder, tmp_path).content_hash == plain.content_hash


def test_not_utf8(native, tmp_path):
    folder = native()
    (folder / "dev.jsonl").write_bytes(b'{"question": "ok"}\n{"question": "caf\xe9"}\n')
    with pytest.raises(RequestError, match=r"dev\.jsonl:2: not UTF-8 \(byte 0xe9 at column 18\)"):
        load(folder, tmp_path)
    (folder / "dev.jsonl").write_bytes('{"question": "ok"}\n'.encode("utf-16")[:-1])
    with pytest.raises(RequestError, match=r"dev\.jsonl:\d: the file begins like UTF-16"):
        load(folder, tmp_path)


def test_cut_gzip(native, tmp_path):
    folder = native(dev=None)
    packed = gzip.compress(b"".join(b'{"question": "number %d"}\n' % n for n in range(5000)))
    (folder / "dev.jsonl.gz").write_bytes(packed[:-200])
    with pytest.raises(RequestError, match=r"dev\.jsonl\.gz:\d+: the file is cut short or damaged"):
        load(folder, tmp_path)


def test_pickle_is_refused_and_not_run(native, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    folder = native()
    (folder / "passages.jsonl").write_bytes(pickle.dumps([Trap()]))
    with pytest.raises(RequestError, match=r"is a pickle, and no pickle is loaded here.*JSON Lines instead"):
        load(folder, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_needs(native, tmp_path):
    data = load(native(train=[{"question": "a", "answers": ["b"]}, {"question": "c"}]), tmp_path)
    with pytest.raises(RequestError, match=r"train\.jsonl:2: no answers, and algorithm=fid needs answers"):
        check_required_fields(data, {"answers"}, "fid")
    with pytest.raises(RequestError, match=r"check\.needs=\[answers\] --fix DIR leaves them out"):
        check_required_fields(data, {"answers"}, "fid")
    with pytest.raises(RequestError, match=r"train\.jsonl:1: no positive_ids, and algorithm=ctl needs positives"):
        check_required_fields(data, {"positive_ids"}, "ctl")
    check_required_fields(data, (), "dca")
