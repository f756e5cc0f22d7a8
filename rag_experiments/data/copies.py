"""Passages with the same title and text under several ids: if one is gold, all its copies are gold.

The data names gold passages by id, but a corpus may hold a text twice. A retriever that finds the other copy is
right, and a loss that pushes it away is wrong. So copies of a gold passage become gold at import (masks, mining and
evaluation still use ids), and the question records which ids are copies, so that they count as one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rag_experiments.core import digest
from rag_experiments.core.text import identity
from rag_experiments.data.number_columns import sorted_runs
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.records import Passage, Question


def content_of(text: str, title: str) -> tuple[str, str]:
    """A key that is equal for passages with the same text and title, ignoring spelling variants and spaces."""
    return identity(title), identity(text)


def content_number(text: str, title: str) -> int:
    """A 64-bit hash of `content_of`. Collisions are possible but rare."""
    return digest.content_number("\x1f".join(content_of(text, title)))


class Copies:
    """The copies of `golds` in a corpus.

    Args:
        contents_N: `content_number` of every row.
        golds: the rows whose copies are found; other rows are not kept in memory.
        folder: for temporary files.
    """

    def __init__(self, store: PassageStore, contents_N: np.ndarray, golds: Iterable[int], folder: Path):
        self.ids: dict[str, tuple[str, ...]] = {}
        """Maps each gold id that has copies to all ids with its content, including itself, in order of row."""
        self.repeated = 0
        """The number of passages that repeat the content of an earlier one."""
        gold_rows = set(golds)
        for numbers, rows in sorted_runs(contents_N, folder):
            same = numbers[1:] == numbers[:-1]
            self.repeated += int(same.sum())
            begins = np.flatnonzero(np.concatenate([[True], ~same]))
            ends = np.append(begins[1:], len(numbers))
            for group in np.flatnonzero(ends - begins > 1).tolist():
                places = rows[begins[group] : ends[group]].tolist()
                if not gold_rows.isdisjoint(places):
                    self._keep([store[row] for row in places])

    def _keep(self, passages: list[Passage]) -> None:
        by_content: dict[tuple[str, str], list[str]] = {}
        for passage in passages:
            by_content.setdefault(content_of(passage.text, passage.title), []).append(passage.id)
        for ids in by_content.values():
            if len(ids) > 1:
                self.ids.update(dict.fromkeys(ids, tuple(ids)))

    def applied(self, question: Question, counts: Counter[str]) -> Question:
        """`question` with copies of its positives added to the positives and removed from the negatives.

        `counts` is updated: `added` and `dropped`.
        """
        golds = [*question.positive_ids, *(value for value, grade in (question.relevance or {}).items() if grade > 0)]
        if not any(value in self.ids for value in golds):
            return question
        positives = self._extended(question.positive_ids)
        relevance = question.relevance
        if relevance is not None:
            judged, relevance = relevance, dict(relevance)
            for value, grade in judged.items():
                for copy in self.ids.get(value, ()) if grade > 0 else ():
                    relevance[copy] = max(grade, relevance.get(copy, grade))
        copies: dict[str, str] = {}
        for value in dict.fromkeys(self._extended(golds)):
            first = next((gold for gold in golds if gold in self.ids.get(value, ())), value)
            if first != value:
                copies[value] = first
        negatives = tuple(value for value in question.negative_ids if value not in positives)
        counts["added"] += len(positives) - len(question.positive_ids)
        counts["dropped"] += len(question.negative_ids) - len(negatives)
        return dataclasses.replace(
            question, positive_ids=positives, negative_ids=negatives, relevance=relevance, copies=copies
        )

    def _extended(self, ids: Iterable[str]) -> tuple[str, ...]:
        ids = tuple(ids)
        return tuple(dict.fromkeys([*ids, *(copy for value in ids for copy in self.ids.get(value, ()))]))
