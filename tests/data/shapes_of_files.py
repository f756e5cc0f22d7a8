"""Files as people have them, in twenty shapes and more: how each is written, and what is to be understood.

All hold the same questions, so that what was read can be compared with them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COUNT = 24


def text(number: int) -> str:
    return f"Thing number {number} is kept in the drawer called d{number}, says the list."


def question(number: int) -> str:
    return f"Where is thing {number} kept?"


def answer(number: int) -> str:
    return f"d{number}"


@dataclass
class Shape:
    """One shape of files."""

    write: Callable[[Path], Path]
    """Writes into a folder and returns the path that is typed."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Keys under `data:` that are to be found."""
    asks: str = ""
    """Part of the sentence that asks instead."""
    answered: bool = True
    """Whether the questions have answers."""


def table(name: str, header: Sequence[str], cells: Callable[[int], Sequence[Any]], delimiter: str = ",") -> Any:
    def write(folder: Path) -> Path:
        path = folder / name
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(header)
            writer.writerows(cells(n) for n in range(COUNT))
        return path

    return write


def lines(name: str, row: Callable[[int], dict[str, Any]]) -> Any:
    def write(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(COUNT)), encoding="utf-8")
        return path

    return write


def whole(name: str, value: Callable[[], Any]) -> Any:
    def write(folder: Path) -> Path:
        (folder / name).write_text(json.dumps(value()), encoding="utf-8")
        return folder / name

    return write


def _squad_answers(number: int) -> dict[str, list[Any]]:
    return {"text": [answer(number)], "answer_start": [text(number).index(f"{answer(number)},")]}


def _squad() -> dict[str, Any]:
    articles = []
    for n in range(COUNT):
        answers = [{"text": answer(n), "answer_start": _squad_answers(n)["answer_start"][0]}]
        paragraph = {"context": text(n), "qas": [{"id": f"s{n}", "question": question(n), "answers": answers}]}
        articles.append({"title": f"Thing {n}", "paragraphs": [paragraph]})
    return {"version": "1.1", "data": articles}


def _beir(folder: Path) -> Path:
    lines("corpus.jsonl", lambda n: {"_id": f"c{n}", "title": "", "text": text(n)})(folder)
    lines("queries.jsonl", lambda n: {"_id": f"q{n}", "text": question(n)})(folder)
    (folder / "qrels").mkdir()
    judged = "".join(f"q{n}\tc{n}\t1\n" for n in range(COUNT))
    (folder / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


def _native(folder: Path) -> Path:
    lines("passages.jsonl", lambda n: {"id": f"p{n}", "text": text(n)})(folder)
    row = lambda n: {"question": question(n), "answers": [answer(n)], "positive_ids": [f"p{n}"]}  # noqa: E731
    lines("train.jsonl", row)(folder)
    return folder


def _documents(folder: Path) -> Path:
    (folder / "guides").mkdir()
    for n in range(COUNT):
        (folder / "guides" / f"thing{n}.md").write_text(f"# Thing {n}\n\n{text(n)}\n", encoding="utf-8")
    return folder


def _asked_documents(folder: Path) -> Path:
    _documents(folder)
    lines(
        "asked.jsonl", lambda n: {"question": question(n), "answers": [answer(n)], "document": f"guides/thing{n}.md"}
    )(folder)
    return folder


def _parquet(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [{"Query": question(n), "Ground Truth": [answer(n)], "Evidence": text(n)} for n in range(COUNT)]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def _arrow(folder: Path) -> Path:
    import pyarrow as pa

    made = pa.Table.from_pylist([{"query": question(n), "answer": answer(n), "passage": text(n)} for n in range(COUNT)])
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return folder / "data.arrow"


def _saved(folder: Path) -> Path:
    import datasets

    rows = [{"prompt": question(n), "completion": answer(n), "document": text(n)} for n in range(COUNT)]
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def _llama_index() -> dict[str, Any]:
    return {
        "queries": {f"q{n}": question(n) for n in range(COUNT)},
        "corpus": {f"c{n}": text(n) for n in range(COUNT)},
        "relevant_docs": {f"q{n}": [f"c{n}"] for n in range(COUNT)},
    }


def _hotpot(number: int) -> dict[str, Any]:
    other = (number + 1) % COUNT
    paragraphs = [[f"T{n}", [text(n)]] for n in (number, other)]
    named = {"context": paragraphs, "supporting_facts": [[f"T{number}", 0]]}
    return {"_id": f"h{number}", "question": question(number), "answer": answer(number), **named}


def _two_splits(folder: Path) -> Path:
    row = lambda n: {"query": question(n), "response": answer(n), "contexts": [text(n)]}  # noqa: E731
    lines("my-train.jsonl", row)(folder)
    lines("my-test.jsonl", lambda n: {**row(n), "query": f"And {question(n)}"})(folder)
    return folder


def _one_in_a_folder(folder: Path) -> Path:
    table("export of may.csv", ("question", "answer", "context"), lambda n: (question(n), answer(n), text(n)))(folder)
    return folder


def _excel(folder: Path) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["Questions of May"])
    sheet = book.create_sheet("Questions")
    sheet.append(["as of", "2024-05-02"])
    sheet.append(["Question", "Answer", "Source text"])
    for n in range(COUNT):
        sheet.append([question(n), answer(n), text(n)])
    book.save(folder / "a.xlsx")
    return folder / "a.xlsx"


def _windows(folder: Path) -> Path:
    path = table("a.csv", ("question", "answer", "context"), lambda n: (f"“{question(n)}”", answer(n), text(n)))(folder)
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp1252"))
    return path


def _bytes(name: str, content: bytes) -> Any:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _columns(**names: Any) -> dict[str, Any]:
    return {"format": "hub", "columns": names}


_MESSAGES = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]}

SHAPES: dict[str, Shape] = {
    "CSV with capitals": Shape(
        table("a.csv", ("ID", "Question", "Answer", "Context"), lambda n: (n, question(n), answer(n), text(n))),
        _columns(id="ID", question="Question", answers="Answer", context="Context"),
    ),
    "CSV with semicolons": Shape(
        table("a.csv", ("question", "answer", "context"), lambda n: (question(n), answer(n), text(n)), ";"),
        _columns(question="question", answers="answer", context="context"),
    ),
    "TSV": Shape(
        table("a.tsv", ("query", "ground-truth", "passage"), lambda n: (question(n), answer(n), text(n)), "\t"),
        _columns(question="query", answers="ground-truth", context="passage"),
    ),
    "JSON list of SQuAD's rows": Shape(
        whole("a.json", lambda: [
            {"id": f"s{n}", "question": question(n), "context": text(n), "answers": _squad_answers(n)}
            for n in range(COUNT)
        ]),
        {"format": "hub", "preset": "squad"},
    ),
    "SQuAD": Shape(whole("dev.json", _squad), {"format": "hub", "preset": "squad"}),
    "messages": Shape(
        lines("a.jsonl", lambda n: _MESSAGES), asks="'messages' holds conversations, and no column the texts"
    ),
    "FlagEmbedding": Shape(
        lines("a.jsonl", lambda n: {"query": question(n), "pos": [text(n)], "neg": [text((n + 1) % COUNT)]}),
        {"format": "tevatron", "columns": {"question": "query", "positives": "pos", "negatives": "neg"}},
        answered=False,
    ),
    "sentence-transformers": Shape(
        lines("a.jsonl", lambda n: {"anchor": question(n), "positive": text(n), "negative": text((n + 1) % COUNT)}),
        {**_columns(question="anchor", context="positive", negatives="negative"), "passage_words": None},
        answered=False,
    ),
    "sentences with a label": Shape(
        table("a.csv", ("sentence1", "sentence2", "label"), lambda n: (question(n), text(n), n % 2)),
        asks="'label' judges each pair",
    ),
    "Alpaca": Shape(
        whole("a.json", lambda: [
            {"instruction": question(n), "input": text(n), "output": answer(n)} for n in range(COUNT)
        ]),
        _columns(question="instruction", context="input", answers="output"),
    ),
    "ragas": Shape(
        lines("a.jsonl", lambda n: {
            "question": question(n), "contexts": [text(n)], "answer": "something else", "ground_truth": answer(n)
        }),
        _columns(question="question", context="contexts", answers="ground_truth"),
    ),
    "DPR": Shape(
        whole("a.json", lambda: [
            {"question": question(n), "answers": [answer(n)], "positive_ctxs": [{"title": "", "text": text(n)}]}
            for n in range(COUNT)
        ]),
        {"format": "dpr"},
    ),
    "BEIR": Shape(_beir, {"format": "beir"}, answered=False),
    "native": Shape(_native, {"format": "jsonl"}),
    "documents": Shape(_documents, {"format": "documents"}),
    "documents with questions": Shape(_asked_documents, {"format": "documents", "questions": "asked.jsonl"}),
    "Parquet": Shape(_parquet, _columns(question="Query", answers="Ground Truth", context="Evidence")),
    "Arrow": Shape(_arrow, _columns(question="query", answers="answer", context="passage")),
    "save_to_disk": Shape(_saved, _columns(question="prompt", answers="completion", context="document")),
    "LlamaIndex": Shape(whole("a.json", _llama_index), {"format": "hub"}, answered=False),
    "HotpotQA": Shape(
        whole("a.json", lambda: [_hotpot(n) for n in range(COUNT)]), {"format": "hub", "preset": "hotpot"}
    ),
    "objects with texts": Shape(
        lines("a.jsonl", lambda n: {"query": question(n), "gold_answer": answer(n), "document": {"text": text(n)}}),
        _columns(question="query", answers="gold_answer", context="document.text"),
    ),
    "lists of objects": Shape(
        lines("a.jsonl", lambda n: {"q_id": n, "question": question(n), "answer": answer(n),
                                    "passages": [{"id": f"p{n}", "content": text(n)}]}),
        {"format": "tevatron", "columns": {"id": "q_id", "question": "question", "answers": "answer",
                                           "positives": "passages", "passage_text": "content"}},
    ),
    "a folder with splits": Shape(_two_splits, _columns(question="query", answers="response", context="contexts")),
    "a folder with one file": Shape(
        _one_in_a_folder,
        {**_columns(question="question", answers="answer", context="context"),
         "files": {"train": "export of may.csv"}},
    ),
    "question and answer only": Shape(
        table("a.csv", ("question", "answer"), lambda n: (question(n), answer(n))),
        asks="no column has a usual name for the text that answers it",
    ),
    "two contexts": Shape(
        table("a.csv", ("question", "answer", "passage", "Evidence"),
              lambda n: (question(n), answer(n), text(n), f"Some more about {n}.")),
        asks="'passage' and 'Evidence' could both be the context: type data.columns.context=passage or "
        "data.columns.context=Evidence",
    ),
    "two questions": Shape(
        table("a.csv", ("question", "query", "context"), lambda n: (question(n), question(n), text(n))),
        asks="could both be the question: type data.columns.question=question or data.columns.question=query",
    ),
    "no usual name": Shape(
        table("a.csv", ("kysymys", "vastaus"), lambda n: (question(n), answer(n))),
        asks="no column has a usual name for the question (the columns are 'kysymys', 'vastaus'): type "
        "data.columns.question=<column>, and so data.columns.context=<column> and data.columns.answers=<column>",
    ),
    "names with a usual word": Shape(
        table("a.csv", ("User question (EN)", "Text (manual)", "Answer"), lambda n: (question(n), text(n), answer(n))),
        asks="type 'data.columns.question=User question (EN)', and so 'data.columns.context=Text (manual)'",
    ),
    "no header": Shape(
        table("a.csv", (question(0), f"It is in {answer(0)}, as a rule, unless somebody took it out", text(0)),
              lambda n: (question(n), answer(n), text(n))),
        asks="which look like a row: a table needs a first line of names",
    ),
    "German columns": Shape(
        table("a.csv", ("Frage", "Antwort", "Kontext"), lambda n: (question(n), answer(n), text(n))),
        _columns(question="Frage", answers="Antwort", context="Kontext"),
    ),
    "names of files beside texts": Shape(
        table("a.csv", ("question", "document", "context"), lambda n: (question(n), f"manual_{n}.pdf", text(n))),
        {**_columns(question="question", context="context"), "passage_words": None},
        answered=False,
    ),
    "LocalRQA's file": Shape(
        lines("train_w_qa.jsonl", lambda n: {"question": question(n), "gold_docs": [{"page_content": text(n)}]}),
        asks="type data=localrqa and the folder",
    ),
    "pandas' object of columns": Shape(
        whole("a.json", lambda: {"question": {str(n): question(n) for n in range(COUNT)},
                                 "answer": {str(n): answer(n) for n in range(COUNT)},
                                 "context": {str(n): text(n) for n in range(COUNT)}}),
        _columns(question="question", answers="answer", context="context"),
    ),
    "columns as lists": Shape(
        whole("a.json", lambda: {"query": [question(n) for n in range(COUNT)],
                                 "answers": [[answer(n)] for n in range(COUNT)],
                                 "passage": [text(n) for n in range(COUNT)]}),
        _columns(question="query", answers="answers", context="passage"),
    ),
    "pandas' split": Shape(
        whole("a.json", lambda: {"columns": ["query", "answer", "passage"], "index": [*range(COUNT)],
                                 "data": [[question(n), answer(n), text(n)] for n in range(COUNT)]}),
        _columns(question="query", answers="answer", context="passage"),
    ),
    "rows under a name": Shape(
        whole("a.json", lambda: {"version": 2, "data": [
            {"query": question(n), "answer": answer(n), "passage": text(n)} for n in range(COUNT)
        ]}),
        _columns(question="query", answers="answer", context="passage"),
    ),
    "rows of SQuAD under a name": Shape(
        whole("a.json", lambda: {"data": [
            {"question": question(n), "context": text(n), "answers": _squad_answers(n)} for n in range(COUNT)
        ]}),
        {"format": "hub", "preset": "squad"},
    ),
    "the hub's viewer": Shape(
        whole("a.json", lambda: {"features": [], "rows": [
            {"row_idx": n, "row": {"query": question(n), "answer": answer(n), "passage": text(n)}} for n in range(COUNT)
        ]}),
        _columns(question="query", answers="answer", context="passage"),
    ),
    "rows by their ids": Shape(
        whole("a.json", lambda: {f"q{n}": {"question": question(n), "answer": answer(n), "passage": text(n)}
                                 for n in range(COUNT)}),
        _columns(id="id", question="question", answers="answer", context="passage"),
    ),
    "messages with their context": Shape(
        lines("a.jsonl", lambda n: {"messages": [_turn("system", "Be short."), _turn("user", "Hello?"),
                                                 _turn("assistant", "Yes."), _turn("user", question(n)),
                                                 _turn("assistant", answer(n))], "context": text(n)}),
        {**_columns(question="messages", context="context"), "passage_words": None},
    ),
    "prompt and completion of turns": Shape(
        lines("a.jsonl", lambda n: {"prompt": [_turn("user", question(n))], "document": text(n),
                                    "completion": [_turn("assistant", answer(n))]}),
        _columns(question="prompt", answers="completion", context="document"),
    ),
    "Excel with a cover": Shape(_excel, _columns(question="Question", answers="Answer", context="Source text")),
    "a Windows encoding": Shape(
        _windows,
        asks="not UTF-8 (byte 0x93 in line 2); data.encoding=cp1252 reads what Windows wrote",
    ),
    "a zip": Shape(_bytes("a.zip", b"PK\x03\x04"), asks="python -m zipfile -e"),
    "a picture under another name": Shape(_bytes("a.csv", b"\x89PNG\r\n"), asks="it begins like a picture"),
    "an Excel file under another name": Shape(_bytes("a.csv", b"PK\x03\x04"), asks="name must end in .xlsx"),
    "nothing in a file": Shape(_bytes("a.csv", b""), asks="a.csv is empty"),
    "a single document": Shape(lambda folder: _documents(folder) / "guides" / "thing0.md", asks="a single document"),
    "part of a set": Shape(lambda folder: _native(folder) / "passages.jsonl", asks="is one file of a data set"),
    "nothing in it": Shape(whole("a.json", lambda: []), asks="there is not one row that can be read"),
}  # fmt: skip
