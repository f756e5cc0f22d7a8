"""Passages and questions: what every format is read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Passage:
    """A unit of the corpus. Passages with the same title and text under several ids are *copies* (see `copies.py`):
    either all of them are gold, or none."""

    id: str
    """Identifies the passage in hashes, caches and questions; of a passage without an id of its own, a hash."""
    text: str
    title: str = ""
    place: str = ""
    """Where a passage without an id of its own was read first (`train.jsonl:17.positive_passages[0]`); else empty."""

    @property
    def shown_id(self) -> str:
        """The id that people see and that files outside the cache hold: the place where there is one, else the id."""
        return self.place or self.id

    @property
    def full_text(self) -> str:
        """The text that an encoder reads: the title and the text on separate lines."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier message of a conversation; `role` is `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question with everything that its data set says about it."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    positive_ids: tuple[str, ...] = ()
    negative_ids: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    relevance: Mapping[str, int] | None = None
    """Graded judgements (BEIR's qrels); None: every positive is worth 1."""
    scores: Mapping[str, float] | None = None
    """What the data say passages are worth to the question (a teacher's scores, any scale); None: they say nothing."""
    candidate_ids: tuple[str, ...] = ()
    """The data's own candidates (DPR's and FiD's `ctxs`), in their order."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """For a gold passage that is a copy: the gold passage, listed before it, with the same title and text."""

    @property
    def distinct_golds(self) -> tuple[str, ...]:
        """`positive_ids` without copies; a reader is given these."""
        return tuple(value for value in self.positive_ids if value not in self.copies)


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the user's data, as an error message names it."""

    file: str
    line: int | None = None
    inside: str = ""
    """The place in a file that has no lines, written as it stands behind the file's name (`[17]`, `: data[3]`)."""

    def __str__(self) -> str:
        return f"{self.file}{self.inside}" if self.line is None else f"{self.file}:{self.line}"
