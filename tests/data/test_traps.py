"""Real traps: each is handled, and said where the user should know."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.beir import BeirConfig
from rag_experiments.data.formats.cut import cut_by_words, find_answer, piece_at
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.localrqa import LocalrqaConfig
from rag_experiments.data.load import RagData, load_data
from tests.data.conftest import write_jsonl
from tests.data.samples import samples


def squad(tmp_path: Path, articles: list[dict], **keys) -> RagData:
    (tmp_path / "squad.json").write_text(json.dumps({"data": articles}))
    return load_data(HubConfig(path=str(tmp_path / "squad.json"), preset="squad", **keys), tmp_path / "cache")


def article(number: int, words: int = 4000, shift: int = 0) -> dict:
    """Long: 4,000 words are about 40,000 characters."""
    context = " ".join(f"a{number}word{n}" for n in range(words))
    questions = []
    for n in range(5, words, words // 4):
        answer = f"a{number}word{n}"
        entry = {"text": answer, "answer_start": max(0, context.index(answer + " ") + shift)}
        questions.append({"id": f"{number}-{n}", "question": f"Where is {answer}?", "answers": [entry]})
    return {"paragraphs": [{"context": context, "document_id": number, "qas": questions}]}


def everything(data: RagData) -> list:
    return [question for questions in data.splits.values() for question in questions]


def test_long_contexts_are_cut_and_gold_is_where_the_answer_begins(tmp_path):
    articles = [article(n) for n in range(10)]
    assert len(articles[0]["paragraphs"][0]["context"]) > 40_000
    data = squad(tmp_path, articles)
    assert all(len(passage.text.split()) <= 225 for passage in data.passages)
    for question in everything(data):
        (gold,) = data.passages.full_texts(data.passages.rows(question.positive_ids))
        assert question.answers[0] in gold.split()
    by_article = [{q.positive_ids[0].split("#")[0] for q in questions} for questions in data.splits.values()]
    assert not by_article[0] & by_article[1]
    assert not by_article[0] & by_article[2]
    assert not by_article[1] & by_article[2]
    assert data.passages[0].id == "0#0"


def test_offsets_that_point_elsewhere(tmp_path):
    data = squad(tmp_path, [article(n, shift=0 if n else 37) for n in range(10)])
    assert any("offset does not point at it: its nearest occurrence is used (4 times" in n for n in data.notes)
    for question in everything(data):
        (gold,) = data.passages.full_texts(data.passages.rows(question.positive_ids))
        assert question.answers[0] in gold.split()


def test_spaces_around_an_answer_are_no_wrong_offset_but_said(tmp_path):
    articles = [article(n) for n in range(10)]
    asked = articles[0]["paragraphs"][0]["qas"][0]["answers"][0]
    asked["text"] = f" {asked['text']}"
    data = squad(tmp_path, articles)
    assert any("spaces around it that its context does not have: they are removed (" in note for note in data.notes)
    assert not any("offset does not point" in note for note in data.notes)
    assert all(question.answers[0] == question.answers[0].strip() for question in everything(data))


def test_find_answer():
    text = "one two one  two\nthree"
    assert find_answer(text, "two", 4) == (4, True)
    assert find_answer(text, " two ", 3) == (4, True), "spaces around an answer are no mistake"
    assert find_answer(text, "two", 11) == (13, True)
    assert find_answer(text, "one", 9) == (8, False)
    assert find_answer(text, "Two Three", None) == (13, True), "case and line ends aside"
    assert find_answer(text, "four", 3) == (None, False)
    assert find_answer(text, "two", 999) == (13, False)
    assert find_answer(text, "two", -5)[0] == 4


@pytest.mark.parametrize(("words", "overlap"), [(10, 0), (10, 3), (50, 49), (400, 0)])
def test_cutting_loses_nothing(words, overlap):
    text = "  ".join(f"w{n}" for n in range(123)) + "\n"
    pieces = cut_by_words(text, words, overlap)
    assert {word for piece in pieces for word in piece.text.split()} == set(text.split())
    assert all(text[piece.start : piece.end] == piece.text for piece in pieces)
    assert [piece_at(pieces, piece.start) for piece in pieces] == list(range(len(pieces)))


def test_graded_judgements_and_several_golds(tmp_path):
    sample = samples()["beir"]
    sample.write(tmp_path)
    data = load_data(BeirConfig(path=str(tmp_path)), tmp_path / "cache")
    question = next(question for question in everything(data) if question.id == "4")
    assert question.positive_ids == ("c4", "c5")
    assert question.relevance == {"c4": 2, "c5": 1, "c6": 0}


def test_unjudged_queries_are_said(tmp_path):
    samples()["beir"].write(tmp_path)
    with open(tmp_path / "queries.jsonl", "a", encoding="utf-8") as file:
        file.write('{"_id": "extra", "text": "Never judged?"}\n')
    data = load_data(BeirConfig(path=str(tmp_path)), tmp_path / "cache")
    assert any("judged in no split" in note and "queries.jsonl:25" in note for note in data.notes)


def test_two_files_that_number_questions_differently(tmp_path):
    samples()["localrqa"].write(tmp_path)
    data = load_data(LocalrqaConfig(path=str(tmp_path)), tmp_path / "cache")
    asked = everything(data)
    assert len(asked) == 48
    answered = [question for question in asked if question.question.startswith("Where")]
    assert len(answered) == 24
    assert all(question.answers for question in answered), "the line with the answer is the one kept"
    assert any("several lines" in note for note in data.notes)
    for question in answered:
        (gold,) = data.passages.full_texts(data.passages.rows(question.positive_ids))
        assert question.answers[0] + "," in gold


def test_the_same_passage_under_two_ids(tmp_path, native):
    from rag_experiments.data.formats.jsonl import JsonlConfig

    rows = [{"id": f"{copy}{n}", "text": f"text {n}"} for n in range(30) for copy in "ab"]
    train = [{"question": f"{copy} {n}?", "positive_ids": [f"{copy}{n}"]} for n in range(30) for copy in "ab"]
    folder = native(passages=rows, train=train, dev=None, test=None)
    data = load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")
    assert "30 passages have the title and text of another passage under another id" in data.notes
    sides = [{q.positive_ids[0][1:] for q in questions} for questions in data.splits.values()]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]


@pytest.mark.parametrize("name", samples())
def test_byte_order_mark_and_windows_line_ends(name, tmp_path):
    """In every file of every format: the data set stays the same."""
    sample = samples()[name]
    sample.write(tmp_path)
    before = load_data(sample.config(tmp_path), tmp_path / "cache")
    for path in [path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts]:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            content = b"\xef\xbb\xbf" + file.read().replace(b"\n", b"\r\n")
        with opener(path, "wb") as file:
            file.write(content)
    after = load_data(sample.config(tmp_path), tmp_path / "cache")
    assert after.content_hash == before.content_hash
    assert len(list((tmp_path / "cache" / "data").glob("*.lock"))) == 2, "it was read again, not found in the cache"


def test_one_id_for_two_passages(tmp_path):
    rows = [
        {"question": "a?", "positive_ctxs": [{"passage_id": "1", "title": "", "text": "one"}]},
        {"question": "b?", "positive_ctxs": [{"passage_id": "1", "title": "", "text": "two"}]},
    ]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(RequestError, match=r"train\.jsonl:2: in 'positive_ctxs': passage id '1' stands for another"):
        load_data(DprConfig(path=str(path)), tmp_path / "cache")


def test_gold_that_is_listed_as_negative(tmp_path):
    context = {"title": "", "text": "one"}
    rows = [
        {
            "question": f"{n}?",
            "positive_ctxs": [{**context, "text": f"{n}"}],
            "hard_negative_ctxs": [{**context, "text": f"{n}"}],
        }
        for n in range(20)
    ]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    data = load_data(DprConfig(path=str(path)), tmp_path / "cache")
    assert all(not question.negative_ids for question in everything(data))
    assert any("gold passage is listed as a hard negative too" in note for note in data.notes)


def test_parquet_csv_and_saved_folder_are_one_data_set(tmp_path):
    import datasets

    rows = [{"question": f"What is {n}?", "answers": [f"n{n}"], "context": f"It is n{n}."} for n in range(20)]
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "train.parquet")
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "saved"))
    write_jsonl(tmp_path / "lines" / "train.jsonl", rows)
    columns = HubColumns(id=None, title=None)
    hashes = {
        load_data(HubConfig(path=str(tmp_path / name), columns=columns), tmp_path / "cache").content_hash
        for name in ("train.parquet", "saved", "lines")
    }
    assert len(hashes) == 1


def test_a_name_that_is_neither_here_nor_on_the_hub(tmp_path):
    with pytest.raises(RequestError, match="there is no such file or folder"):
        load_data(HubConfig(path="./nowhere/at/all"), tmp_path / "cache")
    with pytest.raises(RequestError, match=r"data\.path=nobody/nothing: no file or folder of that name"):
        load_data(HubConfig(path="nobody/nothing"), tmp_path / "cache")


def test_tsv_keeps_quotes(tmp_path):
    (tmp_path / "psgs.tsv").write_text('id\ttext\ttitle\n1\t"Never" he said, "never\tA "title\n')
    write_jsonl(tmp_path / "train.jsonl", [{"question": "x", "positive_ctxs": [{"passage_id": "1"}]}])
    for name in ("dev", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"question": "y", "positive_ctxs": [{"passage_id": 1}]}])
    data = load_data(DprConfig(path=str(tmp_path), passages="psgs.tsv"), tmp_path / "cache")
    assert data.passages[0].full_text == 'A "title\n"Never" he said, "never'
