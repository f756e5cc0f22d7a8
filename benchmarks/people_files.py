"""Files as people have them: one corpus, written in the shapes in which questions lie about on disks.

Each shape writes the same rows into a folder, says what a user types, and what a user types where that is asked about.
"""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One question, its answer, the text that holds the answer, and a text that does not."""

    question: str
    answer: str
    context: str
    other: str


Rows = Sequence[Row]


@dataclass(frozen=True)
class FileShape:
    """One shape of files."""

    write: Callable[[Path, Rows], Path]
    """Writes into a folder; returns what the user types as the path."""
    override: Sequence[str] = ()
    """What is typed besides where the path alone is asked about; `{folder}` is the folder."""
    answered: bool = True
    """Whether the questions have answers in this shape."""
    damaged: int = 0
    """Rows that no reader could read."""
    refused: bool = False
    """It holds nothing to train on: one sentence is the right answer."""
    placed: bool = False
    """Documents: only questions whose passage is clear are used."""
    fixed: bool = False
    """`--fix` writes the usable rows, and these train."""


def _table(
    name: str,
    header: Sequence[str],
    cells: Callable[[int, Row], Sequence[Any]],
    delimiter: str = ",",
    encoding: str = "utf-8",
    line_end: str = "\n",
) -> Callable[[Path, Rows], Path]:
    def write(folder: Path, rows: Rows) -> Path:
        with open(folder / name, "w", encoding=encoding, newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end)
            writer.writerows([header] if header else [])
            writer.writerows(cells(number, row) for number, row in enumerate(rows, 1))
        return folder / name

    return write


def _lines(name: str, made: Callable[[int, Row], dict[str, Any]]) -> Callable[[Path, Rows], Path]:
    def write(folder: Path, rows: Rows) -> Path:
        text = "".join(f"{json.dumps(made(number, row))}\n" for number, row in enumerate(rows, 1))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return folder / name

    return write


def _whole(name: str, made: Callable[[Rows], Any]) -> Callable[[Path, Rows], Path]:
    def write(folder: Path, rows: Rows) -> Path:
        (folder / name).write_text(json.dumps(made(rows), indent=1), encoding="utf-8")
        return folder / name

    return write


def _three(row: Row) -> tuple[str, str, str]:
    return row.question, row.answer, row.context


def _excel(folder: Path, rows: Rows) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    cover = book.active
    cover.title = "Read me"
    cover.append(["Questions of the support team"])
    cover.append(["Status", "2024-05-02"])
    sheet = book.create_sheet("Questions")
    sheet.append(["No.", "Question", "Answer", "Source text"])
    for number, row in enumerate(rows, 1):
        sheet.append([number, *_three(row)])
    book.save(folder / "support.xlsx")
    return folder / "support.xlsx"


def _squad(rows: Rows) -> dict[str, Any]:
    def article(number: int, row: Row) -> dict[str, Any]:
        answers = [{"text": row.answer, "answer_start": row.context.index(row.answer)}]
        asked = {"id": f"s{number}", "question": row.question, "answers": answers, "is_impossible": False}
        return {"title": f"Part {number}", "paragraphs": [{"context": row.context, "qas": [asked]}]}

    return {"version": "v2.0", "data": [article(number, row) for number, row in enumerate(rows, 1)]}


def _parquet(folder: Path, rows: Rows) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    (folder / "data").mkdir()
    made = [{"query": row.question, "response": row.answer, "documents": [row.context]} for row in rows]
    half = len(made) // 2
    for number, part in enumerate((made[:half], made[half:])):
        parquet.write_table(pa.Table.from_pylist(part), folder / "data" / f"train-0000{number}-of-00002.parquet")
    return folder


def _feather(folder: Path, rows: Rows) -> Path:
    import pandas as pd

    frame = pd.DataFrame({"text_a": [row.question for row in rows], "text_b": [row.context for row in rows]})
    frame.to_feather(folder / "pairs.feather")
    return folder / "pairs.feather"


def _saved(folder: Path, rows: Rows) -> Path:
    import datasets

    made = [{"user_input": one.question, "reference": one.answer, "reference_contexts": [one.context]} for one in rows]
    half = len(made) // 2
    parts = {"train": datasets.Dataset.from_list(made[:half]), "validation": datasets.Dataset.from_list(made[half:])}
    datasets.DatasetDict(parts).save_to_disk(str(folder / "testset"))
    return folder / "testset"


def _document(number: int, row: Row) -> tuple[str, str]:
    title, _, body = row.context.partition("\n")
    return [
        (f"{number}.md", f"# {title}\n\n{row.context}\n"),
        (f"{number}.txt", row.context),
        (
            f"{number}.html",
            f"<html><head><title>{title}</title></head><body><p>{title}</p><p>{_escaped(body)}</p></body>",
        ),
    ][number % 3]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _documents(folder: Path, rows: Rows) -> Path:
    (folder / "docs" / "parts").mkdir(parents=True)
    for number, row in enumerate(rows, 1):
        name, text = _document(number, row)
        (folder / "docs" / "parts" / name).write_text(text, encoding="utf-8")
    return folder / "docs"


def _documents_and_questions(folder: Path, rows: Rows) -> Path:
    _table("asked.csv", ("question", "answer"), lambda number, row: (row.question, row.answer))(folder, rows)
    return _documents(folder, rows)


def _beir(folder: Path, rows: Rows) -> Path:
    _lines("corpus.jsonl.gz", lambda number, row: {"_id": f"c{number}", "title": "", "text": row.context})(folder, rows)
    _lines("queries.jsonl.gz", lambda number, row: {"_id": f"q{number}", "text": row.question})(folder, rows)
    (folder / "qrels").mkdir()
    judged = "".join(f"q{number}\tc{number}\t1\n" for number in range(1, len(rows) + 1))
    (folder / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    return folder


def _ragged(folder: Path, rows: Rows) -> Path:
    path = _table("ragged.csv", ("question", "answer", "context"), lambda number, row: _three(row))(folder, rows[:-3])
    with open(path, "a", encoding="utf-8", newline="") as file:
        for row, more in zip(rows[-3:], ((), ("",), ("checked", "by", "May")), strict=True):
            csv.writer(file).writerow([*_three(row)[: 2 if not more else 3], *more])
    return path


def _alone(name: str, content: bytes) -> Callable[[Path, Rows], Path]:
    def write(folder: Path, rows: Rows) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _zip(folder: Path, rows: Rows) -> Path:
    inside = _table("qa.csv", ("question", "answer", "context"), lambda number, row: _three(row))(folder, rows)
    with zipfile.ZipFile(folder / "qa.zip", "w") as archive:
        archive.write(inside, "qa.csv")
    inside.unlink()
    return folder / "qa.zip"


def _messages(number: int, row: Row) -> dict[str, Any]:
    asked, said = {"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer}
    return {"messages": [{"role": "system", "content": "Answer from the manual."}, asked, said]}


def _with_context(number: int, row: Row) -> dict[str, Any]:
    return {**_messages(number, row), "context": row.context}


def _without_documents(folder: Path, rows: Rows) -> Path:
    _documents(folder, rows)
    return _lines("sft.jsonl", lambda number, row: {"prompt": row.question, "completion": row.answer})(folder, rows)


SHAPES: dict[str, FileShape] = {
    "CSV from Excel: semicolons, byte-order mark, CRLF": FileShape(
        _table("export.csv", ("Question", "Answer", "Context"), lambda n, row: _three(row), ";", "utf-8-sig", "\r\n")
    ),
    "TSV with a column of numbers and one of dates": FileShape(
        _table("faq.tsv", ("qid", "query", "gold answer", "passage", "checked on"),
               lambda n, row: (n, row.question, row.answer, " ".join(row.context.split()), f"2024-05-{n % 28 + 1:02}"),
               "\t")
    ),
    "Excel, the first sheet a cover": FileShape(_excel),
    "JSON, rows under \"data\"": FileShape(
        _whole("api.json", lambda rows: {"data": [dict(zip(("question", "answer", "context"), _three(row), strict=True))
                                                  for row in rows]})
    ),
    "JSON of columns (pandas' to_json)": FileShape(
        _whole("frame.json", lambda rows: {name: {str(n): _three(row)[place] for n, row in enumerate(rows)}
                                           for place, name in enumerate(("question", "answer", "context"))})
    ),
    "JSON of columns as lists": FileShape(
        _whole("lists.json", lambda rows: {name: [_three(row)[place] for row in rows]
                                           for place, name in enumerate(("question", "ground_truth", "context"))})
    ),
    "JSON lines of messages": FileShape(_lines("chat.jsonl", _messages), refused=True),
    "JSON lines of messages, with the context": FileShape(_lines("chat.jsonl", _with_context)),
    "prompt and completion, documents in a folder": FileShape(
        _without_documents, ("data=documents", "data.path={folder}/docs", "data.questions={folder}/sft.jsonl"),
        placed=True,
    ),
    "anchor, positive, negative, gzipped": FileShape(
        _lines("triplets.jsonl.gz", lambda n, row: {"anchor": row.question, "positive": row.context,
                                                    "negative": row.other}),
        answered=False,
    ),
    "query, pos, neg, prompt (FlagEmbedding)": FileShape(
        _lines("flag.jsonl", lambda n, row: {"query": row.question, "pos": [row.context], "neg": [row.other],
                                             "prompt": "Represent this sentence for searching: ", "type": "normal"}),
        answered=False,
    ),
    "SQuAD 2": FileShape(_whole("train-v2.0.json", _squad)),
    "Parquet in two parts, below data/": FileShape(_parquet),
    "Feather, text_a and text_b": FileShape(_feather, answered=False),
    "save_to_disk with two splits (ragas' names)": FileShape(_saved),
    "a folder of .md, .txt and .html": FileShape(
        _documents_and_questions, ("data.questions={folder}/asked.csv",), placed=True
    ),
    "BEIR, gzipped": FileShape(_beir, answered=False),
    "odd column names": FileShape(
        _table("odd.csv", ("#", "User Question (EN)", "Expected answer!", "Source Text [manual]"),
               lambda n, row: (n, *_three(row))),
        ("data.columns.question=User Question (EN)", "data.columns.answers=Expected answer!",
         "data.columns.context=Source Text [manual]"),
    ),
    "columns in German": FileShape(_table("fragen.csv", ("Frage", "Antwort", "Kontext"), lambda n, row: _three(row))),
    "columns in Finnish": FileShape(
        _table("kysymykset.csv", ("Kysymys", "Vastaus", "Teksti"), lambda n, row: _three(row)),
        ("data.columns.question=Kysymys", "data.columns.answers=Vastaus", "data.columns.context=Teksti"),
    ),
    "lists of answers, as numpy prints them": FileShape(
        _table("numpy.csv", ("question", "answers", "context"),
               lambda n, row: (row.question, f"[{row.answer!r} 'no other']", row.context))
    ),
    "cp1252 (Windows), with curly quotes": FileShape(
        _table("windows.csv", ("question", "answer", "context"),
               lambda n, row: (f"“{row.question}”", row.answer, row.context), ";", "cp1252"),
        ("data.encoding=cp1252",),
    ),
    "UTF-16 with tabs (Excel's Unicode text)": FileShape(
        _table("unicode.tsv", ("question", "answer", "context"),
               lambda n, row: (row.question, row.answer, " ".join(row.context.split())), "\t", "utf-16")
    ),
    "ragged rows": FileShape(_ragged, fixed=True, damaged=3),
    "CSV without a header": FileShape(
        _table("plain.csv", (), lambda n, row: _three(row)),
        refused=True,
    ),
    "questions alone": FileShape(_table("one.csv", ("question",), lambda n, row: (row.question,)), refused=True),
    "an empty file": FileShape(_alone("empty.csv", b""), refused=True),
    "a PDF": FileShape(_alone("manual.pdf", b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n<<>>\nendobj\n%%EOF\n"), refused=True),
    "a picture called .csv": FileShape(
        _alone("scan.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02"), refused=True
    ),
    "a zip": FileShape(_zip, refused=True),
}  # fmt: skip
"""Shape → how it is written and what is typed."""
