"""A frozen cross-encoder's logits of questions and passages, behind a cache on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from rag_experiments.algorithms.shared.score_cache import ScoreCache, content_key, score_file
from rag_experiments.core.distributed import is_main_process
from rag_experiments.data.queries import query_parts

if TYPE_CHECKING:
    from rag_experiments.data.passage_store import PassageStore
    from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder

PAIRS_A_COMMIT = 512

Asked = tuple[int, Sequence[int]]
"""The number of a training question, and rows of the corpus."""


class PairScorer:
    """c(q, p) of any texts: what was computed once is never computed again."""

    def __init__(self, reranker: CrossEncoder, cache: Path | None) -> None:
        """`cache`: the folder of all runs' caches; None: kept in memory for this run."""
        self.reranker = reranker
        self.cache = ScoreCache(score_file(cache, "pair_scores", reranker.fingerprint()))
        self.lookups = self.computed = 0
        """Pairs asked for, and those of them that went through the model."""
        self.seconds = 0.0

    def of_pairs(self, pairs: Sequence[tuple[str, str]], progress: bool = False) -> list[float]:
        """The logit of each question and passage."""
        keys = [pair_key(query, text) for query, text in pairs]
        known = self.cache.get(keys)
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        self.lookups += len(keys)
        self.computed += len(missing)
        if missing:
            known |= self._computed(missing, progress)
        return [float(known[key][0]) for key in keys]

    def cost(self) -> str:
        """What the scores have cost so far, in words."""
        return f"{self.lookups:,} pairs, {self.computed:,} of them scored in {self.seconds:.0f} s, the others cached"

    def _computed(self, missing: dict[bytes, tuple[str, str]], progress: bool) -> dict[bytes, np.ndarray]:
        """Kept as they come: an interruption loses a few seconds."""
        started = time.perf_counter()
        fresh: dict[bytes, np.ndarray] = {}
        # Pairs of like length together, so that little is padded.
        order = sorted(missing, key=lambda key: -sum(map(len, missing[key])))
        with tqdm(total=len(order), desc="scoring pairs", disable=not (progress and is_main_process())) as bar:
            for start in range(0, len(order), PAIRS_A_COMMIT):
                keys = order[start : start + PAIRS_A_COMMIT]
                queries, texts = zip(*(missing[key] for key in keys), strict=True)
                logits = self.reranker.score(queries, texts)
                scored = {key: logits[place : place + 1] for place, key in enumerate(keys)}
                self.cache.put(scored)
                fresh |= scored
                bar.update(len(keys))
        self.seconds += time.perf_counter() - started
        return fresh


class PairJudge(PairScorer):
    """The same of training questions and rows of the corpus."""

    def __init__(
        self, reranker: CrossEncoder, queries: Sequence[str], passages: PassageStore, cache: Path | None
    ) -> None:
        super().__init__(reranker, cache)
        self.queries = queries
        self.passages = passages

    def scores(self, asked: Sequence[Asked], progress: bool = False) -> list[list[float]]:
        """The logits of each question's rows, in their order."""
        texts = {row: "" for _, rows in asked for row in rows}
        texts = dict(zip(texts, self.passages.full_texts(list(texts)), strict=True))
        pairs = [(self.queries[number], texts[row]) for number, rows in asked for row in rows]
        values = iter(self.of_pairs(pairs, progress))
        return [[next(values) for _ in rows] for _, rows in asked]


def pair_key(query: str, passage: str) -> bytes:
    """The content of a pair; a query's turns count, since a long one loses the oldest."""
    return content_key(query_parts(query), passage)
