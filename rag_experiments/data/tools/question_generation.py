"""Generate questions for passages: a language model writes them; they are kept if retrieval finds the passage again.

For a seeded sample of passages, the reader writes a question about the passage and then answers it from the passage.
A pair is dropped, and counted, when

    malformed       the question is empty, too short, or speaks of `the passage`
    repeated        the same question was written before
    unanswered      the answer is empty, cut off, says that there is no answer, or says nothing but the question
    unsupported     the passage lacks half of the question's words, or too many of the answer's (`generate.support`)
    not found       the retriever does not have the passage among its first `generate.round_trip_k`

The outcome of every passage is appended to `generated.jsonl` block by block, so that the same command continues an
interrupted one.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from tqdm.auto import tqdm

from rag_experiments.config.schema import NonNegativeInt, PositiveInt
from rag_experiments.core.digest import digest
from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_json, json_text
from rag_experiments.core.text import identity, word_count
from rag_experiments.data.builder import Asked
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.records import Passage, Question, Where

if TYPE_CHECKING:
    from rag_experiments.models.reader.reader import Reader
    from rag_experiments.retrieval.retriever import Retriever

CPU_BATCH = 4
LOG, SETTINGS = "generated.jsonl", "generate.json"
ASK = (
    "Write one short question that is answered by the text below. The question must make sense to somebody who "
    "does not see the text, so name what it is about. Write only the question."
)
ANSWER = "Answer the question from the text below, in a few words. Write only the answer."
_POINTS_AT_TEXT = re.compile(
    r"\b(the|this|that|given|above|following) (text|passage|document|paragraph|context)\b", re.I
)
_LABEL = re.compile(
    r"^(?:\s+|[-•>#]+\s+|\*\s+|\[\d+\]\s*|(?:\*\*|__)?(?:\(?\d{1,3}[.):](?=\s)|(?:question|answer|q|a)\s*\d*\s*[:.)])(?:\*\*|__)?)+",
    re.I,
)
"""What a small model writes before a question or an answer: `Q2:`, `1.`, `- `, `**`."""
_VERB = re.compile(r"\s(?:is|are|was|were)\s+(?:(?:that|to)\s+)?", re.I)
_NO_ANSWER = re.compile(
    r"^(i (do not|don't|cannot|can't)|there is no|not (mentioned|given|specified|stated)|unknown|n/?a\b)", re.I
)


@dataclass(kw_only=True)
class GenerateOptions:
    """Keys of `generate`."""

    passages: PositiveInt | None = 500
    """Number of passages for which a question is written, a seeded sample; null: all."""
    round_trip_k: PositiveInt = 10
    """A pair is kept only if the retriever finds the passage among its first `round_trip_k`."""
    round_trip: bool = True
    support: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of the answer's words, those of the question not counted, that the passage must have; 0: any pair."""
    shortest_passage: NonNegativeInt = 20
    """Passages with fewer words are skipped."""
    shortest_question: Annotated[int, Field(ge=1)] = 4
    question_tokens: PositiveInt = 40
    answer_tokens: PositiveInt = 32
    block: PositiveInt = 32
    """Number of passages whose outcomes are written together."""
    seed: NonNegativeInt = 0


@dataclass
class Generated:
    """The questions that were kept, and counts of the others by reason."""

    kept: list[dict[str, Any]]
    outcomes: Counter[str]

    def lines(self) -> list[str]:
        """The report."""
        total = sum(self.outcomes.values())
        lines = [f"passages    {total:,} asked about, {len(self.kept):,} questions kept"]
        lines += [f"dropped     {count:,} {name}" for name, count in self.outcomes.most_common() if name != "kept"]
        return lines


@dataclass
class Generator:
    """Writes pairs for one corpus into `folder`."""

    passages: PassageStore
    reader: Reader
    retriever: Retriever | None
    options: GenerateOptions
    folder: Path

    def run(self, progress: bool = True) -> Generated:
        """Process every chosen passage, beginning where an earlier run stopped.

        Raises:
            RequestError: the log in the folder was written with other settings.
        """
        self._open_log()
        done = read_log(self.folder / LOG)
        identities = {identity(row["question"]) for row in done if row["outcome"] == "kept"}
        over = {entry["row"] for entry in done}
        pending = [row for row in self.passage_rows() if row not in over]
        with tqdm(total=len(pending), desc="writing questions", disable=not progress) as bar:
            for start in range(0, len(pending), self.options.block):
                rows = pending[start : start + self.options.block]
                fresh = []
                for first in range(0, len(rows), self._batch):
                    fresh += self._pairs(rows[first : first + self._batch], identities)
                    bar.update(len(fresh) - first)
                append_log(self.folder / LOG, fresh)
                done += fresh
        pairs = [row for row in done if row["outcome"] == "kept"]
        return Generated(sorted(pairs, key=lambda row: row["row"]), Counter(row["outcome"] for row in done))

    @property
    def _batch(self) -> int:
        """Passages that the reader reads at a time; the bar moves after each batch, on a CPU every few seconds."""
        size = int(self.reader.config.batch_size)
        return min(size, CPU_BATCH) if self.reader.device.type == "cpu" else size

    def passage_rows(self) -> list[int]:
        """Rows of the passages for which questions are written, in corpus order."""
        long_enough = [
            row
            for row, passage in enumerate(self.passages)
            if word_count(passage.text) >= self.options.shortest_passage
        ]
        limit = self.options.passages
        if limit is None or limit >= len(long_enough):
            return long_enough
        return sorted(random.Random(self.options.seed).sample(long_enough, limit))

    def _pairs(self, rows: Sequence[int], identities: set[str]) -> list[dict[str, Any]]:
        """One entry per passage: its row, id and place, question and answer, and `kept` or why it was dropped."""
        passages = [self.passages[row] for row in rows]
        texts = self._write(ASK, passages, ["Write the question."] * len(rows), self.options.question_tokens)
        questions = [clean_question(text) for text in texts]
        answers = self._write(ANSWER, passages, questions, self.options.answer_tokens)
        answers = [
            without_question(clean_answer(text), question) for text, question in zip(answers, questions, strict=True)
        ]
        round_trips = self._round_trips(questions, rows)
        entries = []
        for row, passage, question, answer, again in zip(rows, passages, questions, answers, round_trips, strict=True):
            outcome = self._outcome(question, answer, passage.full_text, again, identities)
            if outcome == "kept":
                identities.add(identity(question))
            place = {"place": passage.place} if passage.place else {}
            entry = {"row": row, "id": passage.id, **place, "question": question, "answer": answer, "outcome": outcome}
            entries.append(entry)
        return entries

    def _write(self, instruction: str, passages: list[Passage], questions: list[str], tokens: int) -> list[str]:
        builder = replace(self.reader.prompts, instruction=instruction, reserve=tokens)
        prompts = [
            builder.build(question or "?", [passage], name=passage.shown_id)
            for passage, question in zip(passages, questions, strict=True)
        ]
        return [str(answer) for answer in self.reader.generate(prompts, max_new_tokens=tokens)]

    def _round_trips(self, questions: list[str], rows: Sequence[int]) -> list[bool]:
        if self.retriever is None:
            return [True] * len(rows)
        result = self.retriever.search([question or "?" for question in questions], self.options.round_trip_k)
        return [row in top_rows for row, top_rows in zip(rows, result.rows_QK.tolist(), strict=True)]

    def _outcome(self, question: str, answer: str, passage: str, round_trip: bool, identities: set[str]) -> str:
        if word_count(question) < self.options.shortest_question or _POINTS_AT_TEXT.search(question):
            return "malformed"
        if identity(question) in identities:
            return "repeated"
        if not _terms(answer) - _terms(question) or _NO_ANSWER.match(answer) or self._is_cut(answer):
            return "unanswered"
        if self.options.support and not is_supported(question, answer, passage, self.options.support):
            return "unsupported"
        return "kept" if round_trip else "not found"

    def _is_cut(self, answer: str) -> bool:
        """Whether the answer is nearly as long as it may be and stops without an end."""
        return word_count(answer) > self.options.answer_tokens / 3 and not answer.endswith((".", "!", "?", ")", '"'))

    def _open_log(self) -> None:
        """Make the folder, or check that its content was written with the same settings."""
        settings = {
            "corpus": self.passages.content_hash,
            "reader": self.reader.fingerprint(),
            "retriever": None if self.retriever is None else self.retriever.fingerprint(),
            "options": {key: value for key, value in asdict(self.options).items() if key != "block"},
            "prompts": digest(ASK, ANSWER),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / SETTINGS
        if not file.is_file():
            atomic_write_json(file, settings)
            return
        earlier = _json(file, file.read_bytes())
        for key, value in settings.items():
            if earlier.get(key) != value:
                raise RequestError(
                    f"{self.folder} was begun with another {key}: name a new folder, or remove this one to begin again"
                )


def read_log(file: Path) -> list[dict[str, Any]]:
    """The entries of the log; an incomplete last line (the process was killed) is cut off."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with open(file, "r+b") as log:
            log.truncate(len(whole))
    return [_json(Where(str(file), number), line) for number, line in enumerate(whole.splitlines(), 1)]


def _json(where: object, text: bytes) -> dict[str, Any]:
    """Parse a file that this command wrote. Raises `RequestError` if it has another form."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RequestError(f"{where} is not as generate wrote it ({error}): name a new folder") from error
    if not isinstance(value, dict):
        raise RequestError(f"{where} is not as generate wrote it: name a new folder")
    return value


def append_log(file: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Append lines; they are on disk when this returns."""
    with open(file, "a", encoding="utf-8") as log:
        log.writelines(json_text(entry) + "\n" for entry in entries)
        log.flush()
        os.fsync(log.fileno())


def clean_question(text: str) -> str:
    """The first line with a question, without a label or number before it, up to its question mark."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if "?" in line), lines[0] if lines else "")
    line = _LABEL.sub("", line).strip("\"'*_ ")
    if "?" in line:
        return line[: line.index("?") + 1].strip()
    # Without a question mark the text was cut off or is not a question.
    return ""


def clean_answer(text: str) -> str:
    """The first paragraph of the answer, without a label before it."""
    first = " ".join(text.strip().split("\n\n")[0].split())
    answer = _LABEL.sub("", first).replace("`", "").strip()
    return re.sub(r"^(\*\*|[\"'])((?:(?!\1).)*)\1$", r"\2", answer).strip()


def without_question(answer: str, question: str) -> str:
    """The answer without the question that a reader repeats before it: `The name of it is x` is `x`."""
    asked = _terms(question)
    for verb in reversed(list(_VERB.finditer(answer))):
        rest = answer[verb.end() :].strip()
        if rest and _terms(answer[: verb.start()]) <= asked:
            return rest
    return answer


def is_supported(question: str, answer: str, passage: str, share: float) -> bool:
    """Whether the passage has half of the question's words, and `share` of those that the answer adds to them."""
    asked, held = _terms(question), _terms(passage)
    added = _terms(answer) - asked
    return len(asked & held) >= len(asked) / 2 and len(added & held) >= share * len(added)


def _terms(text: str) -> set[str]:
    """What BM25 compares: stems without stop words."""
    from rag_experiments.retrieval.bm25 import terms_of

    return set(terms_of(text))


def as_asked(pairs: Sequence[dict[str, Any]]) -> list[Asked]:
    """The kept pairs as questions; those on one document form a group, which a split keeps together."""
    return [
        Asked(
            Question(
                id=f"generated-{row['row']}",
                question=row["question"],
                answers=(row["answer"],),
                positive_ids=(row["id"],),
            ),
            Where(LOG, number),
            row["id"].rpartition("#")[0] or None,
        )
        for number, row in enumerate(pairs, 1)
    ]
