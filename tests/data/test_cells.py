"""Cells that hold lists as text, and how CSV and TSV files are cut into cells: read, or refused with their place."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.core.errors import RequestError
from rag_experiments.data.bad_row import BadRow
from rag_experiments.data.cells import listed
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.formats.tables import rows
from rag_experiments.data.formats.tevatron import TevatronConfig
from rag_experiments.data.load import load_data
from tests.data.conftest import write_jsonl

WORDS = st.lists(
    st.text(min_size=1, max_size=8).filter(lambda text: text[0] not in "[({" and text.isprintable()), max_size=4
)


def as_numpy(words: list[str]) -> str:
    return "[" + "\n ".join(map(repr, words)) + "]"


@settings(deadline=None)
@given(WORDS)
def test_listed_reads_what_python_numpy_and_json_print(words):
    arrays = f"array([{', '.join(map(repr, words))}], dtype=object)"
    printed = [repr(words), as_numpy(words), arrays, json.dumps(words), f" {words!r} ", f"[{arrays}]"]
    if len(words) > 1:
        printed += [repr(tuple(words)), "{" + repr(words)[1:-1] + "}"]
    for text in printed:
        assert listed(text, "answers") == words, text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['x', nan]", ["x"]),
        ("('Gford',)", ["Gford"]),
        ("[list(['a', 'b']) list(['c'])]", ["a", "b", "c"]),
        ("[['a', 'b'], ['c']]", ["a", "b", "c"]),
        ("[np.str_('a'), np.str_('b')]", ["a", "b"]),
        ("[007, '42.0', 5]", ["007", "42.0", "5"]),
        ('["\\ud83d\\ude00"]', ["\U0001f600"]),
        ("{'text': array(['a'], dtype=object), 'answer_start': array([3], dtype=int32)}",
         {"text": ["a"], "answer_start": ["3"]}),
        (["['42']", ["b", None], float("nan")], ["42", "b"]),
        (["[1]"], ["[1]"]),
    ],
)  # fmt: skip
def test_listed_reads_each_printers_way(text, value):
    assert listed(text, "answers") == value


@pytest.mark.parametrize(
    "text",
    [
        "(born 1911)",
        "[Applause]",
        "[a, b]",
        "[3]",
        "[1, 2.5]",
        '("a word")',
        '["Weird Al"] was here',
        "{x}",
        "f(x)",
        "[f(x) is it]",
        "nan",
        "",
    ],
)
def test_listed_leaves_prose_in_brackets_as_it_stands(text):
    assert listed(text, "answers") == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("['red', 'gre", "a quote is not closed"),
        ("['red', 'green'", "it is not closed"),
        ("['a' ... 'b']", "numpy left entries out"),
        ("['a'] ['b']", "goes on after its end"),
        ("['yes', no]", "'no' has no quotes around it"),
        ("{'a': 1, 'b'}", "a key has no value"),
        ("['a')", "'[' is closed by ')'"),
        ("[" * 50 + "'a'" + "]" * 49, "lists in lists without an end"),
    ],
)
def test_listed_refuses_what_begins_as_a_list_and_is_none(text, why):
    with pytest.raises(BadRow) as refused:
        listed(text, "answers")
    assert "'answers' begins as a list and cannot be read as one" in str(refused.value)
    assert why in str(refused.value)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="[](){}'\",:ab1 \\\n.=", max_size=24))
def test_listed_never_fails_otherwise(text):
    with contextlib.suppress(BadRow):
        listed(text, "x")


def test_every_format_reads_a_printed_list_as_its_answers(native, tmp_path):
    cell = "['red' 'green']"
    context = {"title": "T", "text": "red and green", "passage_id": "1"}
    given = [
        {
            **{"question": f"{n}?", "query": f"{n}?", "answers": cell, "positive_ids": ["p1"]},
            "positive_ctxs": [context],
            "positive_passages": [{"docid": "1", "text": "red and green"}],
            "context": f"{n} red and green",
        }
        for n in range(3)
    ]
    for name, row in zip(("train", "dev", "test"), given, strict=True):
        write_jsonl(tmp_path / "set" / f"{name}.jsonl", [row])
    path = str(tmp_path / "set")
    folder = native(train=given[:1], dev=given[1:2], test=given[2:])
    columns = HubColumns(id=None, title=None)
    for config in (
        JsonlConfig(path=str(folder)),
        DprConfig(path=path),
        TevatronConfig(path=path),
        HubConfig(path=path, columns=columns),
    ):
        assert load_data(config, tmp_path / "cache").splits["train"][0].answers == ("red", "green"), config.format
    write_jsonl(tmp_path / "set" / "train.jsonl", [{**given[0], "answers": "['red' 'gre"}])
    for config in (DprConfig(path=path), TevatronConfig(path=path), HubConfig(path=path, columns=columns)):
        with pytest.raises(RequestError, match=r"train\.jsonl:1: 'answers' begins as a list"):
            load_data(config, tmp_path / "cache")


# -- cells -------------------------------------------------------------------------------------------------

HEADER = ["id", "question", "text"]
TABLE = [
    ["1", "Who; and why?", 'He said "yes, of course".'],
    ["2", "What?", '"yes, of course"'],
    ["3", "Where, now?", "two\nlines"],
]


def written(path: Path, encoding: str, before: str = "", **dialect: object) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text, **{"lineterminator": "\n", **dialect}).writerows([HEADER, *TABLE])  # type: ignore[arg-type]
    path.write_bytes((before + text.getvalue()).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("named", [False, True])
def test_a_table_is_read_whatever_program_wrote_it(encoding, delimiter, end, named, tmp_path, collecting):
    before = f"sep={delimiter}{end}" if named else ""
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        path = written(tmp_path / "t.csv", encoding, before, delimiter=delimiter, lineterminator=end, quoting=quoting)
        assert [list(row.values()) for _, row in rows(path, collecting)] == TABLE
    assert collecting.problems == []


def test_a_quote_in_a_tab_separated_file_is_a_character(tmp_path, collecting):
    lines = ["id\ttext", '1\t"Weird Al" Yankovic', '2\t"unbalanced', '3\t5" pipe', '4\t"goes', 'on"', '5\tlast"']
    (tmp_path / "t.tsv").write_text("\n".join(lines))
    found = [list(row.values()) for _, row in rows(tmp_path / "t.tsv", collecting)]
    assert found == [
        ["1", '"Weird Al" Yankovic'],
        ["2", '"unbalanced'],
        ["3", '5" pipe'],
        ["4", "goes\non"],
        ["5", 'last"'],
    ]
    assert collecting.problems == []


def test_json_in_utf16_is_read(tmp_path, collecting):
    (tmp_path / "a.json").write_text(json.dumps([{"a": "ü"}], ensure_ascii=False), encoding="utf-16")
    (tmp_path / "b.jsonl").write_text(json.dumps({"a": "ü"}, ensure_ascii=False) + "\n", encoding="utf-16")
    (tmp_path / "c.jsonl").write_text(json.dumps([{"a": "ü"}], ensure_ascii=False), encoding="utf-16")
    for name in ("a.json", "b.jsonl", "c.jsonl"):
        assert [row for _, row in rows(tmp_path / name, collecting)] == [{"a": "ü"}]
    (tmp_path / "d.csv").write_bytes("a\n\u00fc".encode("utf-16")[:-1])
    assert list(rows(tmp_path / "d.csv", collecting)) == []
    assert [str(problem.where) for problem in collecting.problems] == [f"{tmp_path / 'd.csv'}:2"]
