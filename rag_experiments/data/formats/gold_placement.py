"""Gold passages of questions that name no document: the passage that holds the answer and speaks of the question.

An answer may stand in many passages ("1995", "the kidney"), so standing there is not enough. What is compared is the
share of the question's words that a passage holds, each word counted by its inverse document frequency (Spärck Jones
1972): 1 if the passage has every word of the question, 0 if it has none. Only data is needed, no model: a data set is
imported before a model is chosen. docs/manual/data.md has what the two thresholds gave on real questions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rag_experiments.core import text as texts

LEAST_SHARE = 0.3
"""A passage that holds less of the question is not placed, even if no other one holds the answer."""
LEAST_LEAD = 0.1
"""By so much the passage must be ahead of every other place that holds the answer."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as it is searched for an answer."""

    id: str
    document: str
    start: int
    """Its first character in the document."""
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a question's answer stands."""

    ids: tuple[str, ...]
    """The gold passages; empty if no place is sure enough."""
    holders: int
    """Passages that hold an answer, in the whole folder."""


class GoldPlacement:
    """Finds gold passages among `passages`; passages of one document stand in the order of their text."""

    def __init__(self, passages: Sequence[Passage]):
        self.passages = passages
        self._runs = [texts.run_of(passage.text) for passage in passages]
        self._with_token: dict[str, list[int]] = defaultdict(list)
        """Numbers of the passages whose text has a token, rising."""
        self._with_term: dict[str, set[int]] = defaultdict(set)
        """Numbers of the passages that have a term of the index, in title or text."""
        for number, passage in enumerate(passages):
            for token in set(self._runs[number].split()):
                self._with_token[token].append(number)
            for term in _terms(f"{passage.title} {passage.text}"):
                self._with_term[term].add(number)

    def place(self, question: str, answers: Iterable[str], without: str | None = None) -> Placed:
        """The gold passages of `question`: those of the one place that holds an answer and is ahead of all others.

        `without`: a document that does not count.
        """
        holders = [number for number in self._holders(answers) if self.passages[number].document != without]
        weights = {term: self._weight(term) for term in _terms(question)}
        ranked = sorted(
            ((max(self._share(weights, number) for number in place), place) for place in self._places(holders)),
            reverse=True,
        )
        if not ranked:
            return Placed((), 0)
        best, place = ranked[0]
        sure = best >= LEAST_SHARE and (len(ranked) == 1 or best - ranked[1][0] >= LEAST_LEAD)
        return Placed(tuple(self.passages[number].id for number in place) if sure else (), len(holders))

    def _holders(self, answers: Iterable[str]) -> list[int]:
        """Numbers of the passages that hold an answer word for word."""
        holders: set[int] = set()
        for answer in answers:
            if run := texts.run_of(answer, answer=True):
                rarest = min((self._with_token.get(token, []) for token in run.split()), key=len)
                holders |= {number for number in rarest if run in self._runs[number]}
        return sorted(holders)

    def _places(self, holders: Sequence[int]) -> list[list[int]]:
        """`holders` in groups: passages that overlap hold the same occurrence."""
        groups: list[list[int]] = []
        for number in holders:
            passage = self.passages[number]
            before = self.passages[groups[-1][-1]] if groups else None
            if (
                before is not None
                and groups[-1][-1] == number - 1
                and before.document == passage.document
                and passage.start < before.start + len(before.text)
            ):
                groups[-1].append(number)
            else:
                groups.append([number])
        return groups

    def _share(self, weights: dict[str, float], number: int) -> float:
        """The share of the question's terms, by their weights, that a passage has."""
        total = sum(weights.values())
        shared = sum(weight for term, weight in weights.items() if number in self._with_term.get(term, ()))
        return shared / total if total else 0.0

    def _weight(self, term: str) -> float:
        return math.log(1 + len(self.passages) / (1 + len(self._with_term.get(term, ()))))


def _terms(text: str) -> set[str]:
    return {term for run in texts.index_runs(text) for term in texts.index_terms(run)}
