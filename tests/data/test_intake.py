"""The intake, the store and the columns behind it, against a dictionary and a sorted list."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.core.errors import RequestError
from rag_experiments.data import number_columns, passage_store
from rag_experiments.data.builder import Intake, Problem
from rag_experiments.data.formats.contexts import entries, take_in
from rag_experiments.data.formats.cut import cut_by_words
from rag_experiments.data.number_columns import Column, repeats, sorted_runs
from rag_experiments.data.passage_store import PassageStore, PassageWriter
from rag_experiments.data.records import Passage, Question, Turn, Where
from rag_experiments.data.row_fields import BadRow, content_id, id_of, shown, text_of, texts_of, turns_of, whole_number

# -- the store -----------------------------------------------------------------------------------------

IDS = st.sampled_from(["", "a", "b", "é", "a\u0301", "c" * 300, "0", "00", "\x1f"]) | st.text(max_size=3)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.builds(Passage, IDS.filter(str.isprintable), TEXT, TEXT), max_size=14),
    st.lists(IDS, max_size=4),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_a_store_is_a_list_and_a_dictionary(rows, strangers, block, characters):
    """Whatever the blocks are, ids that come twice included: the first is found, the later ones are named."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(passage_store, "BLOCK", block)
        patch.setattr(passage_store, "BLOCK_CHARACTERS", characters)
        assert passage_store.write_passages(Path(folder), rows) == len(rows)
        store = PassageStore(Path(folder))
        first: dict[str, int] = {}
        twice = []
        for row, passage in enumerate(rows):
            if first.setdefault(passage.id, row) != row:
                twice.append((first[passage.id], row))
        assert len(store) == len(rows)
        assert list(store) == [store[row] for row in range(len(rows))] == rows
        assert store.rows(list(first)).tolist() == list(first.values())
        assert store.repeated_rows() == twice
        assert store.missing([*strangers, *first]) == [value for value in strangers if value not in first]
        assert [value in store for value in strangers] == [value in first for value in strangers]
        backwards = list(range(len(rows)))[::-1]
        assert store.ids(backwards) == [rows[row].id for row in backwards]
        assert store.full_texts(backwards) == [rows[row].full_text for row in backwards]
        assert store.full_texts(slice(1, 5)) == [passage.full_text for passage in rows[1:5]]
        assert store.full_texts(slice(None, None, 2)) == [passage.full_text for passage in rows[::2]]
        for place in (len(rows), -len(rows) - 1):
            with pytest.raises(IndexError):
                store[place]
        if rows:
            assert store[-len(rows)] == rows[0]


def test_a_writer_keeps_a_block_in_memory_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(passage_store, "BLOCK", 10)
    monkeypatch.setattr(passage_store, "BLOCK_CHARACTERS", 100)
    writer = PassageWriter(tmp_path)
    for number in range(57):
        writer.add(Passage(f"{number}", "x" * (60 if number >= 30 else 1)))
        assert len(writer._block) < (10 if number < 30 else 2)
    writer.close()
    sizes = [batch.num_rows for batch in PassageStore(tmp_path)._batches]
    assert sizes == [10, 10, 10, *[2] * 13, 1]


def test_the_content_hash_is_of_the_order_too(tmp_path):
    rows = [Passage("a", "1"), Passage("b", "2")]
    hashes = []
    for number, order in enumerate((rows, rows[::-1], rows)):
        (tmp_path / str(number)).mkdir()
        passage_store.write_passages(tmp_path / str(number), order)
        hashes.append(PassageStore(tmp_path / str(number)).content_hash)
    assert hashes[0] == hashes[2] != hashes[1]


# -- columns -------------------------------------------------------------------------------------------

HASHES = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1])


@settings(max_examples=60, deadline=None)
@given(st.lists(HASHES, max_size=60), st.integers(1, 8))
def test_sorting_in_runs_is_sorting(values, block):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(number_columns, "BLOCK", block)
        folder = Path(name)
        column = Column(folder / "column")
        for number, value in enumerate(values):
            column.append(value)
            if number % 7 == 3:
                assert column.values().tolist() == values[: number + 1]
        stored = column.values()
        runs = list(sorted_runs(stored, folder))
        pairs = [(int(v), int(p)) for found, places in runs for v, p in zip(found, places, strict=True)]
        assert pairs == sorted((value, place) for place, value in enumerate(values))
        filled = [found for found, _ in runs if len(found)]
        assert all(one[-1] < after[0] for one, after in itertools.pairwise(filled)), "equal values are in one run"
        assert repeats(stored, folder) == len(values) - len(set(values))
        column.remove()
        assert list(folder.iterdir()) == []


def test_a_column_holds_a_block_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(number_columns, "BLOCK", 4)
    column = Column(tmp_path / "column")
    for number in range(11):
        column.append(number)
        assert len(column._block) < 4
    assert (tmp_path / "column").stat().st_size == 8 * 8
    many = np.random.default_rng(0).integers(0, 2**64, 4 * 64, dtype=np.uint64)
    assert max(len(found) for found, _ in sorted_runs(many, tmp_path)) < 4 * 5, "memory holds one run of about a block"


# -- the intake ----------------------------------------------------------------------------------------


def test_problems_are_kept_with_their_place_and_kind_or_raised(collecting, tmp_path):
    with collecting.row(Where("a.jsonl", 3)):
        raise BadRow("is wrong")
    collecting.problem(Where("b.jsonl"), "is gone", "kind")
    assert collecting.problems == [
        Problem(Where("a.jsonl", 3), "is wrong"),
        Problem(Where("b.jsonl"), "is gone", "kind"),
    ]
    assert [str(problem) for problem in collecting.problems] == ["a.jsonl:3: is wrong", "b.jsonl: is gone"]
    assert collecting.problems[0].kind == "bad row"
    with pytest.raises(ZeroDivisionError), collecting.row(Where("a.jsonl", 4)):
        1 / 0  # noqa: B018
    strict = Intake(tmp_path)
    with pytest.raises(RequestError, match=r"^a\.jsonl:3: is wrong$"), strict.row(Where("a.jsonl", 3)):
        raise BadRow("is wrong")


def test_a_repeatable_passage_is_kept_once_and_must_stay_the_same(collecting):
    with collecting.row(Where("a", 1)):
        collecting.passage("x", "text", "title", repeatable=True)
        collecting.passage("x", "text", "title", repeatable=True)
    for text, title in (("other", "title"), ("text", "other"), ("texttitle", "")):
        with collecting.row(Where("a", 2)):
            collecting.passage("x", text, title, repeatable=True)
    assert [str(problem.where) for problem in collecting.problems] == ["a:2"] * 3
    assert all("stands for another title or text" in problem.reason for problem in collecting.problems)
    assert list(collecting.finish()) == [Passage("x", "text", "title")]


@pytest.mark.parametrize(
    ("passage", "reason"),
    [
        (("", "text"), "'id' is empty"),
        ((" ", "text"), "'id' is empty"),
        (("a", " "), "'text' is empty"),
        (("a", " ", " "), "'text' is empty"),
        (("a\ud800", "text"), "'id' holds half a character"),
        (("a", "\ud800"), "'text' holds half a character"),
        (("a", "text", "\ud800"), "'title' holds half a character"),
    ],
)
def test_passages_that_are_none(passage, reason, collecting):
    with collecting.row(Where("a", 1)):
        collecting.passage(*passage)
    assert reason in collecting.problems[0].reason
    with collecting.row(Where("a", 2)):
        collecting.passage("b", "", "a title alone is enough")
    assert len(collecting.finish()) == 1


def test_places_of_passages_in_several_files(collecting):
    where = [Where("one", 1), Where("two", 7), Where("one", 2**33), Where("three")]
    for number, place in enumerate(where):
        with collecting.row(place):
            collecting.passage(f"p{number}", "text")
    assert len(collecting.finish()) == 4
    assert [collecting.passage_place(row) for row in range(4)] == where
    assert collecting.notes == ["3 passages have the title and text of another passage under another id"]


def asked(id: str, **values) -> Question:
    return Question(id, f"{id}?", **{name: tuple(value) for name, value in values.items()})


def test_what_only_the_whole_can_show(collecting):
    """Doubled passages go; a reference to none is taken out, and the question with it where no gold one is left."""
    for number, name in enumerate(["a", "b", "a", "c"]):
        with collecting.row(Where("corpus", number + 1)):
            collecting.passage(name, f"text {number}")
    questions = [
        asked("1", positive_ids="aa", negative_ids="bb", candidate_ids="abb"),
        asked("2", positive_ids="az", negative_ids="by", candidate_ids="xc"),
        asked("3", positive_ids="z"),
        asked("4", negative_ids="z"),
        dataclasses.replace(asked("1", positive_ids="b"), question="Another?"),
    ]
    for number, question in enumerate(questions):
        with collecting.row(Where("train", number + 1)):
            collecting.question("train", question, "g")
    collecting.split("dev", "dev.jsonl")
    store = collecting.finish()
    assert [(passage.id, passage.text) for passage in store] == [("a", "text 0"), ("b", "text 1"), ("c", "text 3")]
    assert [str(collecting.passage_place(row)) for row in range(3)] == ["corpus:1", "corpus:2", "corpus:4"]
    assert [one.question for one in collecting.splits["train"]] == [
        asked("1", positive_ids="a", negative_ids="b", candidate_ids="ab"),
        asked("2", positive_ids="a", negative_ids="b", candidate_ids="c"),
        asked("4"),
    ]
    assert {one.group for one in collecting.splits["train"]} == {"g"}
    assert [one.where.line for one in collecting.splits["train"]] == [1, 2, 4]
    assert "dev" not in collecting.splits
    assert [(str(problem.where), problem.kind) for problem in collecting.problems] == [
        ("corpus:3", "duplicate passage id"),
        ("train:2", "gold passage missing"),
        ("train:2", "listed passage missing"),
        ("train:2", "listed passage missing"),
        ("train:3", "gold passage missing"),
        ("train:4", "listed passage missing"),
        ("train:5", "bad row"),
        ("dev.jsonl", "empty split"),
    ]
    assert sorted(path.name for path in collecting.folder.iterdir()) == [
        "content_hash",
        "id_hashes.npy",
        "id_rows.npy",
        "passages.arrow",
    ]


def test_remarks_are_said_once_with_their_number_and_first_place(collecting):
    with collecting.row(Where("a", 1)):
        collecting.passage("a", "text")
        collecting.remark("something is odd")
    collecting.remark("something is odd", Where("b", 2))
    collecting.remark("this as well", Where("c", 3))
    collecting.finish()
    assert collecting.notes == ["something is odd (2 times, first a:1)", "this as well (c:3)"]


def test_nothing_usable_says_the_first_problem_or_what_was_odd(tmp_path):
    for number, (collect, said) in enumerate([(True, "; the first problem: a:1: bad$"), (False, r"; odd \(b:2\)$")]):
        (tmp_path / str(number)).mkdir()
        intake = Intake(tmp_path / str(number), collect=True)
        if collect:
            intake.problem(Where("a", 1), "bad")
        intake.remark("odd", Where("b", 2))
        with pytest.raises(RequestError, match=f"not one usable passage in the data{said}"):
            intake.finish()


def test_titles_are_left_out_where_asked(tmp_path):
    """Two passages that differ in their titles only are still two."""
    intake = Intake(tmp_path, titles=False)
    with intake.row(Where("a", 1)):
        intake.passage("a", "text", "one")
        intake.passage("b", "text", "two")
    assert [passage.title for passage in intake.finish()] == ["", ""]


# -- fields --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"), [(7, 7), (7.0, 7), (-3, -3), (7.5, None), (True, None), ("7", None), (None, None)]
)
def test_whole_numbers(value, number):
    assert whole_number(value) == number
    if number is not None:
        assert id_of({"id": value}, "id") == str(number)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: text_of({"a": 1, "b": 2}, "x"), "there is no 'x' (the keys here are 'a', 'b')"),
        (lambda: text_of({}, "x"), "there is no 'x' (the object is empty)"),
        (lambda: text_of({"x": None}, "x"), "'x' is empty"),
        (lambda: text_of({"x": " "}, "x"), "'x' is empty"),
        (lambda: text_of({"x": 1}, "x", required=False), "'x' must be a string, and is 1"),
        (lambda: id_of({"x": [1]}, "x"), "'x' must be a string, and is [1]"),
        (lambda: texts_of({"x": [1]}, "x"), """'x' must be a list of strings, such as ["an answer"], and is [1]"""),
        (lambda: turns_of({"history": "a"}), "'history' must be a list of"),
        (lambda: turns_of({"history": [{"role": "user"}]}), "one entry is {'role': 'user'}"),
        (lambda: turns_of({"history": [{"content": "a"}]}), "has the role None: it must be user or assistant"),
        (lambda: entries({"x": {}}, "x"), "'x' must be a list, and is {}"),
    ],
)
def test_fields_that_are_wrong_are_quoted(read, said):
    with pytest.raises(BadRow) as caught:
        read()
    assert said in str(caught.value)


def test_fields_that_are_there_or_not():
    rows = ({}, {"x": None}, {"x": " "}, {"x": "a"})
    assert [text_of(row, "x", required=False) for row in rows] == ["", "", " ", "a"]
    assert [texts_of(row, "x") for row in ({}, {"x": None}, {"x": []}, {"x": ["a"]})] == [(), (), (), ("a",)]
    assert [entries(row, "x") for row in ({}, {"x": None}, {"x": [1]})] == [[], [], [1]]
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "system")]
    assert turns_of({"history": turns}) == tuple(Turn(turn["role"], turn["role"]) for turn in turns)
    assert turns_of({"said": turns[:1]}, "said") == (Turn("user", "user"),)
    assert turns_of({}) == ()


def test_a_quotation_is_short():
    assert (shown("abc"), shown("x" * 58)) == ("'abc'", f"'{'x' * 58}'")
    assert shown("x" * 59) == f"'{'x' * 58}…"


def test_an_id_made_of_content_is_of_title_and_text():
    assert content_id("a", "b") == content_id("a", "b")
    assert len({content_id("a", "b"), content_id("b", "a"), content_id("ab"), content_id("", "ab")}) == 4


def test_a_passage_inside_a_row(collecting):
    with collecting.row(Where("a", 1)):
        assert take_in(collecting, "ctxs", {"text": "one", "psg_id": 7, "title": "t"}) == "7"
        assert take_in(collecting, "ctxs", {"text": "two"}) == content_id("two") == take_in(collecting, "ctxs", "two")
        assert take_in(collecting, "ctxs", {"body": "three", "key": "k"}, text="body", ids=("no", "key")) == "k"
        assert take_in(collecting, "ctxs", {"id": "elsewhere"}, store=False) == "elsewhere"
    assert [passage.text for passage in collecting.finish()] == ["one", "two", "three"]
    wrong = (
        (7, "'ctxs' must hold objects with a 'text', and one is 7"),
        ({"id": "x"}, "in 'ctxs': there is no 'text'"),
    )
    for context, said in wrong:
        with pytest.raises(BadRow, match=said):
            take_in(collecting, "ctxs", context)


# -- cutting -------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.data())
def test_pieces_have_their_words_and_their_overlap(count, words, data):
    overlap = data.draw(st.integers(0, words - 1))
    text = "\n ".join(f"w{n}" for n in range(count))
    cut = cut_by_words(f" {text} ", words, overlap)
    pieces = [[int(word[1:]) for word in piece.text.split()] for piece in cut]
    assert pieces == [list(range(piece[0], piece[-1] + 1)) for piece in pieces]
    assert all(f" {text} "[piece.start : piece.end] == piece.text for piece in cut)
    assert ([piece[0] for piece in pieces] or [0])[0] == 0
    assert ([piece[-1] for piece in pieces] or [count - 1])[-1] == count - 1
    for piece, after in itertools.pairwise(pieces):
        assert len(piece) == words
        assert after[0] == piece[-1] + 1 - overlap
    if len(pieces) > 1:
        new, step, quarter = pieces[-1][-1] - pieces[-2][-1], words - overlap, max(1, words // 4)
        assert min(step, quarter) <= new < step + quarter, "a rest of less than a quarter is no piece"


def test_passages_are_found_by_id_over_any_number_of_runs(tmp_path, monkeypatch):
    """Hashes of ids are sorted in runs of a block: each run goes behind the ones before it."""
    monkeypatch.setattr(number_columns, "BLOCK", 3)
    ids = [f"p{number}" for number in range(64 * 3)]
    passage_store.write_passages(tmp_path, (Passage(id=name, title="", text=name) for name in ids))
    assert PassageStore(tmp_path).rows(ids[::-1]).tolist() == list(range(len(ids)))[::-1]
