"""Examine a data set for `check`, and format the report."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_experiments.config import data_formats
from rag_experiments.config.schema import ReaderConfig, RunConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.text import stands_in
from rag_experiments.data.builder import MISSING_COLUMN, REFERENCES, Intake, Problem
from rag_experiments.data.copies import content_number, content_of
from rag_experiments.data.cut_length import cut_key, shorter
from rag_experiments.data.load import NEEDS, RagData, assemble, fingerprint
from rag_experiments.data.number_columns import Column, sorted_runs
from rag_experiments.data.queries import question_key, retrieval_query
from rag_experiments.data.records import Passage, Question
from rag_experiments.data.tools.token_lengths import Counter as TokenCounter
from rag_experiments.data.tools.token_lengths import Lengths, token_counter

SHOWN = 240
"""Characters of a passage that is shown as it was cut."""
SPLIT_PAIRS = (("train", "dev"), ("train", "test"), ("dev", "test"))


@dataclass
class Findings:
    """The result of reading a data set to its end, with all problems."""

    config: RunConfig
    data: RagData | None
    """The usable part of the data; None if nothing is usable."""
    problems: list[Problem]
    nothing: str | None = None
    """The reason why nothing is usable."""
    same_text: dict[str, str] = field(default_factory=dict)
    """For a passage id, the first id with the same title and text."""

    def lines(self, examples: int, problems: int) -> list[str]:
        """The whole report."""
        lines = [f"data        {self.config.data.format}  {self.config.data.path or ''}".rstrip()]
        if self.data is not None:
            lines += self._counts(self.data) + self._lengths(self.data) + self._supervision(self.data)
            lines += self._overlaps(self.data) + self._reader(self.data)
            lines += [f"note        {note}" for note in self.data.notes]
            lines += self._cut_passages(self.data, examples)
            for number in range(examples):
                lines += self._example(self.data, number)
        return lines + self._problem_lines(problems)

    def verdict(self) -> str:
        """One sentence that says what is wrong."""
        if self.nothing:
            return self.nothing
        kinds = Counter(problem.kind for problem in self.problems)
        listed = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
        rest = "" if set(kinds) == {MISSING_COLUMN} else "; --fix DIR writes the rest"
        return f"{len(self.problems)} problem(s) ({listed}), the first: {self.problems[0]}{rest}"

    def passages_once(self) -> Iterator[Passage]:
        """Usable passages; copies are yielded only once."""
        assert self.data is not None
        return (passage for passage in self.data.passages if passage.id not in self.same_text)

    def questions_once(self) -> dict[str, list[Question]]:
        """Usable questions, with ids replaced by those of `passages_once`."""
        assert self.data is not None
        return {
            name: [self._renamed(question) for question in questions] for name, questions in self.data.splits.items()
        }

    def _renamed(self, question: Question) -> Question:
        def ids(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(self.same_text.get(value, value) for value in values))

        changed: dict[str, Any] = {name: ids(getattr(question, name)) for name in REFERENCES}
        positives = set(changed["positive_ids"])
        changed["negative_ids"] = tuple(value for value in changed["negative_ids"] if value not in positives)
        grades = question.relevance
        if grades is not None:
            merged: dict[str, int] = {}
            for value, grade in grades.items():
                value = self.same_text.get(value, value)
                merged[value] = max(grade, merged.get(value, grade))
            grades = merged
        scores: dict[str, float] = {}
        for value, score in (question.scores or {}).items():
            scores.setdefault(self.same_text.get(value, value), score)
        return replace(question, relevance=grades, scores=scores or None, copies={}, **changed)

    # -- parts of the report --

    def _counts(self, data: RagData) -> list[str]:
        golds = {value for questions in data.splits.values() for q in questions for value in q.positive_ids}
        several = sum(len(q.distinct_golds) > 1 for questions in data.splits.values() for q in questions)
        same = f", {len(self.same_text):,} with the title and text of another" if self.same_text else ""
        counts = ", ".join(f"{len(questions):,} {name}" for name, questions in data.splits.items())
        more = f"; {several:,} have several gold passages" if several else ""
        return [
            f"passages    {len(data.passages):,} ({len(golds):,} gold{same})",
            f"questions   {counts}{more}",
        ]

    def _lengths(self, data: RagData) -> list[str]:
        counter = token_counter(self.config)
        sample = range(0, len(data.passages), max(1, len(data.passages) // 20_000))
        passages = Lengths.of(counter.count(data.passages.full_texts(list(sample)), "passage"))
        questions = [q for split in data.splits.values() for q in split]
        queries = Lengths.of(counter.count([self._query(q) for q in questions], "query"))
        lines = [
            f"lengths     {counter.unit}; the passages' and queries' median, 90 %, 99 %, longest",
            f"  passages  {passages}{counter.cut_note(passages, 'passage')}{self._advice(counter, passages)}",
            f"  queries   {queries}{counter.cut_note(queries, 'query')}",
        ]
        answers = [answer for q in questions for answer in q.answers[:1]]
        if answers:
            lines.append(f"  answers   {Lengths.of(counter.count(answers))}")
        return lines

    def _advice(self, counter: TokenCounter, passages: Lengths) -> str:
        limit = counter.limits.get("passage") if counter.tokenizer is not None else None
        advice = shorter(self.config.data, passages.counts, limit) if limit else ""
        return f"; with {advice} 99 % would be read whole" if advice else ""

    def _cut_passages(self, data: RagData, number: int) -> list[str]:
        """The first passages of a format that cuts texts, with their lengths, each from its beginning to its end."""
        key = cut_key(self.config.data)
        if key is None or not number:
            return []
        shown = [data.passages[row] for row in range(min(number, len(data.passages)))]
        counter = token_counter(self.config)
        unit = "words" if counter.tokenizer is None else "tokens"
        lines = ["", f"passages as they were cut (data.{key}={getattr(self.config.data, key)}):"]
        for passage, length in zip(shown, counter.count([one.full_text for one in shown], "passage"), strict=True):
            text = " ".join(passage.full_text.split())
            text = text if len(text) <= SHOWN else f"{text[: SHOWN * 2 // 3]} … {text[-SHOWN // 3 :]}"
            lines.append(f"  {passage.shown_id}  {length} {unit}  {text}")
        return lines

    def _reader(self, data: RagData) -> list[str]:
        """What the reader of `model=` cannot read or write; also among the notes."""
        if not isinstance(self.config.model, ReaderConfig):
            return []
        from rag_experiments.algorithms.shared.reader_examples import check_examples

        try:
            check_examples(self.config, data)
        except RequestError as error:
            return [f"reader      a training question cannot be used: {error}"]
        return [f"reader      answers of {self.config.model.max_new_tokens} tokens at most"]

    def _supervision(self, data: RagData) -> list[str]:
        lines = []
        for name, questions in data.splits.items():
            without_gold = sum(not q.positive_ids for q in questions)
            without_answer = sum(not q.answers for q in questions)
            judged = [q for q in questions if q.answers and q.positive_ids]
            outside = sum(not answer_in_passages(q, data) for q in judged)
            if outside:
                in_gold = f"{outside:,} of {len(judged):,} answers appear in no gold passage"
            else:
                in_gold = f"all {len(judged):,} answers appear in a gold passage" if judged else ""
            if questions:
                counts = (
                    f"{name:<11} {without_gold:,} without a gold passage, {without_answer:,} without an answer, "
                    f"{sum(bool(q.negative_ids) for q in questions):,} with listed negatives"
                )
                scored = sum(bool(q.scores) for q in questions)
                counts += f", {scored:,} with listed scores" if scored else ""
                lines.append("; ".join(part for part in (counts, in_gold) if part))
        return lines

    def _overlaps(self, data: RagData) -> list[str]:
        lines = []
        for first, second in SPLIT_PAIRS:
            keys = [{question_key(q) for q in data.splits[name]} for name in (first, second)]
            golds = [
                {self.same_text.get(value, value) for q in data.splits[name] for value in q.positive_ids}
                for name in (first, second)
            ]
            if data.splits[first] and data.splits[second]:
                lines.append(
                    f"overlap     {first} and {second}: {len(keys[0] & keys[1]):,} questions, "
                    f"{len(golds[0] & golds[1]):,} gold passages in both"
                )
        return lines

    def _example(self, data: RagData, number: int) -> list[str]:
        split = next((name for name, questions in data.splits.items() if questions), "train")
        if number >= len(data.splits[split]):
            return []
        question = data.splits[split][number]
        counter = token_counter(self.config)
        lines = ["", f"{split} {question.id}  ({data.places.get(split, {}).get(question.id, '')})"]
        lines.append(f"  query     {counter.as_seen(self._query(question), 'query')}")
        for row in data.passages.rows(question.positive_ids[:1]):
            text = counter.as_seen(data.passages[int(row)].full_text, "passage")
            lines.append(f"  gold      {text[:600]}{'…' if len(text) > 600 else ''}".replace("\n", "\n            "))
        lines += [f"  answer    {answer}" for answer in question.answers[:1]]
        return lines

    def _query(self, question: Question) -> str:
        return retrieval_query(question, self.config.data.query_history)

    def _problem_lines(self, most: int) -> list[str]:
        if not self.problems:
            return ["", "no problem found" if self.nothing is None else f"nothing is usable: {self.nothing}"]
        shown = self.problems[:most]
        rest = len(self.problems) - len(shown)
        more = [f"  … and {rest:,} more (check.problems=… shows more)"] if rest else []
        return ["", f"{len(self.problems):,} problem(s):", *(f"  {problem}" for problem in shown), *more]


@contextmanager
def examine(config: RunConfig, cache: Path, needs: Sequence[str] = ()) -> Iterator[Findings]:
    """Read the whole of `config.data` and collect every problem. The passages are deleted when the block ends.

    Args:
        needs: the fields that every question must have (`NEEDS`); a question without one is a problem.

    Raises:
        RequestError: the files do not exist, or are of a kind that is never read (a pickle).
    """
    module = data_formats.reader(config.data.format)
    fingerprint(config.data)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="check-", dir=cache))
    except OSError as error:
        raise RequestError(f"paths.cache={cache} cannot be written: {error.strerror}") from error
    try:
        intake = Intake(folder, collect=True, titles=config.data.titles, encoding=config.data.encoding)
        module.read(config.data, intake)
        yield _findings(config, intake, needs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _findings(config: RunConfig, intake: Intake, needs: Sequence[str]) -> Findings:
    try:
        store = intake.finish()
        _leave_out(intake, needs)
        data = assemble(store, intake.splits, config.data, intake.notes)
    except RequestError as error:
        more = f"; the first problem: {intake.problems[0]}" if intake.problems else ""
        nothing = str(error) if more and more in str(error) else f"{error}{more}"
        return Findings(config, None, intake.problems, nothing=nothing)
    if not any(data.splits.values()) and config.data.format == "documents":
        data.notes.append(
            "there are no questions: give data.questions, or write some with rag_experiments.data.generate"
        )
    elif not any(data.splits.values()):
        kinds = Counter(problem.reason for problem in intake.problems).most_common(1)
        first = next((problem for problem in intake.problems if kinds and problem.reason == kinds[0][0]), None)
        why = f"; {kinds[0][1]} of {len(intake.problems)} problems are: {first}" if first else ""
        why = why or "".join(f"; {note}" for note in data.notes)
        return Findings(config, None, intake.problems, nothing=f"there is not one usable question{why}")
    return Findings(config, data, intake.problems, same_text=_same_texts(data, intake.folder))


def _leave_out(intake: Intake, needs: Sequence[str]) -> None:
    """Turn questions without a needed field into problems."""
    for need in needs:
        for name, rows in intake.splits.items():
            for one in rows:
                if not getattr(one.question, NEEDS[need]):
                    intake.problem(
                        one.where, f"the question has no {NEEDS[need]}, and check.needs has {need}", f"no {need}"
                    )
            intake.splits[name] = [one for one in rows if getattr(one.question, NEEDS[need])]


def _same_texts(data: RagData, folder: Path) -> dict[str, str]:
    """For each copy, the first passage id with the same title and text, ignoring spelling variants and spaces."""
    hashes = Column(folder / "texts")
    for passage in data.passages:
        hashes.append(content_number(passage.text, passage.title))
    same: dict[str, str] = {}
    for values, rows in sorted_runs(hashes.values(), folder):
        for place in np.flatnonzero(values[1:] == values[:-1]):
            earlier, later = data.passages[int(rows[place])], data.passages[int(rows[place + 1])]
            if _content(earlier) == _content(later):
                same[later.id] = same.get(earlier.id, earlier.id)
    hashes.remove()
    return same


def _content(passage: Passage) -> tuple[str, str]:
    return content_of(passage.text, passage.title)


def answer_in_passages(question: Question, data: RagData) -> bool:
    """Whether an answer occurs in a gold passage word for word, ignoring case and spelling variants."""
    return stands_in(question.answers, data.passages.full_texts(data.passages.rows(question.positive_ids)))
