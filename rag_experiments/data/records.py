"""Passages and questions: what every format is read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Passage:
    """A unit of the corpus, found by its id. Passages with one title and text under several ids are *copies* (see
    `copies.py`): gold together, or not at all."""

    id: str
    text: str
    title: str = ""

    @property
    def full_text(self) -> str:
        """What an encoder reads: title and text on lines of their own."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier message of a conversation; `role` is `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question with whatever its data set knows about it."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    positive_ids: tuple[str, ...] = ()
    negative_ids: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    relevance: Mapping[str, int] | None = None
    """Graded judgements (BEIR's qrels); None: every positive is worth 1."""
    candidate_ids: tuple[str, ...] = ()
    """The data's own candidates (DPR's and FiD's `ctxs`), in their order."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Gold passage to the gold one, listed before it, that has the same title and text."""

    @property
    def distinct_golds(self) -> tuple[str, ...]:
        """`positive_ids` without copies: what a reader is given."""
        return tuple(value for value in self.positive_ids if value not in self.copies)


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the user's data, as an error message names it."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"
