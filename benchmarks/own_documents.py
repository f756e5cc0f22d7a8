"""Documents and questions of one's own: how many questions get a gold passage, and which.

    python -m benchmarks.own_documents FOLDER QUESTIONS.csv [--show 25] [--seed 0]

FOLDER holds documents, QUESTIONS has `question` and `answer` and names no document. Printed: how many questions were
placed (`data=documents data.path=FOLDER data.questions=QUESTIONS`), why the others were not, and a random sample of
placements to be read by a person: question, answer, passages, and the answer's surroundings.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from rag_experiments.data.formats.documents import DocumentsConfig


def surroundings(passage: str, answer: str, width: int = 260) -> str:
    """The part of a passage around an answer."""
    words = " ".join(passage.split())
    place = max(words.casefold().find(answer.casefold()), 0)
    return words[max(0, place - width) : place + width]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("questions")
    parser.add_argument("--show", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from rag_experiments.data.builder import Intake
    from rag_experiments.data.formats import documents

    config = DocumentsConfig(path=options.folder, questions=options.questions, keep_unplaced=True)
    with tempfile.TemporaryDirectory() as folder:
        intake = Intake(Path(folder), collect=True)
        documents.read(config, intake)
        store = intake.finish()
        asked = [one.question for questions in intake.splits.values() for one in questions]
        placed = [one for one in asked if one.positive_ids]
        print(f"{len(store)} passages, {len(asked)} questions, placed {len(placed)} ({len(placed) / len(asked):.1%})")
        print(*(note for note in intake.notes if "names no document" in note), sep="\n")
        for one in random.Random(options.seed).sample(placed, min(options.show, len(placed))):
            print(f"\nQ {one.question}\nA {one.answers[0]}")
            for row in store.rows(one.positive_ids):
                passage = store[int(row)]
                print(f"  {passage.id} [{passage.title}] …{surroundings(passage.text, one.answers[0])}…")


if __name__ == "__main__":
    main()
