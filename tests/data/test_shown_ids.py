"""Passages without an id of their own: what people see, what is hashed, and files that hold either."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rag_experiments.config import data_formats
from rag_experiments.core.errors import RequestError
from rag_experiments.data import passage_store, shown_ids
from rag_experiments.data.builder import Intake
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.formats.localrqa import LocalrqaConfig
from rag_experiments.data.formats.tevatron import TevatronConfig
from rag_experiments.data.load import RagData, load_data
from rag_experiments.data.passage_store import PassageStore, write_passages
from rag_experiments.data.records import Passage, Question, Where
from rag_experiments.data.row_fields import content_id
from rag_experiments.data.shown_ids import FileLabels, own_ids, shown_rows
from rag_experiments.data.tools.native_writer import write_files, write_native
from tests.data.conftest import write_jsonl

ROWS = 9


def text(number: int) -> str:
    return f"Thing {number} is kept in drawer d{number}."


def tevatron(number: int) -> dict[str, Any]:
    return {
        "query": f"Where is thing {number}?",
        "positive_passages": [{"text": text(number), "title": f"T{number}"}],
        "negative_passages": [
            {"text": text(other), "title": f"T{other}"} for other in ((number + 1) % ROWS, 0) if other
        ],
    }


def written(folder: Path, name: str) -> Any:
    """A data set without passages' ids, in the form `name`; its configuration."""
    numbers = range(ROWS)
    if name == "tevatron":
        write_jsonl(folder / "train.jsonl", map(tevatron, numbers))
        return TevatronConfig(path=str(folder))
    if name == "dpr":
        rows = [
            {"question": f"{n}?", "ctxs": [{"text": text(n), "title": "", "isgold": True}, text(0)]} for n in numbers
        ]
        (folder / "train.json").write_text(json.dumps(rows))
        return DprConfig(path=str(folder))
    if name == "localrqa":
        documents = [{"page_content": text(n), "metadata": {"title": f"T{n}"}} for n in numbers]
        rows = [{"question": f"{n}?", "gold_docs": [documents[n]], "hard_neg_docs": documents[:1]} for n in numbers]
        write_jsonl(folder / "train_w_qa.jsonl", rows)
        return LocalrqaConfig(path=str(folder))
    rows = [{"question": f"{n}?", "context": text(n), "answers": f"d{n}", "bad": [text(0), text(n)]} for n in numbers]
    write_jsonl(folder / "train.jsonl", rows)
    return HubConfig(path=str(folder), columns=HubColumns(negatives="bad"), passage_words=None)


def seen(config: Any, folder: Path) -> dict[str, str]:
    """What is shown, by the text."""
    intake_folder = folder / "intake"
    intake_folder.mkdir()
    intake = Intake(intake_folder)
    data_formats.reader(config.format).read(config, intake)
    return {passage.text: passage.shown_id for passage in intake.finish()}


# -- places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "second", "last"),
    [
        ("tevatron", "train.jsonl:1.positive_passages[0]", "train.jsonl:1.negative_passages[0]",
         "train.jsonl:8.negative_passages[0]"),
        ("dpr", "train.json[1].ctxs[0]", "train.json[2].ctxs[0]", "train.json[9].ctxs[0]"),
        ("localrqa", "train_w_qa.jsonl:1.gold_docs[0]", "train_w_qa.jsonl:2.gold_docs[0]",
         "train_w_qa.jsonl:9.gold_docs[0]"),
        ("hub", "train.jsonl:1.bad[0]", "train.jsonl:2.bad[1]", "train.jsonl:9.bad[1]"),
    ],
)  # fmt: skip
def test_a_passage_is_shown_by_the_place_where_it_is_read_first(name, first, second, last, tmp_path):
    places = seen(written(tmp_path, name), tmp_path)
    assert len(places) == ROWS == len(set(places.values())), "equal texts are one passage, and no two share a place"
    assert [places[text(number)] for number in (0, 1, ROWS - 1)] == [first, second, last]


def test_places_inside_rows_of_every_kind(tmp_path):
    def of(name: str, config: Any) -> dict[str, str]:
        (tmp_path / name).mkdir()
        return seen(config, tmp_path / name)

    words = [" ".join(f"{letter}{n}" for n in range(40)) for letter in "abc"]
    rows = [{"question": "x?", "context": words[0], "answers": "a30"}, {"question": "y?", "context": ["", words[1]]}]
    write_jsonl(tmp_path / "cut" / "train.jsonl", rows)
    cut = seen(HubConfig(path=str(tmp_path / "cut"), passage_words=20), tmp_path / "cut")
    assert list(cut.values())[:2] == ["train.jsonl:1#0", "train.jsonl:1#1"]
    assert list(cut.values())[2:] == ["train.jsonl:2.context[1]#0", "train.jsonl:2.context[1]#1"]

    (tmp_path / "t.csv").write_text(f'question,context\n"x\ny?",{words[0]}\nz?,{words[1]}\n')
    assert list(of("csv", HubConfig(path=str(tmp_path / "t.csv"))).values()) == ["t.csv:2", "t.csv:4"]

    facts = {"question": "x?", "context": [["A", []], ["B", ["One."]]], "supporting_facts": [["B", 0]]}
    write_jsonl(tmp_path / "h.jsonl", [facts])
    hotpot = of("hotpot", HubConfig(path=str(tmp_path / "h.jsonl"), preset="hotpot"))
    assert hotpot == {"One.": "h.jsonl:1.context[1]"}

    (tmp_path / "set.json").write_text(json.dumps({"anchors": ["x?", "y?"], "positives": ["One.", ["Two.", "Six."]]}))
    triplets = of("set", HubConfig(path=str(tmp_path / "set.json")))
    assert triplets["One."] == "set.json:anchors[0].positives"
    assert triplets["Six."] == "set.json:anchors[1].positives[1]"

    article = {"paragraphs": [{"context": "It is red.", "qas": [{"question": "x?", "answers": ["red"]}]}]}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [article]}))
    squad = of("squad", HubConfig(path=str(tmp_path / "squad.json"), preset="squad"))
    assert squad == {"It is red.": "squad.json:data[0].paragraphs[0]"}
    article["paragraphs"][0]["document_id"] = "d7"
    (tmp_path / "squad.json").write_text(json.dumps({"data": [article]}))
    assert of("named", HubConfig(path=str(tmp_path / "squad.json"), preset="squad")) == {"It is red.": "d7#0"}

    story = {"id": "s", "story": "It is red.", "questions": [{"input_text": "x?"}], "answers": [{"input_text": "red"}]}
    (tmp_path / "coqa.json").write_text(json.dumps({"data": [story]}))
    assert of("coqa", HubConfig(path=str(tmp_path / "coqa.json"), preset="coqa")) == {"It is red.": "coqa.json:data[0]"}

    retrieved = {"a/b": {"question": "x?", "contexts": [{"text": "One.", "has_answer": True}]}}
    (tmp_path / "dpr.json").write_text(json.dumps(retrieved))
    assert of("dpr", DprConfig(path=str(tmp_path / "dpr.json"))) == {"One.": "dpr.json['a/b'].contexts[0]"}


def test_own_ids_stay_and_only_the_others_are_places(tmp_path):
    row = {"query": "x?", "positive_passages": [{"docid": 7, "text": "One."}, {"text": "Two."}]}
    write_jsonl(tmp_path / "train.jsonl", [row])
    assert seen(TevatronConfig(path=str(tmp_path)), tmp_path) == {
        "One.": "7",
        "Two.": "train.jsonl:1.positive_passages[1]",
    }


def test_a_document_that_the_corpus_lacks_is_named_by_its_place(tmp_path):
    config = written(tmp_path, "localrqa")
    write_jsonl(
        tmp_path / "documents.jsonl", [{"page_content": text(n), "metadata": {"title": f"T{n}"}} for n in (0, 1)]
    )
    with pytest.raises(
        RequestError, match=r"qa.jsonl:3: positive_ids has 'train_w_qa.jsonl:3.gold_docs\[0\]', and no "
    ):
        load_data(LocalrqaConfig(path=config.path, documents="documents.jsonl"), tmp_path / "cache")


def test_files_of_one_name_in_two_folders_do_not_collide(tmp_path):
    for number, folder in enumerate(("a", "b", "c")):
        write_jsonl(tmp_path / folder / "rows.jsonl", [tevatron(number)])
    files = {"train": "a/rows.jsonl", "dev": "b/rows.jsonl", "test": "c/rows.jsonl"}
    places = seen(TevatronConfig(path=str(tmp_path), files=files), tmp_path)
    assert places[text(0)] == "rows.jsonl:1.positive_passages[0]"
    assert places[text(2)] == "rows.jsonl:1.negative_passages[0]".replace("rows.jsonl", "rows.jsonl(2)")
    assert places[text(3)] == "rows.jsonl(3):1.negative_passages[0]"
    assert len(set(places.values())) == len(places) == 4


def test_a_label_depends_on_names_and_not_on_folders():
    labels = FileLabels()
    assert labels.place(Where("/x/a.jsonl", 3)) == "a.jsonl:3"
    assert labels.place(Where("/y, z/a.jsonl", 3)) == "a.jsonl(2):3"
    assert labels.place(Where("/x/a.jsonl", 4)) == "a.jsonl:4"
    assert labels.place(Where("/x/b.json", inside=": data[0].paragraphs[1]")) == "b.json:data[0].paragraphs[1]"
    assert labels.place(Where("someone/squad", inside=", train[9]")) == "train[9]"


def test_a_place_that_is_an_id_or_a_place_of_another_passage_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(shown_ids, "_BLOCK", 2)
    monkeypatch.setattr(passage_store, "BLOCK", 3)
    intake = Intake(tmp_path)
    with intake.row(Where("a.jsonl", 1)):
        for number, place in enumerate(["a", "b", "p9", "a", "c", "d"]):
            intake.passage(f"h{number}", f"text {number}", place=place)
        intake.passage("p9", "another")
        intake.question("train", Question("q", "x?", positive_ids=("h2", "h3")))
    store = intake.finish()
    assert [passage.shown_id for passage in store] == ["a", "b", "h2", "h3", "c", "d", "p9"]
    assert store.rows(["h2", "h3", "p9"]).tolist() == [2, 3, 6]


# -- what is hashed ----------------------------------------------------------------------------------------

RECORDED = {
    "tevatron": "2314238296953775c5d5fd6672388787",
    "dpr": "620090002507b8e0bcf16baa5881c1ee",
    "localrqa": "1469876b2d5c32e7f1f38df2763e5f2a",
    "hub": "4db9a71e3a3454ab88c3cdf4c2c43e8d",
}
"""Hashes of the data sets above as versions had them in which a passage without an id was shown by its hash."""


@pytest.mark.parametrize("name", RECORDED)
def test_hashes_of_data_are_what_they_were(name, tmp_path):
    data = load_data(written(tmp_path, name), tmp_path / "cache")
    assert data.content_hash == RECORDED[name]
    assert all(passage.id == content_id(passage.text, passage.title) for passage in data.passages)


def test_three_forms_of_a_file_differ_in_places_alone(tmp_path):
    import datasets

    rows = [{"question": f"{n}?", "answers": [f"d{n}"], "context": text(n)} for n in range(20)]
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "train.parquet")
    table.to_csv(tmp_path / "train.csv")
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "saved"))
    columns = HubColumns(id=None, title=None)
    forms = [
        load_data(HubConfig(path=str(tmp_path / name), columns=columns), tmp_path / "cache")
        for name in ("train.parquet", "train.csv", "saved")
    ]
    assert len({data.content_hash for data in forms}) == len({data.corpus_hash for data in forms}) == 1
    assert forms[0].splits == forms[1].splits == forms[2].splits
    shown = [data.passages[2].shown_id for data in forms]
    assert shown == ["train.parquet[3]", "train.csv:4", "train[3]"]


def test_an_import_of_an_earlier_version_opens(tmp_path):
    passages = [Passage("p0", "one", "t", "a.jsonl:1"), Passage("p1", "two")]
    write_passages(tmp_path, passages)
    table = pa.ipc.open_file(pa.py_buffer((tmp_path / "passages.arrow").read_bytes())).read_all()
    table = table.drop_columns(["place"])
    with pa.OSFile(str(tmp_path / "passages.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    store = PassageStore(tmp_path)
    assert list(store) == [store[0], store[1]] == [Passage("p0", "one", "t"), Passage("p1", "two")]
    assert not store.has_places
    assert store.shown_ids(["p0", "else"]) == ["p0", "else"]


def test_a_store_knows_what_is_shown(tmp_path):
    write_passages(tmp_path, [Passage("p0", "one", "t", "a.jsonl:1"), Passage("p1", "two")])
    store = PassageStore(tmp_path)
    assert store.has_places
    assert list(store.places()) == [(0, "a.jsonl:1")]
    assert store.shown_ids(["p1", "p0", "else"]) == ["p1", "a.jsonl:1", "else"]
    assert store.rows(["p0"]).tolist() == [0]


# -- native files ------------------------------------------------------------------------------------------


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_native_files_hold_what_is_shown_and_stay_the_same_data_set(tmp_path):
    data = load_data(written(tmp_path, "tevatron"), tmp_path / "cache")
    write_native(tmp_path / "native", data.passages, data.splits)
    passages, questions = lines(tmp_path / "native" / "passages.jsonl"), lines(tmp_path / "native" / "train.jsonl")
    assert passages[0] == {
        "id": "train.jsonl:1.positive_passages[0]",
        "title": "T0",
        "text": text(0),
        "hashed_as": content_id(text(0), "T0"),
    }
    ids = {row["id"] for row in passages}
    assert all(set(row["positive_ids"] + row.get("negative_ids", [])) <= ids for row in questions)
    again = load_data(JsonlConfig(path=str(tmp_path / "native")), tmp_path / "cache")
    assert again.content_hash == data.content_hash
    assert again.splits == data.splits
    assert list(again.passages) == list(data.passages)


def test_every_list_of_ids_is_written_and_read_as_shown(tmp_path):
    store_folder = tmp_path / "store"
    store_folder.mkdir()
    passages = [Passage(f"h{n}", f"text {n}", "", f"a.csv:{n}" if n < 4 else "") for n in range(6)]
    write_passages(store_folder, passages)
    question = Question(
        "q",
        "x?",
        ("h1",),
        ("h0", "h4"),
        ("h1", "h5"),
        relevance={"h0": 2, "h4": 1},
        scores={"h2": 0.5, "h5": 1.0},
        candidate_ids=("h3", "h4"),
    )
    write_files(tmp_path / "native", PassageStore(store_folder), {"train": [question], "dev": []})
    (row,) = lines(tmp_path / "native" / "train.jsonl")
    assert row == {
        "id": "q", "question": "x?", "answers": ["h1"], "positive_ids": ["a.csv:0", "h4"],
        "negative_ids": ["a.csv:1", "h5"], "candidate_ids": ["a.csv:3", "h4"], "relevance": {"a.csv:0": 2, "h4": 1},
        "scores": {"a.csv:2": 0.5, "h5": 1.0},
    }  # fmt: skip
    assert not (tmp_path / "native" / "dev.jsonl").exists()
    (tmp_path / "native" / "test.jsonl").write_text((tmp_path / "native" / "train.jsonl").read_text())
    (tmp_path / "native" / "train.jsonl").unlink()
    again = load_data(JsonlConfig(path=str(tmp_path / "native")), tmp_path / "cache")
    assert again.splits["test"] == [question]


def test_native_files_of_earlier_versions_have_the_hash_that_they_had(tmp_path):
    """They name passages by their hash, and so may a file that was written beside them."""
    data = load_data(written(tmp_path, "hub"), tmp_path / "cache")
    plain = [Passage(passage.id, passage.text, passage.title) for passage in data.passages]
    write_native(tmp_path / "old", plain, data.splits)
    assert load_data(JsonlConfig(path=str(tmp_path / "old")), tmp_path / "cache").content_hash == data.content_hash
    write_native(tmp_path / "new", data.passages, data.splits)
    (tmp_path / "new" / "train.jsonl").write_text((tmp_path / "old" / "train.jsonl").read_text())
    assert load_data(JsonlConfig(path=str(tmp_path / "new")), tmp_path / "cache").content_hash == data.content_hash


@pytest.mark.parametrize(
    ("passages", "train", "says"),
    [
        ([{"id": "a", "hashed_as": 7, "text": "x"}], {}, "1: 'hashed_as' must be a string, and is 7"),
        ([{"id": "a", "hashed_as": " ", "text": "x"}], {}, "1: 'id' is empty"),
        ([{"id": "a", "hashed_as": "h", "text": "x"}, {"id": "a", "hashed_as": "i", "text": "y"}], {},
         "2: passage id 'a' is used already"),
        ([{"id": "a", "hashed_as": "h", "text": "x"}, {"id": "a", "text": "y"}], {},
         "2: passage id 'a' is used already"),
        ([{"id": "a", "text": "y"}, {"id": "a", "hashed_as": "h", "text": "x"}], {},
         "2: passage id 'a' is used by another passage already"),
        ([{"id": "a", "hashed_as": "h", "text": "x"}, {"id": "b", "hashed_as": "h", "text": "y"}], {},
         "passages.jsonl:2: passage id 'b' is used by"),
        ([{"id": "a", "hashed_as": "h", "text": "x"}], {"negative_ids": ["a"]},
         "train.jsonl:1: 'a' is in positive_ids and in negative_ids"),
        ([{"id": "a", "hashed_as": "h", "text": "x"}], {"negative_ids": ["h"]},
         "train.jsonl:1: 'h' is in positive_ids and in negative_ids"),
        ([{"id": "a", "hashed_as": "h", "text": "x"}], {"candidate_ids": ["b"]},
         "train.jsonl:1: candidate_ids has 'b', and no passage has that id"),
    ],
)  # fmt: skip
def test_native_files_whose_ids_do_not_agree_are_refused(passages, train, says, native, tmp_path):
    folder = native(passages=passages, train=[{"question": "x?", "positive_ids": ["a"], **train}], dev=None, test=None)
    with pytest.raises(RequestError) as refused:
        load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")
    assert says in str(refused.value)


def test_what_is_usable_of_native_files_with_two_equal_ids_is_kept(native, tmp_path):
    passages = [{"id": "a", "text": "y"}, {"id": "a", "hashed_as": "h", "text": "x"}]
    folder = native(passages=passages, train=[{"question": "x?", "positive_ids": ["a"]}], dev=None, test=None)
    (tmp_path / "intake").mkdir()
    intake = Intake(tmp_path / "intake", collect=True)
    config = JsonlConfig(path=str(folder))
    data_formats.reader("jsonl").read(config, intake)
    store = intake.finish()
    assert [passage.shown_id for passage in store] == ["a", "h"]
    assert Counter(problem.kind for problem in intake.problems) == {"duplicate passage id": 1}


# -- predictions -------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> RagData:
    return load_data(written(tmp_path, "hub"), tmp_path / "cache")


def prediction(data: RagData, *rows: int, **more: Any) -> dict[str, Any]:
    ids = data.passages.ids(rows)
    return {"id": "q", "retrieved_ids": ids, "gold_ids": ids[:1], "answer": None, **more}


def test_rows_of_predictions_hold_what_is_shown_and_what_it_is_hashed_as(data):
    row = prediction(data, 2, 0, first_stage_ids=data.passages.ids([0, 3]), given_ids=["else"])
    (shown,) = shown_rows([row], data.passages)
    places = [data.passages[number].place for number in (2, 0, 3)]
    assert shown == {
        "id": "q",
        "retrieved_ids": places[:2],
        "gold_ids": places[:1],
        "answer": None,
        "first_stage_ids": places[1:],
        "given_ids": ["else"],
        "hashed_as": dict(zip(places, data.passages.ids([2, 0, 3]), strict=True)),
    }
    assert row["retrieved_ids"] == data.passages.ids([2, 0]), "what was given is not changed"
    for name in ("retrieved_ids", "first_stage_ids", "given_ids", "gold_ids"):
        assert own_ids(shown, name) == row[name] == own_ids(row, name)
    assert own_ids(shown, "nothing") == []
    assert list(shown_rows([shown], data.passages)) == [shown], "twice is once"


def test_rows_of_another_form_of_the_data_are_shown_by_the_present_one(data, tmp_path):
    row = prediction(data, 1, 2)
    (elsewhere,) = shown_rows([row], data.passages)
    plain = tmp_path / "plain"
    plain.mkdir()
    write_passages(plain, [Passage(passage.id, passage.text) for passage in data.passages])
    assert list(shown_rows([elsewhere], PassageStore(plain))) == [row]


def test_rows_over_passages_with_ids_are_as_they_were(native, tmp_path):
    own = load_data(JsonlConfig(path=str(native())), tmp_path / "cache")
    row = prediction(own, 2, 0)
    assert list(shown_rows([row], own.passages)) == [row]
