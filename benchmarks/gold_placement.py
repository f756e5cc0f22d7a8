"""How many questions get the right gold passage when only their answers are known (`data=documents data.questions=…`).

    python -m benchmarks.gold_placement FILE

FILE knows where each answer stands: SQuAD's JSON, or JSON lines with `question`, `answers` and `context` (or `ctxs`
with a `text`, the first), each perhaps .gz. The contexts become documents, cut as by default; the place is forgotten,
looked for, and compared. A second line has each question's own document taken away, so that every placement is wrong:
what happens where a folder does not hold the answer.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_experiments.data.formats.cut import find_answer
from rag_experiments.data.formats.documents import DocumentsConfig, make_cutter
from rag_experiments.data.formats.gold_placement import GoldPlacement, Passage


def examples(file: Path) -> Iterator[tuple[str, str, list[str], int | None]]:
    """Context, question, answers, and the offset of the first answer where the file has it."""
    content = file.read_bytes()
    text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode("utf-8")
    if text.lstrip().startswith('{"data"') or '"paragraphs"' in text[:1000]:
        for article in json.loads(text)["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    if asked["answers"]:
                        first = asked["answers"][0]
                        yield paragraph["context"], asked["question"], [first["text"]], first["answer_start"]
        return
    for line in text.splitlines():
        row: dict[str, Any] = json.loads(line)
        context = row["context"] if "context" in row else row["ctxs"][0]["text"]
        yield context, row["question"], row["answers"], None


def main(file: Path) -> None:
    """Print the table."""
    rows = list(examples(file))
    names = {context: f"{number}.txt" for number, context in enumerate(dict.fromkeys(row[0] for row in rows))}
    cut = make_cutter(DocumentsConfig(path="."))
    passages = [
        Passage(f"{name}#{number}", name, start, text, "")
        for context, name in names.items()
        for number, (start, text) in enumerate(cut(context))
    ]
    by_document: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        by_document[passage.document].append(passage)
    placement = GoldPlacement(passages)
    questions = placed = right = elsewhere = 0
    for context, question, answers, offset in rows:
        place = next((at for answer in answers if (at := find_answer(context, answer, offset)[0]) is not None), None)
        if place is None:
            continue
        own = by_document[names[context]]
        gold = {passage.id for passage in own if passage.start <= place < passage.start + len(passage.text)}
        questions += 1
        ids = placement.place(question, answers).ids
        placed += bool(ids)
        right += bool(gold & {*ids})
        elsewhere += bool(placement.place(question, answers, without=names[context]).ids)
    print(
        f"{len(names)} documents, {len(passages)} passages, {questions} questions whose answer stands in its document"
    )
    print(f"placed {placed / questions:.1%}, of these right {right / max(placed, 1):.1%}")
    print(f"own document taken away: placed (wrongly) {elsewhere / questions:.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
