"""Mine hard negatives: passages that a retriever takes for the gold one, without those that may be gold themselves.

For each question, the miner takes candidates from BM25, from the encoder, or from both in turn; removes the gold
passages and their copies; keeps a range of ranks; applies the filters, and counts what each removes; and takes
`mine.count` of the rest. The filters remove false negatives (Moreira et al. 2024, NV-Retriever; Qu et al. 2021,
RocketQA):

    margin            drop n where s(q,n) > s(q,p) - m·|s(q,p)|, s the encoder's similarity (m = 0.05: 95 %)
    margin_absolute   drop n where s(q,n) > s(q,p) - m
    cross_encoder     drop n where c(q,n) > c(q,p) - cross_encoder_margin, c the cross-encoder's logit
    answer_match      drop n that holds one of the answers word for word

With several gold passages, p is the one with the lowest score. Memory holds one block of questions; the size of the
corpus only affects the encoder's index and its memory-mapped vectors.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from tqdm.auto import tqdm

from rag_experiments.config.schema import NonNegativeInt, PositiveInt, RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.core.text import identity, stands_in, word_count
from rag_experiments.data.negatives import highest_score, without_texts
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.queries import retrieval_query
from rag_experiments.data.records import Question

if TYPE_CHECKING:
    from rag_experiments.models.encoder.encoder import Encoder

SHORTEST_ANSWER = 4
"""Shorter answers are not searched in passages, because a text such as `no` is in most of them. In a script without
spaces between words, two characters are enough."""


@dataclass(kw_only=True)
class MineOptions:
    """Keys of `mine`."""

    retrievers: Annotated[list[Literal["bm25", "encoder"]], Field(min_length=1)] = field(
        default_factory=lambda: ["bm25", "encoder"]
    )
    count: PositiveInt = 4
    """Maximum number of negatives per question."""
    first_rank: PositiveInt = 1
    """The first rank that is used, not counting gold passages; a higher value skips the likeliest false negatives."""
    last_rank: PositiveInt = 50
    sampling: Literal["top", "random"] = "top"
    margin: Annotated[float, Field(ge=0, lt=1)] | None = 0.05
    margin_absolute: Annotated[float, Field(ge=0)] | None = None
    cross_encoder: str | None = None
    """A reranker: a run of `algorithm=rerank` (`run://…`), or a model with one output, local or on the hub."""
    cross_encoder_margin: float = 0.0
    answer_match: bool = True
    keep_listed: bool = True
    """False: the mined negatives replace those that the data lists."""
    splits: Annotated[list[Literal["train", "dev", "test"]], Field(min_length=1)] = field(
        default_factory=lambda: ["train"]
    )
    processes: PositiveInt = 1
    """Number of processes for BM25; each memory-maps the index."""
    block: PositiveInt = 1024
    """Number of questions that are processed together."""
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if self.first_rank > self.last_rank:
            raise ValueError(f"first_rank ({self.first_rank}) is beyond last_rank ({self.last_rank})")

    @property
    def needs_encoder(self) -> bool:
        """Whether the options need an encoder, to search or to filter."""
        return "encoder" in self.retrievers or self.margin is not None or self.margin_absolute is not None


@dataclass
class Mined:
    """Questions with their negatives, and counts of the dropped candidates by reason."""

    splits: dict[str, list[Question]]
    counts: Counter[str]

    def lines(self, options: MineOptions) -> list[str]:
        """The report."""
        questions = [question for name in options.splits for question in self.splits[name]]
        counts = [len(question.negative_ids) for question in questions]
        lines = [f"candidates  {self.counts['candidates']:,} in ranks {options.first_rank} to {options.last_rank}"]
        lines += [f"dropped     {self.counts[name]:,} {text}" for name, text in DROPPED.items() if name in self.counts]
        lines.append(
            f"negatives   {sum(counts) / max(1, len(counts)):.2f} per question; {sum(not n for n in counts):,} of "
            f"{len(counts):,} questions have none"
        )
        if self.counts["without gold"]:
            lines.append(f"note        {self.counts['without gold']:,} questions have no gold passage and get none")
        return lines


DROPPED = {
    "margin": "by the margins of the encoder's scores",
    "answer": "that hold an answer",
    "cross-encoder": "by the cross-encoder",
}


@dataclass
class Miner:
    """Mines one corpus.

    Attributes:
        judge: `(query, gold texts, texts) -> keep`, the cross-encoder's filter; None if there is none.
    """

    passages: PassageStore
    options: MineOptions
    retriever: RetrieverConfig
    query_history: str
    cache: Path
    encoder: Encoder | None = None
    judge: Any = None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.options.needs_encoder and self.encoder is None:
            raise RequestError("mine.retrievers or mine.margin need an encoder: choose one with model=…")
        self._dense: Any = None
        if self.encoder is not None:
            from rag_experiments.retrieval.dense import DenseRetriever

            self._dense = DenseRetriever(self.retriever, self.passages, self.encoder, self.cache)

    def mine(self, splits: dict[str, list[Question]], progress: bool = True) -> Mined:
        """Add negatives to every split in `options.splits`; other splits are not changed."""
        done = dict(splits)
        with ExitStack() as stack:
            pool = self._pool(stack)
            for name in self.options.splits:
                done[name] = list(
                    self._questions(
                        splits[name], pool, tqdm(total=len(splits[name]), desc=f"mining {name}", disable=not progress)
                    )
                )
        return Mined(done, self.counts)

    def _questions(self, questions: list[Question], pool: Any, bar: Any) -> Iterator[Question]:
        with bar:
            for start in range(0, len(questions), self.options.block):
                block = questions[start : start + self.options.block]
                queries = [retrieval_query(question, self.query_history) for question in block]
                vectors_QD = None if self.encoder is None else self.encoder.embed_queries(queries)
                for number, (question, ranked) in enumerate(
                    zip(block, self._ranked(queries, block, pool), strict=True)
                ):
                    vector_D = None if vectors_QD is None else vectors_QD[number]
                    yield self._negatives(question, queries[number], ranked, vector_D)
                    bar.update(1)

    def _negatives(
        self, question: Question, query: str, ranked: list[np.ndarray], vector_D: np.ndarray | None
    ) -> Question:
        if not question.positive_ids:
            self.counts["without gold"] += 1
            return question
        golds = self.passages.rows(question.positive_ids)
        gold_texts = self.passages.full_texts(golds)
        listed = question.negative_ids if self.options.keep_listed else ()
        barred = {*golds.tolist(), *self.passages.rows(listed).tolist()}
        rows = self._in_range(ranked, barred, {identity(text) for text in gold_texts})
        self.counts["candidates"] += len(rows)
        rows = self._by_margin(rows, golds, vector_D)
        rows = self._by_answer(rows, question)
        rows = self._by_cross_encoder(rows, query, gold_texts)
        if self.options.sampling == "random":
            draws = random.Random(f"{self.options.seed}/{question.id}")
            rows = draws.sample(rows, min(self.options.count, len(rows)))
        mined = self.passages.ids(rows[: self.options.count])
        return replace(question, negative_ids=tuple(dict.fromkeys([*listed, *mined])))

    def _in_range(self, ranked: list[np.ndarray], barred: set[int], gold_texts: set[str]) -> list[int]:
        """Rows in the range of ranks, taken from the retrievers in turn."""
        lists = []
        for rows in ranked:
            candidates = [int(row) for row in rows if row >= 0 and int(row) not in barred]
            candidates = without_texts(candidates, self.passages.full_texts, gold_texts)
            lists.append(candidates[self.options.first_rank - 1 : self.options.last_rank])
        turns = (rows[place] for place in range(max(map(len, lists))) for rows in lists if place < len(rows))
        return list(dict.fromkeys(turns))

    def _by_margin(self, rows: list[int], golds: np.ndarray, vector_D: np.ndarray | None) -> list[int]:
        if vector_D is None or not rows or (self.options.margin is None and self.options.margin_absolute is None):
            return rows
        vectors_ND = self._dense.vectors
        gold_scores = (np.asarray(vectors_ND[golds]) @ vector_D).tolist()
        limit = highest_score(gold_scores, self.options.margin, self.options.margin_absolute)
        scores = np.asarray(vectors_ND[np.array(rows)]) @ vector_D
        survivors = [row for row, score in zip(rows, scores.tolist(), strict=True) if score <= limit]
        self.counts["margin"] += len(rows) - len(survivors)
        return survivors

    def _by_answer(self, rows: list[int], question: Question) -> list[int]:
        answers = [answer for answer in question.answers if _long_enough(answer)]
        if not self.options.answer_match or not answers or not rows:
            return rows
        texts = self.passages.full_texts(rows)
        survivors = [row for row, text in zip(rows, texts, strict=True) if not stands_in(answers, [text])]
        self.counts["answer"] += len(rows) - len(survivors)
        return survivors

    def _by_cross_encoder(self, rows: list[int], query: str, gold_texts: Sequence[str]) -> list[int]:
        if self.judge is None or not rows:
            return rows
        keep = self.judge(query, gold_texts, self.passages.full_texts(rows))
        survivors = [row for row, stays in zip(rows, keep, strict=True) if stays]
        self.counts["cross-encoder"] += len(rows) - len(survivors)
        return survivors

    # -- candidates --

    def _ranked(self, queries: list[str], block: list[Question], pool: Any) -> Iterator[list[np.ndarray]]:
        """For each question, the first rows of each retriever: enough of them to remove the gold ones."""
        golds = max(len(question.positive_ids) + len(question.negative_ids) for question in block)
        depth = min(self.options.last_rank + golds + 8, len(self.passages))
        rankings = []
        for name in self.options.retrievers:
            if name == "encoder":
                rankings.append(self._dense.search(queries, depth).rows_QK)
            else:
                size = max(1, -(-len(queries) // self.options.processes))
                parts = [queries[start : start + size] for start in range(0, len(queries), size)]
                run = pool.map if pool is not None else map
                if pool is None:
                    _open_bm25(self.retriever, self.passages.path, self.cache)
                rankings.append(np.concatenate(list(run(_search_bm25, parts, [depth] * len(parts)))))
        return (list(rows) for rows in zip(*rankings, strict=True))

    def _pool(self, stack: ExitStack) -> Any:
        if "bm25" not in self.options.retrievers or self.options.processes == 1:
            return None
        _open_bm25(self.retriever, self.passages.path, self.cache)  # builds the index once, before the processes
        _search_bm25(["x"], 1)
        arguments = (self.retriever, self.passages.path, self.cache)
        return stack.enter_context(
            ProcessPoolExecutor(self.options.processes, get_context("spawn"), _open_bm25, arguments)
        )


_bm25: dict[str, Any] = {}
"""The BM25 index that is open in this process, by a key of everything that affects it."""


def _open_bm25(config: RetrieverConfig, path: Path, cache: Path) -> None:
    from rag_experiments.retrieval.bm25 import BM25Retriever

    key = repr((config, path, cache))
    if key not in _bm25:
        _bm25.clear()
        _bm25[key] = BM25Retriever(replace(config, type="bm25"), PassageStore(path), cache)


def _search_bm25(queries: list[str], depth: int) -> np.ndarray:
    (retriever,) = _bm25.values()
    return retriever.search(queries, depth).rows_QK


def _long_enough(answer: str) -> bool:
    answer = answer.strip()
    return len(answer) >= SHORTEST_ANSWER or (not answer.isascii() and word_count(answer) > len(answer.split()))
