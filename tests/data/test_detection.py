"""`data=auto`: what files of many shapes are taken for, and what is asked where they could be two things."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from rag_experiments.config.data_formats import config_class
from rag_experiments.config.validation import check_values
from rag_experiments.core.errors import RequestError
from rag_experiments.data.column_names import NAMES, candidates, normalized, preferred, role_of
from rag_experiments.data.formats.detection import AutoConfig, format_keys
from rag_experiments.data.formats.peek import MOST_BYTES, MOST_ROWS, peek
from rag_experiments.data.load import load_data
from tests.data.shapes_of_files import COUNT, SHAPES, answer, question, table, text

UNDERSTOOD = [name for name, shape in SHAPES.items() if not shape.asks]


@pytest.mark.parametrize("name", SHAPES)
def test_what_a_file_is_taken_for(name, tmp_path):
    shape = SHAPES[name]
    path = str(shape.write(tmp_path))
    if shape.asks:
        with pytest.raises(RequestError) as refused:
            format_keys({"format": "auto", "path": path})
        assert shape.asks in str(refused.value)
        assert "\n" not in str(refused.value)
        return
    keys = format_keys({"format": "auto", "path": path})
    columns = keys.pop("columns", {})
    assert {key: value for key, value in columns.items() if value is not None} == shape.keys.get("columns", columns)
    assert keys == {"path": path, **{key: value for key, value in shape.keys.items() if key != "columns"}}


@pytest.mark.parametrize("name", [name for name in UNDERSTOOD if name != "documents"])
def test_what_is_understood_is_read_whole(name, tmp_path):
    keys = format_keys({"path": str(SHAPES[name].write(tmp_path))})
    data = load_data(check_values(config_class(keys["format"]), keys, "data"), tmp_path / "cache")
    asked = {one.question: one for questions in data.splits.values() for one in questions}
    for n in range(COUNT):
        one = asked[question(n)]
        golds = data.passages.full_texts(data.passages.rows(one.positive_ids))
        assert any(text(n) in gold for gold in golds), "the passage that answers it"
        assert one.answers == ((answer(n),) if SHAPES[name].answered else ())
    assert not any("no row has" in note for note in data.notes)


@pytest.mark.parametrize("name", ["CSV with capitals", "FlagEmbedding", "BEIR"])
def test_from_python_the_format_is_found_as_well(name, tmp_path):
    data = load_data(AutoConfig(path=str(SHAPES[name].write(tmp_path))), tmp_path / "cache")
    assert sum(map(len, data.splits.values())) == COUNT


def test_typed_keys_stay(tmp_path):
    path = str(SHAPES["two contexts"].write(tmp_path))
    keys = format_keys({"path": path, "columns": {"context": "Evidence"}, "passage_words": 50, "max_train": 3})
    assert keys["columns"] == {"question": "question", "context": "Evidence", "answers": "answer"}
    assert (keys["passage_words"], keys["max_train"]) == (50, 3)
    keys = format_keys({"path": path, "columns": {"context": "passage", "answers": "Evidence"}})
    assert keys["columns"]["answers"] == "Evidence"
    with pytest.raises(RequestError, match="none is called 'nowhere'"):
        format_keys({"path": path, "columns": {"context": "nowhere"}})
    path = str(SHAPES["Alpaca"].write(tmp_path))
    columns = format_keys({"path": path, "columns": {"question": "input", "context": "instruction"}})["columns"]
    assert (columns["question"], columns["context"], columns["answers"]) == ("input", "instruction", "output")
    with pytest.raises(RequestError, match="none is called 'nowhere'"):
        format_keys({"path": path, "columns": {"question": "nowhere"}})


def test_a_context_that_is_typed_may_hold_lists(tmp_path):
    path = str(SHAPES["FlagEmbedding"].write(tmp_path))
    keys = format_keys({"path": path, "columns": {"context": "neg"}})
    assert (keys["format"], keys["columns"]) == ("tevatron", {"question": "query", "positives": "neg"})


def test_a_readme_beside_a_file_is_no_document(tmp_path):
    path = SHAPES["a folder with one file"].write(tmp_path)
    (path / "README.md").write_text("# About this file")
    assert format_keys({"path": str(path)})["files"] == {"train": "export of may.csv"}
    (path / "guide.md").write_text("# A guide")
    with pytest.raises(RequestError, match=r"there are documents .* type data=documents data\.questions=export of may"):
        format_keys({"path": str(path)})


def test_ids_that_repeat_are_no_ids(tmp_path):
    cells = lambda n: (n // 2, question(n), text(n))  # noqa: E731
    keys = format_keys({"path": str(table("a.csv", ("id", "question", "context"), cells)(tmp_path))})
    assert keys["columns"]["id"] is None


@pytest.mark.parametrize(("reply", "whole"), [("in a word of its own", True), ("d{n}", False)])
def test_contexts_stay_whole_where_a_cut_would_lose_the_question(reply, whole, tmp_path):
    """A cut context keeps the part in which the answer begins; an answer in other words begins nowhere."""
    cells = lambda n: (question(n), reply.format(n=n), f"{'word ' * 300}{text(n)}")  # noqa: E731
    path = str(table("a.csv", ("question", "answer", "context"), cells)(tmp_path))
    keys = format_keys({"path": path})
    assert keys.get("passage_words", 180) == (None if whole else 180)
    data = load_data(AutoConfig(path=path), tmp_path / "cache")
    assert sum(map(len, data.splits.values())) == COUNT


def test_a_column_of_numbers_is_no_text(tmp_path):
    """A page number under the name of a passage: the column with the words is taken."""
    cells = lambda n: {"question": f"q{n}", "passage": n, "text": f"w{n}"}  # noqa: E731
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(cells(n)) + "\n" for n in range(COUNT)), encoding="utf-8")
    assert format_keys({"path": str(file)})["columns"]["context"] == "text"


# -- the table of names ----------------------------------------------------------------------------


def test_a_name_has_one_role():
    every = [normalized(name) for lists in NAMES.values() for names in lists for name in names]
    assert sorted(set(every)) == sorted(dict.fromkeys(every))
    by_role = {role: {normalized(name) for names in lists for name in names} for role, lists in NAMES.items()}
    for role, names in by_role.items():
        assert not names & set().union(*(other for key, other in by_role.items() if key != role))


@pytest.mark.parametrize(
    ("column", "role"),
    [
        ("Question", "question"), ("user-input", "question"), ("GROUND TRUTH", "answers"), ("pos", "context"),
        ("hard_negative", "negatives"), ("qid", "id"), ("Title", "title"), ("chat history", "history"),
        ("colour", None), ("", None),
    ],
)  # fmt: skip
def test_role_of_a_column(column, role):
    assert role_of(column) == role


def test_a_surer_name_is_taken_before_another():
    assert candidates("question", ["prompt", "question", "input"]) == ["question"]
    assert candidates("question", ["prompt", "input"]) == ["prompt", "input"]
    assert preferred("answers", ["response", "answer"]) == "answer"
    assert preferred("answers", ["context"]) is None


# -- the look at the first rows --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_of_a_large_file_the_beginning_is_read(name, tmp_path):
    rows = [{"question": question(n), "context": f"{text(n)} {'long ' * 5000}"} for n in range(300)]
    joined = "\n".join(map(json.dumps, rows)) if "jsonl" in name else json.dumps(rows, indent=1)
    if name == "a.csv":
        joined = "question,context\n" + "".join(f'{row["question"]},"{row["context"]}"\n' for row in rows)
    assert len(joined) > 5 * MOST_BYTES
    data = joined.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    head = peek(tmp_path / name)
    assert 10 < len(head.rows) <= MOST_ROWS
    assert head.columns == ["question", "context"]
    assert head.rows[3] == rows[3]


def test_of_a_large_object_the_beginning_is_read(tmp_path):
    entry = {"context": f'{{"[,{text(1)} {"long " * 5000}', "qas": []}
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": [entry] * 300}]}))
    assert format_keys({"path": str(tmp_path / "a.json")})["preset"] == "squad"


def test_utf_16_and_byte_order_marks_are_read(tmp_path):
    written = f"Question;Context\n{question(1)};{text(1)}\n"
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "a.csv").write_text(written, encoding=encoding)
        assert peek(tmp_path / "a.csv").rows == [{"Question": question(1), "Context": text(1)}]


@pytest.mark.parametrize("name", ["a.pkl", "a.jsonl", "a.parquet", "a.arrow"])
def test_no_pickle_is_read(name, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps([{"question": "a?"}]))
    with pytest.raises(RequestError, match="is a pickle"):
        format_keys({"path": str(tmp_path / name)})


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.parquet", "a.arrow", "a.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\x1f\x8b", b"{", b'[{"a": ', b"\x1f\x8b\x08"])
def test_damaged_files_end_in_one_sentence(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError) as refused:
        format_keys({"path": str(tmp_path / name)})
    assert "\n" not in str(refused.value)


# -- Excel -----------------------------------------------------------------------------------------


def test_excel_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(RequestError, match=r"Excel file.*pip install 'rag_experiments\[excel\]'"):
        format_keys({"path": str(tmp_path / "a.xlsx")})


def test_excel(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append([])
    book.active.append(["ID", "Question", "Answer", "Context"])
    for n in range(COUNT):
        book.active.append([n, question(n), n if n == 7 else answer(n), f"{text(n)} And 7."])
    book.create_sheet("notes").append(["nothing"])
    book.save(tmp_path / "a.xlsx")
    keys = format_keys({"path": str(tmp_path / "a.xlsx")})
    assert keys["columns"] == {"id": "ID", "question": "Question", "answers": "Answer", "context": "Context"}
    data = load_data(AutoConfig(path=str(tmp_path / "a.xlsx")), tmp_path / "cache")
    asked = {one.id: one for questions in data.splits.values() for one in questions}
    assert asked["7"].answers == ("7",)
    assert sorted(asked, key=int) == [str(n) for n in range(COUNT)]
    assert any("the sheet 'notes' is not read" in note for note in data.notes)


def test_the_manual_has_the_table_of_names():
    manual = (Path(__file__).parents[2] / "docs" / "manual" / "data.md").read_text(encoding="utf-8")
    for role, lists in NAMES.items():
        cells = " | ".join(", ".join(f"`{name}`" for name in names) for names in lists)
        assert f"| `{role}` | {cells} |" in manual


def test_an_encoding_that_there_is_not_is_refused_before_the_file_is_looked_at(tmp_path):
    file = tmp_path / "qa.csv"
    file.write_bytes(b"question;answer;context\nWhat?;yes;\xe4 text\n")
    with pytest.raises(RequestError, match=r"data\.encoding.*must be an encoding of text such as utf-8"):
        format_keys({"format": "auto", "path": str(file), "encoding": "klingon"})
