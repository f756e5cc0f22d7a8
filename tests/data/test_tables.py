"""CSV, Parquet, JSON and folders of them as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import RagData, load_data
from tests.data.conftest import write_jsonl

COUNT = 20


def everything(data: RagData) -> list:
    return [question for questions in data.splits.values() for question in questions]


def csv_data(tmp_path: Path, text: str, **keys) -> RagData:
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    columns = HubColumns(id=None, title=None)
    return load_data(HubConfig(path=str(tmp_path / "train.csv"), columns=columns, **keys), tmp_path / "cache")


def test_csv_cells_over_several_lines_and_lists_in_cells(tmp_path):
    rows = [f'"{n}?","It is\nn{n}, she ""said"".","[\'n{n}\', ""it\'s n{n}""]"\n' for n in range(COUNT)]
    rows[1] = '"1?","It is\nn1.","[""n1"", ""one""]"\n'
    rows[2] = '"2?","It is n2.","{""text"": [""n2""], ""answer_start"": [6]}"\n'
    rows[3] = "3?,It is n3 [3],[3]\n"
    asked = {q.question: q for q in everything(csv_data(tmp_path, "question,context,answers\n" + "".join(rows)))}
    assert asked["0?"].answers == ("n0", "it's n0")
    assert asked["1?"].answers == ("n1", "one")
    assert asked["2?"].answers == ("n2",)
    assert asked["3?"].answers == ("[3]",)


CSV = {
    "a quote that is never closed": (
        'a?,b,c\n"d?,e,f\ng?,h,i\n',
        r"csv:3: not readable as CSV: a quote is opened here",
    ),
    "a cell too many": ("a?,b,c\nd?,e,f,g\n", r"csv:3: 4 columns where the header has 3"),
    "after a cell of two lines": ('a?,"b\nb",c\nd?,e\n', r"csv:4: 2 columns where the header has 3"),
    "no question": ("a?,b,c\n,e,f\n", r"csv:3: 'question' is empty"),
    "a missing column": ("", r"csv:2: there is no 'context' \(the columns here are 'question', 'text'"),
    "a column twice": ("", r"csv:1: two columns are called 'context'"),
}


@pytest.mark.parametrize("name", CSV)
def test_csv_that_is_wrong(name, tmp_path):
    rows, message = CSV[name]
    header = "question,context,answers\n"
    if name == "a missing column":
        header, rows = "question,text\n", "a?,b\n"
    if name == "a column twice":
        header, rows = "question,context,context\n", "a?,b,c\n"
    with pytest.raises(RequestError, match=message):
        csv_data(tmp_path, header + rows)


def test_parquet_with_nulls_and_numbers(tmp_path):
    import datasets

    rows = [
        {
            "id": None if n % 2 else n,
            "score": float("nan"),
            "question": f"{n}?",
            "context": f"It is n{n}.",
            "answers": None if n % 3 else [f"n{n}"],
            "title": None,
        }
        for n in range(COUNT)
    ]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    data = load_data(HubConfig(path=str(tmp_path / "train.parquet")), tmp_path / "cache")
    asked = everything(data)
    assert len(asked) == COUNT
    assert {"0", "train-2"} <= {q.id for q in asked}
    assert sum(bool(q.answers) for q in asked) == 7


def test_ids_out_of_a_column_of_floats(tmp_path):
    import datasets

    rows = [{"id": None if n == 3 else float(n), "question": f"{n}?", "context": f"It is n{n}."} for n in range(COUNT)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    asked = everything(load_data(HubConfig(path=str(tmp_path / "train.parquet")), tmp_path / "cache"))
    assert {q.id for q in asked} == {"train-4", *(str(n) for n in range(COUNT) if n != 3)}


def test_parquet_with_what_python_cannot_hold(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    far = pa.array([2**62], pa.timestamp("us"))
    parquet.write_table(pa.table({"question": ["a?"], "context": ["b"], "asked": far}), tmp_path / "train.parquet")
    with pytest.raises(RequestError, match=r"train\.parquet\[1\]: not readable as Parquet"):
        load_data(HubConfig(path=str(tmp_path / "train.parquet")), tmp_path / "cache")


def test_parquet_row_without_a_question(tmp_path):
    import datasets

    rows = [{"question": "a?", "context": "b", "answers": "b"}, {"question": None, "context": "b", "answers": "b"}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(RequestError, match=r"train\.parquet\[2\]: 'question' is empty"):
        load_data(HubConfig(path=str(tmp_path / "train.parquet")), tmp_path / "cache")


def shards(folder: Path) -> None:
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        rows = [{"question": f"{shard} {n}?", "context": f"It is {shard} {n}."} for n in range(COUNT)]
        datasets.Dataset.from_list(rows).to_parquet(folder / f"train-{shard:05}-of-00002.parquet")


@pytest.mark.parametrize("inside", [".", "data", "plain_text"])
def test_a_repository_of_the_hub_as_it_was_downloaded(inside, tmp_path):
    shards(tmp_path / inside)
    data = load_data(HubConfig(path=str(tmp_path), name="plain_text"), tmp_path / "cache")
    assert len(everything(data)) == 2 * COUNT
    assert len({q.id for q in everything(data)}) == 2 * COUNT


def test_files_by_a_pattern(tmp_path):
    for part in range(3):
        rows = [{"question": f"{part} {n}?", "context": f"It is {part} {n}."} for n in range(COUNT)]
        write_jsonl(tmp_path / f"part-{part}.ndjson", rows)
    data = load_data(HubConfig(path=str(tmp_path), files={"train": "part-*.ndjson"}), tmp_path / "cache")
    assert len(everything(data)) == 3 * COUNT
    with pytest.raises(RequestError, match=r"data\.files\.train=prat-\*: there is no such file"):
        load_data(HubConfig(path=str(tmp_path), files={"train": "prat-*"}), tmp_path / "cache")
    with pytest.raises(RequestError, match=r"data\.files\.tset is not a split"):
        load_data(DprConfig(path=str(tmp_path), files={"tset": "part-0.ndjson"}), tmp_path / "cache")


def test_one_file_is_train_and_others_are_named_beside_it(tmp_path):
    rows = [{"question": f"{n}?", "positive_ctxs": [f"It is {n}."]} for n in range(COUNT)]
    write_jsonl(tmp_path / "one.jsonl", rows)
    write_jsonl(tmp_path / "two.jsonl", rows[:3])
    config = DprConfig(path=str(tmp_path / "one.jsonl"), files={"test": "two.jsonl"})
    assert len(load_data(config, tmp_path / "cache").splits["test"]) == 3
    config = DprConfig(path=str(tmp_path / "one.jsonl"), files={"train": "two.jsonl"})
    with pytest.raises(RequestError, match=r"is a file, the train split, and data\.files\.train names another"):
        load_data(config, tmp_path / "cache")


def test_json_lines_called_json_keep_their_line_numbers(tmp_path):
    (tmp_path / "train.json").write_text('{"question": "a?", "context": "b"}\n\n{"question": "", "context": "b"}\n')
    with pytest.raises(RequestError, match=r"train\.json:3: 'question' is empty"):
        load_data(HubConfig(path=str(tmp_path / "train.json")), tmp_path / "cache")


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_list_called_jsonl(indent, tmp_path):
    rows = [{"question": f"{n}?", "context": f"It is {n}."} for n in range(COUNT)]
    (tmp_path / "train.jsonl").write_text(json.dumps(rows, indent=indent))
    assert len(everything(load_data(HubConfig(path=str(tmp_path)), tmp_path / "cache"))) == COUNT


def test_a_json_list_where_lines_are_wanted(native, tmp_path):
    folder = native(train=["[", '{"question": "a?"},', '{"question": "b?"}', "]"])
    with pytest.raises(
        RequestError, match=r"train\.jsonl:1: not valid JSON.*one object per line, without the brackets"
    ):
        load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(RequestError, match=r"data\.path=nope\.jsonl: there is no such file or folder"):
        load_data(HubConfig(path="nope.jsonl"), tmp_path / "cache")
    with pytest.raises(ValueError, match="contexts are the corpus"):
        HubConfig(path="x", columns=HubColumns(context=None))
