"""Files as people have them: legal, unusual, and read right, or refused with a reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rag_experiments.data.beir import BeirConfig
from rag_experiments.data.dpr import DprConfig
from rag_experiments.data.hub import HubColumns, HubConfig
from rag_experiments.data.intake import Intake
from rag_experiments.data.jsonl import JsonlConfig
from rag_experiments.data.load import RagData, load_data
from rag_experiments.data.localrqa import LocalrqaConfig
from rag_experiments.data.tevatron import TevatronColumns, TevatronConfig
from rag_experiments.errors import RequestError
from tests.data.conftest import write_jsonl
from tests.data.samples import samples

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


# -- tables --------------------------------------------------------------------------------------------


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
    with pytest.raises(RequestError, match=r"data\.files\.tset is no split"):
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
    with pytest.raises(RequestError, match=r"train\.jsonl:1: not valid JSON.*one object a line, without the brackets"):
        load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(RequestError, match=r"data\.path=nope\.jsonl: there is no such file or folder"):
        load_data(HubConfig(path="nope.jsonl"), tmp_path / "cache")
    with pytest.raises(ValueError, match="contexts are the corpus"):
        HubConfig(path="x", columns=HubColumns(context=None))


# -- text ----------------------------------------------------------------------------------------------

ODD = {
    "a line separator": "one\u2028two",
    "a null character": "one\x00two",
    "a form feed": "one\x0ctwo",
    "right to left": "שלום \u202eolleh",
    "an emoji of several parts": "👩‍👩‍👧‍👦 🇨🇭",
    "combining": "e\u0301 is not é",
    "a very long line": "word " * 200_000,
    "tabs and line ends": "a\tb\r\nc",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_text_comes_through(name, native, tmp_path):
    text = ODD[name]
    passages = [{"id": f"p {n}\u00a0é/{n}", "title": text[:40], "text": f"{text} {n}"} for n in range(4)]
    asked = [{"question": text[:60] + f" {n}?", "positive_ids": [passages[n]["id"]]} for n in range(4)]
    folder = native(passages=passages, train=asked[:2], dev=asked[2:3], test=asked[3:])
    data = load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")
    assert data.passages[1].text == f"{text} 1"
    assert data.splits["train"][1].question == asked[1]["question"]


HALF = "half a \ud83d"
HALVES = {
    "relevance": {"relevance": {HALF: 1}},
    "answers": {"answers": [HALF]},
    "question": {"question": HALF},
    "id": {"id": HALF},
    "positive_ids": {"positive_ids": [HALF]},
    "history": {"history": [{"role": "user", "content": HALF}]},
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_character_anywhere_is_named(name, native, tmp_path):
    row = json.dumps({"question": "a?", "positive_ids": ["p0"], **HALVES[name]})
    folder = native(train=[row])
    with pytest.raises(RequestError, match=rf"train\.jsonl:1: '{name}' holds half a character"):
        load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")


def test_half_a_character_in_a_group(tmp_path):
    row = json.dumps({"question": "a?", "context": "b", "part": HALF})
    path = write_jsonl(tmp_path / "train.jsonl", [row])
    with pytest.raises(RequestError, match=r"train\.jsonl:1: 'group' holds half a character"):
        load_data(HubConfig(path=str(path), columns=HubColumns(group="part")), tmp_path / "cache")


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [JsonlConfig, BeirConfig, LocalrqaConfig, DprConfig, TevatronConfig, HubConfig])
def test_a_pickle_is_named_wherever_it_lies(config, tmp_path):
    """As `data.path` itself, and in a folder that has nothing else."""
    import pickle

    path = tmp_path / "documents.pkl"
    path.write_bytes(pickle.dumps([{"text": "x"}]))
    for given in (path, tmp_path):
        with pytest.raises(RequestError, match=r"documents\.pkl is a pickle, and no.* as JSON Lines"):
            load_data(config(path=str(given)), tmp_path / "cache")


def test_a_split_that_is_asked_for_and_not_there(tmp_path):
    samples()["localrqa"].write(tmp_path)
    config = LocalrqaConfig(path=str(tmp_path), splits={"train": "trian", "dev": "eval", "test": "test"})
    with pytest.raises(RequestError, match=r"data\.splits\.train=trian: there is no trian_w_q\.jsonl"):
        load_data(config, tmp_path / "cache")


def test_hub_rows_of_another_format(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [{"question": "a?", "ctxs": []}])
    with pytest.raises(RequestError, match=r"train\.jsonl:1: there is no 'context' \(the columns here are 'question'"):
        load_data(HubConfig(path=str(path)), tmp_path / "cache")
    nested = tmp_path / "squad.json"
    nested.write_text(json.dumps({"data": unanswerable(True)}))
    with pytest.raises(RequestError, match=r"nested SQuAD is read with data\.preset=squad"):
        load_data(HubConfig(path=str(nested)), tmp_path / "cache")


def test_doubled_ids_of_a_large_corpus_are_dropped_where_problems_are_collected(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    intake = Intake(folder, collect=True)
    from rag_experiments.data.lines import Where

    for n in range(5000):
        with intake.row(Where("corpus.jsonl", n + 1)):
            intake.passage(f"p{n % 4000}", f"text {n}")
    store = intake.finish()
    assert len(store) == 4000
    assert len(intake.problems) == 1000
    assert store[3999].text == "text 3999"
    assert intake.passage_place(3999) == Where("corpus.jsonl", 4000)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
