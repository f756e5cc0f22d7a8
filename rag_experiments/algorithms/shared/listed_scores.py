"""Candidates whose worth the data list: a teacher's scores that came with the passages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from rag_experiments.algorithms.shared.multiple_positives import ContrastiveExample
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import RagData
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.records import Question


def is_scored(question: Question) -> bool:
    """Whether two passages can be compared by the question's listed scores."""
    return len(question.scores or ()) > 1


def check_without_search(own: Any) -> None:
    """Raise `RequestError` for keys of a search for candidates where the data list them."""
    asked = {"pool": own.pool, "ordered_by": own.ordered_by != "retriever", "refresh_every": own.refresh_every}
    for key, given in asked.items():
        if given:
            raise RequestError(
                f"algorithm.{key} is of candidates that a retriever finds, and with algorithm.labels=scores they are "
                "those whose scores the data list: leave it out"
            )


def check_scores(data: RagData) -> None:
    """Count the training questions that cannot be compared, in a note.

    Raises:
        RequestError: there is no other.
    """
    questions = data.splits["train"]
    lacking = sum(not is_scored(question) for question in questions)
    if lacking == len(questions):
        raise RequestError(
            "algorithm.labels=scores: no training question lists the scores of two passages; they are read from "
            "'scores' in data=jsonl, and from a passage's 'score' or 'pos_scores' and 'neg_scores' in data=tevatron"
        )
    note = (
        f"{lacking:,} of the {len(questions):,} training questions list no scores of two passages, and are left out by "
        "algorithm.labels=scores"
    )
    if lacking and note not in data.notes:
        data.notes.append(note)


class ListedScores:
    """K of a question's scored passages; one without a score is no candidate."""

    def __init__(self, examples: Sequence[ContrastiveExample], store: PassageStore, count: int, seed: int) -> None:
        """`count`: K. More scored passages than that are drawn from anew each epoch."""
        self.examples, self.count, self.seed = examples, count, seed
        self._scores: list[dict[int, float]] = []
        """Row → score, by question."""
        for example in examples:
            scores = example.question.scores or {}
            rows = store.rows(list(scores)).tolist()
            self._scores.append(dict(zip(rows, scores.values(), strict=True)))

    def rows(self, numbers: Sequence[int], epochs: Sequence[int]) -> np.ndarray:
        """Rows of the corpus `[B, K]` for the questions of these numbers; -1: none.

        A function of seed, epoch and question alone. Gold passages take half of the places where there are others for
        the rest.
        """
        rows_BK = np.full((len(numbers), self.count), -1, dtype=np.int64)
        for b, (number, epoch) in enumerate(zip(numbers, epochs, strict=True)):
            example, scored = self.examples[number], self._scores[number]
            golds = [row for row in scored if row in example.positives]
            others = [row for row in scored if row not in example.positives]
            generator = random.Random(f"{self.seed}/{epoch}/{example.question.id}")
            most = max(self.count // 2, self.count - len(others))
            chosen = generator.sample(golds, min(len(golds), most))
            chosen += generator.sample(others, min(len(others), self.count - len(chosen)))
            rows_BK[b, : len(chosen)] = chosen
        return rows_BK

    def grades(self, numbers: Sequence[int], rows_BK: np.ndarray) -> np.ndarray:
        """1 where a candidate is a gold passage `[B, K]`."""
        golds = [self.examples[number].positives for number in numbers]
        found = [[float(row in own) for row in rows] for own, rows in zip(golds, rows_BK.tolist(), strict=True)]
        return np.array(found, dtype=np.float32).reshape(rows_BK.shape)

    def scores(self, numbers: Sequence[int], rows_BK: np.ndarray) -> np.ndarray:
        """The listed score of each candidate `[B, K]`; 0 where there is none."""
        own = [self._scores[number] for number in numbers]
        found = [[known.get(row, 0.0) for row in rows] for known, rows in zip(own, rows_BK.tolist(), strict=True)]
        return np.array(found, dtype=np.float32).reshape(rows_BK.shape)
