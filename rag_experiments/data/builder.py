"""Every format hands the rows that it reads to an `Intake`: rows are checked one by one, passages go straight to disk.

Loading a data set stops at the first problem (`RequestError`, with file and line). The `check` command collects all
problems instead: a bad row is left out, counted and listed.

Memory: each passage is written as soon as it is read, and so are the 24 bytes that are kept about it (hashes of id and
content, file and line). A format that repeats whole passages in question lines needs about 150 bytes of memory for
each different passage. Questions stay in memory.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rag_experiments.core.digest import content_bytes
from rag_experiments.core.errors import RequestError
from rag_experiments.data.bad_row import MissingColumn
from rag_experiments.data.column_report import ColumnReport
from rag_experiments.data.copies import Copies, content_number, content_of
from rag_experiments.data.number_columns import Column
from rag_experiments.data.passage_store import PassageStore, PassageWriter
from rag_experiments.data.queries import question_key
from rag_experiments.data.records import Passage, Question, Where
from rag_experiments.data.row_fields import BadRow, check_text
from rag_experiments.data.shown_ids import FileLabels, misleading_rows

SPLITS = ("train", "dev", "test")
LINE_BITS = 40
"""The low bits of a packed place hold the line number; the bits above them hold the number of the file."""
REFERENCES = ("positive_ids", "negative_ids", "candidate_ids")


MISSING_COLUMN = "missing column"
"""The kind of a problem with a column that a row does not have."""


class RefusedRow(RequestError):
    """A bad row that stops the command; `check --fix` would leave the row out."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data, its place, and the `kind` under which it is counted."""

    where: Where
    reason: str
    kind: str = "bad row"

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(slots=True)
class Asked:
    """A question with its file and line, and the groups (articles) whose questions must be in the same split."""

    question: Question
    where: Where
    group: str | None = None
    more_groups: tuple[str, ...] = ()
    """The groups of the rows that were merged into this question."""
    about: str | None = None
    """The text that the question is about, if the question cannot be understood without it."""


@dataclass
class Intake:
    """Collects one data set into `folder`.

    Attributes:
        collect: keep a problem in `problems` and go on, instead of raising it.
        titles: False leaves every title out.
        encoding: how text files are written.
    """

    folder: Path
    collect: bool = False
    titles: bool = True
    encoding: str = "utf-8"
    problems: list[Problem] = field(default_factory=list)
    splits: dict[str, list[Asked]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._writer = PassageWriter(self.folder)
        self._remarks: Counter[str] = Counter()
        self._first_remarks: dict[str, Where] = {}
        self.column_report = ColumnReport()
        self._files: dict[tuple[str, str], int] = {}
        self._labels = FileLabels()
        self._aliases: dict[str, str] = {}
        self._mentioned: dict[str, str] = {}
        self._split_files: dict[str, str] = {}
        self._place_N, self._content_N = Column(self.folder / "places"), Column(self.folder / "contents")
        self._repeatable: dict[bytes, bytes] = {}
        self._where = Where("")

    # -- what formats call --

    def row(self, where: Where) -> Intake:
        """Use as `with intake.row(where):`. A `BadRow` raised inside is reported as a problem at `where`."""
        self._where = where
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, BadRow):
            self.problem(self._where, str(error), MISSING_COLUMN if isinstance(error, MissingColumn) else "bad row")
            return True
        return False

    def problem(self, where: Where, reason: str, kind: str = "bad row") -> None:
        """Report that something is wrong at `where`. Raises `RequestError` unless problems are collected."""
        if not self.collect:
            # Where no row before had the column either, there is no rest that could be kept.
            no_rest = kind == MISSING_COLUMN and (where.line is None or not any(self.splits.values()))
            raise (RequestError if no_rest else RefusedRow)(f"{where}: {reason}")
        self.problems.append(Problem(where, reason, kind))

    def remark(self, what: str, where: Where | None = None) -> None:
        """Record a note that is not an error. Equal notes are reported once, with their count and first place."""
        self._remarks[what] += 1
        self._first_remarks.setdefault(what, where or self._where)

    def columns(self, row: Iterable[str], used: Container[str]) -> None:
        """Record the columns of a row. `finish` adds a note with the columns that are not used."""
        self.column_report.row(row, used)

    def place(self, part: str = "") -> str:
        """The place of the present row, and `part` of it (`.ctxs[0]`): what a passage without an id is shown as."""
        return self._labels.place(self._where) + part

    def mention(self, id: str, place: str) -> None:
        """Record the `place` where a row holds a passage of the corpus: the message that it is missing names that."""
        self._mentioned.setdefault(id, place)

    def passage(
        self, id: str, text: str, title: str = "", *, repeatable: bool = False, place: str = "", alias: bool = False
    ) -> None:
        """Add one passage. With `repeatable`, the same passage may be added again, and is stored once.

        Args:
            place: what people see in place of the id, if that is a hash (`Passage.place`); the first one counts.
            alias: questions may name the passage by `place`.

        Raises:
            BadRow: the id or the text is empty or not valid Unicode, or the id was used for another content.
        """
        if self._aliases and (place if alias else id) in self._aliases:
            raise BadRow(f"passage id {place if alias else id!r} is used already")
        check_text("id", id)
        if not id.strip():
            raise BadRow("'id' is empty")
        check_text("text", text)
        check_text("title", title)
        check_text("id", place)
        if not text.strip() and not title.strip():
            raise BadRow("'text' is empty")
        if repeatable:
            content = content_bytes("\x1f".join(content_of(text, title)))
            first_content = self._repeatable.setdefault(content_bytes(id), content)
            if first_content is not content:
                if first_content != content:
                    raise BadRow(f"passage id {id!r} stands for another title or text here than before")
                return
        if alias:
            self._aliases[place] = id
        passage = Passage(id, text, title if self.titles else "", place)
        self._writer.add(passage)
        file = self._files.setdefault((self._where.file, self._where.inside), len(self._files))
        self._place_N.append(file << LINE_BITS | (self._where.line or 0))
        self._content_N.append(content_number(passage.text, passage.title))

    def split(self, name: str, file: str) -> None:
        """Record that the data has a split `name`, read from `file`. `finish` reports it if it is empty."""
        self.splits.setdefault(name, [])
        self._split_files.setdefault(name, file)

    def question(self, split: str, question: Question, group: str | None = None, about: str | None = None) -> None:
        """Add one question to `split`. Rows with the same question (and the same `about`, if given) are merged.

        Raises:
            BadRow: the question or an answer is empty, or is not valid Unicode.
        """
        check_text("question", question.question)
        if not question.question.strip():
            raise BadRow("'question' is empty")
        for name in ("answers", *REFERENCES):
            values = getattr(question, name)
            for value in values:
                check_text(name, value)
                if not value.strip():
                    raise BadRow(f"{name!r} holds an empty string")
        for turn in question.history:
            check_text("history", turn.content)
        for name in ("relevance", "scores"):
            for value in getattr(question, name) or ():
                check_text(name, value)
        check_text("id", question.id)
        check_text("group", group or "")
        own = self._aliases.get
        positives = {own(value, value) for value in question.positive_ids}
        both = [value for value in question.negative_ids if own(value, value) in positives]
        if both:
            raise BadRow(f"{min(both)!r} is in positive_ids and in negative_ids")
        changed: dict[str, Any] = {
            name: _once(own(value, value) for value in getattr(question, name)) for name in REFERENCES
        }
        for name in ("relevance", "scores") if self._aliases else ():
            numbers = getattr(question, name)
            changed[name] = numbers and {own(value, value): number for value, number in numbers.items()}
        question = dataclasses.replace(question, **changed)
        self.splits.setdefault(split, []).append(Asked(question, self._where, group, about=about))

    # -- the whole --

    def finish(self) -> PassageStore:
        """Close the corpus and check what needs all rows: repeated ids, missing passages, empty splits.

        Raises:
            RequestError: as in `problem`; also if there is no passage at all, even when problems are collected.
        """
        self._writer.close()
        store = PassageStore(self.folder)
        self._places, contents_N = self._place_N.values(), self._content_N.values()
        twice = store.repeated_rows()
        for first, later in twice:
            self.problem(
                self.passage_place(later),
                f"passage id {store[later].shown_id!r} is used by {self.passage_place(first)} already",
                "duplicate passage id",
            )
        if twice:
            unique_rows = np.setdiff1d(np.arange(len(store)), [later for _, later in twice])
            store = self._only(unique_rows, store)
            self._places, contents_N = self._places[unique_rows], contents_N[unique_rows]
        store = self._without_misleading(store)
        for sentence in self.column_report.missing():
            self.problem(Where(next(iter(self._split_files.values()), "")), sentence, MISSING_COLUMN)
        if not len(store):
            raise RequestError(self._nothing())
        self._check_questions(store)
        self.notes += [self._sentence(what) for what in self._remarks]
        self._join_copies(store, contents_N)
        self.notes += self.column_report.notes()
        for column in (self._place_N, self._content_N):
            column.remove()
        return store

    def _join_copies(self, store: PassageStore, contents_N: np.ndarray) -> None:
        """Make copies of positives positives too, and add notes with the counts."""
        entries = [one for questions in self.splits.values() for one in questions]
        ids = {value for one in entries for value in (*one.question.positive_ids, *(one.question.relevance or ()))}
        ids -= set(store.missing(listed := sorted(ids)))
        golds = store.rows([value for value in listed if value in ids]).tolist()
        copies, counts = Copies(store, contents_N, golds, self.folder), Counter[str]()
        for one in entries if copies.ids else ():
            one.question = copies.applied(one.question, counts)
        if copies.repeated:
            self.notes.append(f"{copies.repeated} passages have the title and text of another passage under another id")
        if counts["added"]:
            self.notes.append(f"{counts['added']} copies of gold passages are gold too, and count as one with them")
        if counts["dropped"]:
            self.notes.append(f"{counts['dropped']} listed negatives are copies of a gold passage, and are left out")

    def passage_place(self, row: int) -> Where:
        """The file and line from which the passage of `row` was read."""
        place = int(self._places[row])
        file, inside = list(self._files)[place >> LINE_BITS]
        return Where(file, place % (1 << LINE_BITS) or None, inside)

    def _nothing(self) -> str:
        first = f"; the first problem: {self.problems[0]}" if self.problems else ""
        first = first or "".join(f"; {self._sentence(what)}" for what in self._remarks)
        return f"there is not one usable passage in the data{first}"

    def _without_misleading(self, store: PassageStore) -> PassageStore:
        """The store, in which no passage is shown by the id of another one; each such is shown by its own id."""
        rows = set(misleading_rows(store))
        for row in sorted(rows) if self._aliases else ():
            reason = f"passage id {store[row].shown_id!r} is used by another passage already"
            self.problem(self.passage_place(row), reason, "duplicate passage id")
        return self._only(np.arange(len(store)), store, rows) if rows else store

    def _only(self, rows: np.ndarray, store: PassageStore, placeless: Container[int] = ()) -> PassageStore:
        """Write the store again with these `rows` only, those in `placeless` without their place."""
        again = self.folder / "again"
        again.mkdir()
        writer = PassageWriter(again)
        for row in rows:
            passage = store[row]
            writer.add(dataclasses.replace(passage, place="") if row in placeless else passage)
        writer.close()
        # The old files are deleted, but stay readable as long as `store` is open.
        for path in again.iterdir():
            path.replace(self.folder / path.name)
        again.rmdir()
        return PassageStore(self.folder)

    def _check_questions(self, store: PassageStore) -> None:
        for name, entries in self.splits.items():
            entry_by_id: dict[str, Asked] = {}
            same: dict[tuple[str, str | None], Asked] = {}
            for one in entries:
                key = (question_key(one.question), one.about)
                first, earlier = entry_by_id.get(one.question.id), same.get(key)
                if first is not None and first is not earlier:
                    self.problem(one.where, f"question id {one.question.id!r} is used by {first.where} already")
                    continue
                entry = self._with_passages(one, store)
                if entry is None:
                    continue
                if earlier is not None:
                    self._pool(earlier, entry)
                else:
                    entry_by_id[one.question.id] = same[key] = entry
            self.splits[name] = list(entry_by_id.values())
            if not entry_by_id:
                file = self._split_files.get(name, name)
                why = "".join(f"; {self._sentence(what)}" for what in self._remarks)
                self.problem(Where(file), f"the {name} split has no questions{why}", "empty split")
        for name in [name for name, entries in self.splits.items() if not entries]:
            del self.splits[name]

    def _with_passages(self, one: Asked, store: PassageStore) -> Asked | None:
        """The question without ids of passages that do not exist; None if no positive is left."""
        changed: dict[str, Any] = {}
        for name in REFERENCES:
            ids = getattr(one.question, name)
            missing = store.missing(ids)
            if missing:
                kind = "gold passage missing" if name == "positive_ids" else "listed passage missing"
                shown = self._mentioned.get(missing[0], missing[0])
                self.problem(one.where, f"{name} has {shown!r}, and no passage has that id", kind)
                changed[name] = tuple(value for value in ids if value not in set(missing))
        scores = one.question.scores or {}
        missing = store.missing(list(scores))
        if missing:
            self.problem(one.where, f"scores has {missing[0]!r}, and no passage has that id", "listed passage missing")
            changed["scores"] = {name: scores[name] for name in scores if name not in set(missing)} or None
        if "positive_ids" in changed and not changed["positive_ids"]:
            return None
        if not changed:
            return one
        return dataclasses.replace(one, question=dataclasses.replace(one.question, **changed))

    def _pool(self, first: Asked, other: Asked) -> None:
        """Merge into `first` what another row says about the same question."""
        self.remark(
            "rows ask the same question: they are merged into one, with the positives and answers of all of them",
            other.where,
        )
        one, two = first.question, other.question
        if other.group not in (None, first.group):
            first.more_groups = _once([*first.more_groups, *([other.group] if other.group else [])])
        relevance = one.relevance
        if one.relevance is not None or two.relevance is not None:
            relevance = dict(one.relevance if one.relevance is not None else dict.fromkeys(one.positive_ids, 1))
            others = two.relevance if two.relevance is not None else dict.fromkeys(two.positive_ids, 1)
            for value, grade in others.items():
                relevance[value] = max(grade, relevance.get(value, grade))
        positives = _once([*one.positive_ids, *two.positive_ids])
        listed = _once([*one.negative_ids, *two.negative_ids])
        negatives = tuple(value for value in listed if value not in set(positives))
        if len(negatives) < len(listed):
            self.remark(
                "a negative of a question is left out: another row has it as a positive of the same question",
                other.where,
            )
        first.question = dataclasses.replace(
            one,
            answers=_once([*one.answers, *two.answers]),
            positive_ids=positives,
            negative_ids=negatives,
            relevance=relevance,
            scores={**(two.scores or {}), **(one.scores or {})} or None,
            candidate_ids=_once([*one.candidate_ids, *two.candidate_ids]),
        )

    def _sentence(self, what: str) -> str:
        count, where = self._remarks[what], self._first_remarks[what]
        return f"{what} ({where})" if count == 1 else f"{what} ({count} times, first {where})"


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
