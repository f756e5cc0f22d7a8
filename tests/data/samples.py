"""One small data set written in every format, and what stands where in its files."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag_experiments.config.data_formats import config_class
from rag_experiments.config.schema import DataConfig

COUNT = 24


def passage(number: int) -> tuple[str, str]:
    """Title and text."""
    return f"Title {number}", f"Thing {number} is kept in the drawer called d{number}, says the list."


def question(number: int) -> str:
    return f"Where is thing {number} kept?"


def _lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@dataclass
class Sample:
    """How a format is written, where its questions stand, and how a gold passage goes missing."""

    format: str
    write: Callable[[Path], None]
    questions: str
    """The file whose lines are questions."""
    keys: dict[str, Any] = field(default_factory=dict)
    lose_gold: Callable[[Path], None] | None = None
    path: str = ""

    def config(self, folder: Path, **keys: Any) -> DataConfig:
        return config_class(self.format)(path=str(folder / self.path), **{**self.keys, **keys})


def _jsonl(folder: Path) -> None:
    _lines(
        folder / "passages.jsonl",
        [{"id": f"p{n}", "title": passage(n)[0], "text": passage(n)[1]} for n in range(COUNT)],
    )
    rows = [{"question": question(n), "answers": [f"d{n}"], "positive_ids": [f"p{n}"]} for n in range(COUNT)]
    _lines(folder / "train.jsonl", rows)


def _drop_line(name: str, number: int) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        lines = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
        del lines[number]
        (folder / name).write_text("".join(lines), encoding="utf-8")

    return drop


def _document(number: int) -> dict[str, Any]:
    title, text = passage(number)
    return {"page_content": text, "fmt_content": f"Content: {text}", "metadata": {"title": title, "seq_num": number}}


def _localrqa(folder: Path) -> None:
    shared = [
        {"gold_docs": [_document(n)], "hard_neg_docs": [_document((n + 1) % COUNT)], "chat_history": []}
        for n in range(COUNT)
    ]
    answered = [{**row, "question": question(n), "gold_answer": f"d{n}"} for n, row in enumerate(shared)]
    # The other file groups by passage and numbers otherwise.
    grouped = [{**row, "questions": [question(n), f"And thing {n}?"]} for n, row in reversed(list(enumerate(shared)))]
    _lines(folder / "train_w_qa.jsonl", answered)
    _lines(folder / "train_w_q.jsonl", grouped)
    _lines(folder / "documents.jsonl", [_document(n) for n in range(COUNT)])


def _beir(folder: Path) -> None:
    corpus = [dict(zip(("_id", "title", "text"), (f"c{n}", *passage(n)), strict=False)) for n in range(COUNT)]
    _lines(folder / "corpus.jsonl", corpus)
    _lines(folder / "queries.jsonl", [{"_id": str(n), "text": question(n), "answers": [f"d{n}"]} for n in range(COUNT)])
    graded = [(n, grade) for n in range(COUNT) for grade in (2, 1, 0)]
    judged = [f"{n}\tc{(n, n ^ 1, n ^ 2)[2 - grade]}\t{grade}\n" for n, grade in graded]
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))


def _context(number: int, **more: Any) -> dict[str, Any]:
    title, text = passage(number)
    return {"passage_id": str(number), "title": title, "text": text, **more}


def _dpr(folder: Path) -> None:
    rows = [
        {
            "question": question(n),
            "answers": [f"d{n}"],
            "positive_ctxs": [_context(n)],
            "hard_negative_ctxs": [_context((n + 1) % COUNT)],
            "negative_ctxs": [_context((n + 2) % COUNT)],
        }
        for n in range(COUNT)
    ]
    _lines(folder / "nq-train.jsonl", rows)
    with open(folder / "psgs.tsv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        writer.writerow(["id", "text", "title"])
        writer.writerows([n, passage(n)[1], passage(n)[0]] for n in range(COUNT))


def _fid(folder: Path) -> None:
    rows = []
    for n in range(COUNT):
        contexts = [_context((n + step) % COUNT, score=9.0 - step, hasanswer=step == 1) for step in (1, 0, 2)]
        contexts[0]["hasanswer"], contexts[1]["hasanswer"] = False, True
        rows.append({"question": question(n), "target": f"d{n}", "ctxs": contexts})
    with gzip.open(folder / "train.json.gz", "wt", encoding="utf-8") as file:
        json.dump(rows, file)
    _lines(folder / "train_lines.jsonl", rows)


def _tevatron(folder: Path) -> None:
    def inline(number: int) -> dict[str, Any]:
        return {"docid": f"t{number}", "title": passage(number)[0], "text": passage(number)[1]}

    rows = [
        {
            "query_id": str(n),
            "query": question(n),
            "answers": [f"d{n}"],
            "positive_passages": [inline(n)],
            "negative_passages": [inline((n + 1) % COUNT)],
        }
        for n in range(COUNT)
    ]
    _lines(folder / "train.jsonl", rows)
    _lines(folder / "corpus.jsonl", [inline(n) for n in range(COUNT)])


def _documents(folder: Path) -> None:
    (folder / "docs").mkdir(exist_ok=True)
    rows = []
    for n in range(COUNT):
        title, text = passage(n)
        name = f"{title.replace(' ', '_')}.txt"
        (folder / "docs" / name).write_text(text + "\n", encoding="utf-8")
        place = {"document": name} if n else {"positive_ids": [f"{name}#0"]}
        rows.append({"question": question(n), "answers": [f"d{n}"], **place})
    _lines(folder / "asked.jsonl", rows)


def _lose_document(folder: Path) -> None:
    (folder / "docs" / "Title_0.txt").unlink()


def _hub(folder: Path) -> None:
    rows = [
        {"q": question(n), "gold": {"text": passage(n)[1], "title": passage(n)[0]}, "a": [f"d{n}"]}
        for n in range(COUNT)
    ]
    _lines(folder / "train.jsonl", rows)


def _squad(folder: Path) -> None:
    articles = []
    for n in range(COUNT):
        title, text = passage(n)
        answer = {"text": f"d{n}", "answer_start": text.index(f"d{n},")}
        entry = {"id": f"s{n}", "question": question(n), "answers": [answer]}
        articles.append({"title": title, "paragraphs": [{"context": text, "qas": [entry]}]})
    (folder / "train.json").write_text(json.dumps({"version": "1.1", "data": articles}, indent=1))


def _csv(folder: Path) -> None:
    with open(folder / "train.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answers", "context", "title"])
        writer.writerows([question(n), f"d{n}", passage(n)[1], passage(n)[0]] for n in range(COUNT))


HUB_COLUMNS = {"question": "q", "answers": "a", "context": "gold.text", "title": "gold.title", "id": None}


def samples() -> dict[str, Sample]:
    """By name; a format that comes in several shapes stands here several times."""
    from rag_experiments.data.formats.hub import HubColumns

    columns = {"columns": HubColumns(**HUB_COLUMNS)}
    made = [
        Sample("jsonl", _jsonl, "train.jsonl", lose_gold=_drop_line("passages.jsonl", 0)),
        Sample(
            "localrqa",
            _localrqa,
            "train_w_qa.jsonl",
            {"documents": "documents.jsonl"},
            lose_gold=_drop_line("documents.jsonl", 0),
        ),
        Sample("beir", _beir, "queries.jsonl", lose_gold=_drop_line("corpus.jsonl", 0)),
        Sample("dpr", _dpr, "nq-train.jsonl", {"passages": "psgs.tsv"}, lose_gold=_drop_line("psgs.tsv", 1)),
        Sample("tevatron", _tevatron, "train.jsonl", {"corpus": "corpus.jsonl"}, _drop_line("corpus.jsonl", 0)),
        Sample("hub", _hub, "train.jsonl", columns),
        Sample("documents", _documents, "asked.jsonl", {"questions": "../asked.jsonl"}, _lose_document, "docs"),
    ]
    variants = {
        "localrqa without documents": Sample("localrqa", _localrqa, "train_w_qa.jsonl"),
        "dpr without a TSV": Sample("dpr", _dpr, "nq-train.jsonl", path="nq-train.jsonl"),
        "fid": Sample("dpr", _fid, "train_lines.jsonl", path="train_lines.jsonl"),
        "fid as gzipped JSON": Sample("dpr", _fid, "train.json.gz", path="train.json.gz"),
        "tevatron without a corpus": Sample("tevatron", _tevatron, "train.jsonl", path="train.jsonl"),
        "squad": Sample("hub", _squad, "train.json", {"preset": "squad"}, path="train.json"),
        "csv": Sample("hub", _csv, "train.csv", path="train.csv"),
    }
    return {sample.format: sample for sample in made} | variants
