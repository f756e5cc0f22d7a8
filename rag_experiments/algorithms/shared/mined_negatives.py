"""Hard negatives that the encoder finds itself while it trains (Xiong et al. 2021, ANCE).

For each training question the encoder's current weights rank the corpus; gold passages, and what has their text or
nearly so, are left out; of the rest a range of ranks is kept, less what may be gold without a label:

    margin            drop n where s(q,n) > s(q,p) - m·|s(q,p)|, s the encoder's similarity (m = 0.05: 95 %)
    margin_absolute   drop n where s(q,n) > s(q,p) - m
    judge             drop n where c(q,n) > c(q,p) - m, c a cross-encoder's logit

With several gold passages, p is the one with the lowest score. `data.mine` has the same filters, once and before
training. These negatives are `Candidates`: searched again every N steps, kept in every checkpoint.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from rag_experiments.core import distributed
from rag_experiments.core.text import identity, run_of
from rag_experiments.data.negatives import highest_score, near_equal, without_texts
from rag_experiments.retrieval.candidates import Candidates, dense_part
from rag_experiments.retrieval.retriever import Retriever

log = logging.getLogger(__name__)

SPARE = 8
"""Ranks searched beyond those that are kept and the gold passages, for what has a gold one's text."""
RUNS_KEPT = 20_000
"""Passages whose tokens stay in memory: neighbouring questions find the same ones."""

Judge = Callable[[Sequence[tuple[int, Sequence[int]]]], list[list[float]]]
"""`(number of a question, rows)` pairs → the score of each row, for each pair."""


@dataclass(frozen=True, kw_only=True)
class MiningRules:
    """Which ranks are kept, and which filters are applied; names and meanings are those of CTL's keys."""

    first_rank: int
    last_rank: int
    margin: float | None
    margin_absolute: float | None
    guide_margin: float = 0.0
    """Of the judge's scores."""

    @classmethod
    def of(cls, config: Any) -> MiningRules:
        """The rules that an algorithm's `config` has as keys of the same names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


DROPPED = {
    "margin": "by the margins of the encoder's scores",
    "judge": "by the guide",
}


class MinedNegatives(Candidates):
    """`rows_QK`: the negatives of each training question, best first; K is the number of ranks; -1: none."""

    def __init__(
        self,
        retriever: Retriever,
        queries: Sequence[str],
        golds: Sequence[Sequence[int]],
        rules: MiningRules,
        judge: Judge | None = None,
        progress: bool = True,
    ) -> None:
        """Nothing is searched here.

        Args:
            retriever: of it the vectors' part searches, whose encoder trains.
            golds: rows of every gold passage of each question, one at least.
            judge: a cross-encoder's scores; every process calls it for its own share of the questions.

        Raises:
            RequestError: the retriever has no vectors.
        """
        self.dense = dense_part(retriever, "algorithm.negatives: they are mined by the encoder's own scores")
        self.known = golds
        self.rules = rules
        self.judge = judge
        ranks = min(rules.last_rank, len(retriever.passages)) - rules.first_rank + 1
        super().__init__(self.dense, queries, max(1, ranks), progress=progress)
        most = max((len(rows) for rows in golds), default=0)
        self.depth = min(rules.last_rank + most + SPARE, len(retriever.passages))
        self.counts: Counter[str] = Counter()
        self._run = lru_cache(maxsize=RUNS_KEPT)(lambda row: run_of(self.dense.passages.full_texts([row])[0]))

    def refresh(self) -> dict[str, float]:
        """As `Candidates.refresh`, with what the filters dropped; logs a sentence about it.

        `candidates_changed` counts the negatives that were none before, among those there are.
        """
        before_QK = self._rows_QK
        self.counts.clear()
        figures = super().refresh()
        if before_QK is not None:
            figures["candidates_changed"] = _share_new(before_QK, self.rows_QK)
        without = int((self.rows_QK < 0).all(axis=1).sum())
        figures |= {f"dropped_by_{name}": float(self.counts[name]) for name in self._filters()}
        figures["questions_without_mined"] = without / max(1, len(self.queries))
        log.info("%s", self.sentence())
        if without > len(self.queries) / 2:
            log.warning(
                "%d of %d questions have no mined negative: algorithm.margin=null or a larger algorithm.last_rank "
                "leaves more",
                without,
                len(self.queries),
            )
        return figures

    def sentence(self) -> str:
        """What the last search found and dropped."""
        without = int((self.rows_QK < 0).all(axis=1).sum())
        parts = [
            f"mined negatives: {self.counts['candidates']:,} in ranks {self.rules.first_rank} to "
            f"{self.rules.last_rank}, {self.counts['near-equal']:,} near-equal to a gold passage not counted"
        ]
        parts += [f"{self.counts[name]:,} dropped {DROPPED[name]}" for name in self._filters()]
        mean = (self.rows_QK >= 0).sum() / max(1, len(self.queries))
        parts.append(f"{mean:.2f} per question left; {without:,} of {len(self.queries):,} questions have none")
        return "; ".join(parts)

    def of(self, number: int) -> tuple[int, ...]:
        """The negatives of a question, best first."""
        return tuple(row for row in self.rows_QK[number].tolist() if row >= 0)

    def _filters(self) -> list[str]:
        margins = self.rules.margin is not None or self.rules.margin_absolute is not None
        return [*(["margin"] if margins else []), *(["judge"] if self.judge is not None else [])]

    def _search(self, block: range) -> np.ndarray:
        queries_QD = self.dense.encoder.embed_queries(self.queries[block.start : block.stop])
        ranked_QK = self.dense.index.search(queries_QD, self.depth)[1]
        vectors_ND = self.dense.vectors
        negatives = []
        for number, vector_D, ranked_K in zip(block, queries_QD, ranked_QK, strict=True):
            rows = self._in_range(number, [int(row) for row in ranked_K if row >= 0])
            self.counts["candidates"] += len(rows)
            negatives.append(self._by_margin(number, rows, vector_D, vectors_ND))
        if self.judge is not None:
            negatives = self._by_judge(block, negatives)
        rows_QK = np.full((len(block), self.k), -1, dtype=np.int64)
        for place, rows in enumerate(negatives):
            rows_QK[place, : len(rows)] = rows
        return rows_QK

    def _in_range(self, number: int, ranked: list[int]) -> list[int]:
        """Rows in the range of ranks, gold passages and what is nearly equal to one not counted."""
        passages, golds = self.dense.passages, self.known[number]
        barred = set(golds)
        texts = passages.full_texts(list(golds))
        others = [row for row in ranked if row not in barred]
        rows = without_texts(others, passages.full_texts, {identity(text) for text in texts})
        gold_runs = [run_of(passages[row].text) for row in golds]
        kept: list[int] = []
        for row in rows:
            if len(kept) == self.rules.last_rank:
                break
            if any(near_equal(gold, self._run(row)) for gold in gold_runs):
                self.counts["near-equal"] += 1
            else:
                kept.append(row)
        self.counts["near-equal"] += len(others) - len(rows)
        return kept[self.rules.first_rank - 1 :]

    def _by_margin(self, number: int, rows: list[int], vector_D: np.ndarray, vectors_ND: np.ndarray) -> list[int]:
        if not rows or (self.rules.margin is None and self.rules.margin_absolute is None):
            return rows
        gold_scores = (np.asarray(vectors_ND[list(self.known[number])]) @ vector_D).tolist()
        limit = highest_score(gold_scores, self.rules.margin, self.rules.margin_absolute)
        scores = (np.asarray(vectors_ND[rows]) @ vector_D).tolist()
        kept = [row for row, score in zip(rows, scores, strict=True) if score <= limit]
        self.counts["margin"] += len(rows) - len(kept)
        return kept

    def _by_judge(self, block: range, negatives: list[list[int]]) -> list[list[int]]:
        """Each process asks for its share of the questions, and all take the same answers."""
        assert self.judge is not None
        asked = [(number, [*self.known[number], *rows]) for number, rows in zip(block, negatives, strict=True)]
        shares = distributed.gathered(self.judge(distributed.own_share(asked)))
        kept = []
        for number, rows, scores in zip(block, negatives, distributed.in_order(shares), strict=True):
            golds = len(self.known[number])
            limit = highest_score(scores[:golds], None, self.rules.guide_margin)
            kept.append([row for row, score in zip(rows, scores[golds:], strict=True) if score <= limit])
            self.counts["judge"] += len(rows) - len(kept[-1])
        return kept


def _share_new(before_QK: np.ndarray, after_QK: np.ndarray) -> float:
    pairs = list(zip(before_QK.tolist(), after_QK.tolist(), strict=True))
    new = sum(len(set(after) - set(before) - {-1}) for before, after in pairs)
    return new / max(1, int((after_QK >= 0).sum()))
