"""Data sets as they are published: legal, unusual, and read right, or refused with a reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.beir import BeirConfig
from rag_experiments.data.formats.dpr import DprConfig
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.tevatron import TevatronColumns, TevatronConfig
from rag_experiments.data.load import RagData, load_data
from tests.data.conftest import write_jsonl

COUNT = 20


def everything(data: RagData) -> list:
    return [question for questions in data.splits.values() for question in questions]


def gold_texts(data: RagData, question) -> list[str]:
    return data.passages.full_texts(data.passages.rows(question.positive_ids))


# -- BEIR ----------------------------------------------------------------------------------------------


def beir(folder: Path, qrels: str, name: str = "test.tsv") -> RagData:
    """Ids are numbers in the JSON; one passage has a title only; the corpus is gzipped."""
    corpus = [{"_id": 100 + n, "title": "", "text": f"text {n}", "metadata": {"url": "x"}} for n in range(COUNT)]
    corpus[0] = {"_id": 100, "title": "only a title", "text": ""}
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n\n" for row in corpus)
    write_jsonl(folder / "queries.jsonl", [{"_id": n, "text": f"what is {n}"} for n in range(COUNT)])
    (folder / "qrels").mkdir()
    (folder / "qrels" / name).write_bytes(qrels.encode())
    return load_data(BeirConfig(path=str(folder)), folder / "cache")


QRELS = {
    "BEIR": "query-id\tcorpus-id\tscore\n" + "".join(f"{n}\t{100 + n}\t1\n" for n in range(COUNT)),
    "without a header": "".join(f"{n}\t{100 + n}\t1\n" for n in range(COUNT)),
    "TREC": "".join(f"{n} 0 {100 + n} 1\n" for n in range(COUNT)),
    "TREC with tabs": "".join(f"{n}\t0\t{100 + n}\t1\n" for n in range(COUNT)),
    "TREC with a header": "qid\titer\tdocid\trel\n" + "".join(f"{n}\tQ0\t{100 + n}\t1\n" for n in range(COUNT)),
    "grades with a point": "".join(f"{n}\t{100 + n}\t1.0\n{n}\t{100 + (n + 1) % COUNT}\t-1\n" for n in range(COUNT)),
    "Windows": "\ufeffquery-id\tcorpus-id\tscore\r\n" + "".join(f"{n}\t{100 + n}\t1\r\n" for n in range(COUNT)),
}


@pytest.mark.parametrize("kind", QRELS)
def test_beir_judgements_of_every_kind(kind, tmp_path):
    data = beir(tmp_path, QRELS[kind])
    assert len(data.splits["test"]) == COUNT
    assert all(q.positive_ids == (str(100 + int(q.id)),) for q in data.splits["test"])
    assert gold_texts(data, data.splits["test"][0]) == ["only a title\n"]


def test_beir_judgements_in_a_txt_file(tmp_path):
    assert len(beir(tmp_path, QRELS["TREC"], "train.txt").splits["train"]) == COUNT - 4


@pytest.mark.parametrize("score", ["0.5", "nan", "inf", "high", ""])
def test_beir_scores_that_are_no_grades(score, tmp_path):
    with pytest.raises(RequestError, match=r"test\.tsv:2: the score must be a whole number, and is '"):
        beir(tmp_path, f"0\t100\t1\n1\t101\t{score}\n")


# -- Tevatron and its relatives ------------------------------------------------------------------------


def test_numbers_as_ids(tmp_path):
    rows = [
        {"query_id": n, "query": f"{n}?", "positive_passages": [{"docid": 7 * n, "text": f"text {n}"}]}
        for n in range(COUNT)
    ]
    data = load_data(TevatronConfig(path=str(write_jsonl(tmp_path / "train.jsonl", rows))), tmp_path / "cache")
    assert {(q.id, q.positive_ids) for q in everything(data)} == {(str(n), (str(7 * n),)) for n in range(COUNT)}


def test_passages_as_plain_strings(tmp_path):
    rows = [{"query": f"{n}?", "pos": [f"text {n}"], "neg": [f"text {(n + 1) % COUNT}"]} for n in range(COUNT)]
    columns = TevatronColumns(positives="pos", negatives="neg")
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    data = load_data(TevatronConfig(path=str(path), columns=columns), tmp_path / "cache")
    assert len(data.passages) == COUNT
    assert all(
        gold_texts(data, q) == [f"text {q.question[:-1]}"] and len(q.negative_ids) == 1 for q in everything(data)
    )


def test_rows_of_ids_name_the_corpus_they_need(tmp_path):
    rows = [{"query": "x?", "positive_document_ids": ["1"], "negative_document_ids": []}]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(RequestError, match=r"train\.jsonl:1: there are ids only .*: data\.corpus names the file"):
        load_data(TevatronConfig(path=str(path)), tmp_path / "cache")


def test_rows_without_passages_say_what_is_missing(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [{"query": "x?", "question": "x?", "answers": ["y"]}])
    with pytest.raises(RequestError, match=r"train\.jsonl:1: there is no 'positive_passages', and no data\.corpus"):
        load_data(TevatronConfig(path=str(path)), tmp_path / "cache")
    with pytest.raises(RequestError, match=r"train\.jsonl:1: there is no 'positive_ctxs' and no 'ctxs'"):
        load_data(DprConfig(path=str(path)), tmp_path / "cache")


# -- SQuAD ---------------------------------------------------------------------------------------------


def unanswerable(nested: bool) -> list[dict]:
    long = " ".join(f"word{n}" for n in range(400))
    qas = [
        {"id": "a", "question": "a?", "answers": [{"text": "word7", "answer_start": 35}], "is_impossible": False},
        {"id": "b", "question": "b?", "answers": [], "plausible_answers": [{"text": "word9", "answer_start": 47}]},
    ]
    qas[1]["is_impossible"] = True
    contexts = [long, "short: word7 and word9"]
    if nested:
        paragraphs = [
            {"context": c, "qas": [{**qa, "id": f"{qa['id']}{n}"} for qa in qas]} for n, c in enumerate(contexts)
        ]
        return [{"title": f"T{n}", "paragraphs": [paragraph]} for n, paragraph in enumerate(paragraphs)]
    return [
        {
            "id": f"{qa['id']}{n}",
            "question": qa["question"],
            "context": context,
            "answers": {
                "text": [answer["text"] for answer in qa["answers"]],
                "answer_start": [answer["answer_start"] for answer in qa["answers"]],
            },
        }
        for n, context in enumerate(contexts)
        for qa in qas
    ]


@pytest.mark.parametrize("kind", ["nested", "flat", "parquet"])
def test_squad_2_leaves_out_what_is_impossible(kind, tmp_path):
    """However long the context is, and in whatever shape it comes."""
    for split in ("train", "dev", "test"):
        if kind == "nested":
            (tmp_path / f"{split}.json").write_text(json.dumps({"version": "v2.0", "data": unanswerable(True)}))
        elif kind == "flat":
            write_jsonl(tmp_path / f"{split}.jsonl", unanswerable(False))
        else:
            import datasets

            datasets.Dataset.from_list(unanswerable(False)).to_parquet(tmp_path / f"{split}.parquet")
    data = load_data(HubConfig(path=str(tmp_path), preset="squad"), tmp_path / "cache")
    assert [q.question for q in data.splits["train"]] == ["a?", "a?"]
    assert any("no answer in its context, and is left out (6 times" in note for note in data.notes)
    assert all("word7" in gold_texts(data, q)[0] for q in data.splits["train"])


def test_pairs_without_answers_and_with_long_contexts_are_told_the_way_out(tmp_path):
    rows = [{"question": f"{n}?", "context": " ".join(f"w{n}x{i}" for i in range(300))} for n in range(COUNT)]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    columns = HubColumns(id=None, title=None, answers=None)
    with pytest.raises(RequestError, match=r"data\.passage_words=null"):
        load_data(HubConfig(path=str(path), columns=columns), tmp_path / "cache")
    data = load_data(HubConfig(path=str(path), columns=columns, passage_words=None), tmp_path / "cache")
    assert len(everything(data)) == COUNT


def test_an_empty_answer_makes_no_passage_gold(tmp_path):
    context = " ".join(f"word{n}" for n in range(400))
    rows = [
        {"question": f"{n}?", "context": context, "answers": {"text": ["", "word390"], "answer_start": [0, 3000]}}
        for n in range(3)
    ]
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    data = load_data(HubConfig(path=str(tmp_path), columns=HubColumns(id=None)), tmp_path / "cache")
    assert all(len(q.positive_ids) == 1 and "word390" in gold_texts(data, q)[0] for q in everything(data))


def test_hub_rows_of_another_format(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [{"question": "a?", "ctxs": []}])
    with pytest.raises(RequestError, match=r"train\.jsonl:1: there is no 'context' \(the columns here are 'question'"):
        load_data(HubConfig(path=str(path)), tmp_path / "cache")
    nested = tmp_path / "squad.json"
    nested.write_text(json.dumps({"data": unanswerable(True)}))
    with pytest.raises(RequestError, match=r"nested SQuAD is read with data\.preset=squad"):
        load_data(HubConfig(path=str(nested)), tmp_path / "cache")


# -- HotpotQA ------------------------------------------------------------------------------------------


def hotpot(number: int, nested: bool) -> dict:
    paragraphs = [(f"Title {n}", [f"Fact {n} is one.", f" It is {n} indeed."]) for n in range(number, number + 4)]
    facts = [(f"Title {number}", 0), (f"Title {number + 2}", 1), (f"Title {number + 2}", 0)]
    row = {"question": f"What is {number}?", "answer": "yes", "type": "bridge", "level": "hard"}
    if nested:
        return {
            **row,
            "id": f"h{number}",
            "context": {"title": [title for title, _ in paragraphs], "sentences": [text for _, text in paragraphs]},
            "supporting_facts": {"title": [title for title, _ in facts], "sent_id": [at for _, at in facts]},
        }
    return {**row, "_id": f"h{number}", "context": paragraphs, "supporting_facts": facts}


@pytest.mark.parametrize("nested", [False, True])
def test_hotpot(nested, tmp_path):
    rows = [hotpot(8 * n, nested) for n in range(COUNT)]
    path = tmp_path / "hotpot_train_v1.1.json"
    path.write_text(json.dumps(rows))
    data = load_data(HubConfig(path=str(path), preset="hotpot"), tmp_path / "cache")
    assert len(data.passages) == 4 * COUNT
    asked = {q.id: q for q in everything(data)}
    assert len(asked) == COUNT
    assert gold_texts(data, asked["h8"]) == [
        "Title 8\nFact 8 is one. It is 8 indeed.",
        "Title 10\nFact 10 is one. It is 10 indeed.",
    ]
    assert len(asked["h8"].negative_ids) == 2
    assert len(asked["h8"].candidate_ids) == 4


def test_hotpot_with_a_fact_of_no_paragraph(tmp_path):
    row = hotpot(0, False)
    row["supporting_facts"].append(["Elsewhere", 0])
    path = write_jsonl(tmp_path / "train.jsonl", [hotpot(8, False), row])
    with pytest.raises(RequestError, match=r"train\.jsonl:2: 'supporting_facts' names 'Elsewhere', and no paragraph"):
        load_data(HubConfig(path=str(path), preset="hotpot"), tmp_path / "cache")


# -- DPR -----------------------------------------------------------------------------------------------


def test_dpr_passages_in_quotes(tmp_path):
    """DPR's own TSV quotes whole cells and doubles the quotes inside."""
    (tmp_path / "psgs.tsv").write_text(
        'id\ttext\ttitle\n1\t"Aaron ( or ; ""Ahärôn"") is a prophet"\tAaron\n2\tplain\tB\n'
    )
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", [{"question": split, "positive_ctxs": [{"passage_id": 1}]}])
    data = load_data(DprConfig(path=str(tmp_path), passages="psgs.tsv"), tmp_path / "cache")
    assert data.passages[0].text == 'Aaron ( or ; "Ahärôn") is a prophet'
