"""Which passages a reranker is shown with a question: gold ones, and others that a retriever takes for them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from rag_experiments.algorithms.shared.multiple_positives import ContrastiveExample
from rag_experiments.core.text import identity
from rag_experiments.data.negatives import without_texts
from rag_experiments.retrieval.candidates import Candidates
from rag_experiments.retrieval.retriever import Retriever


class CandidateDraws:
    """K passages a question, drawn from listed negatives and a retriever's best.

    A known positive that is not shown is left out, and so is a passage with the text of one: neither is a negative.
    """

    def __init__(
        self,
        examples: Sequence[ContrastiveExample],
        queries: Sequence[str],
        retriever: Retriever,
        count: int,
        pool: int,
        seed: int | None,
    ) -> None:
        """The retriever is asked here.

        Args:
            count: K.
            pool: how many of the retriever's best are drawn from; K where that is more.
            seed: None: nothing is drawn, and each epoch has the first of gold, listed and retrieved passages.
        """
        self.examples = examples
        self.store = retriever.passages
        self.count, self.pool, self.seed = count, max(pool, count), seed
        most = max((len(example.positives) for example in examples), default=0)
        self.candidates = Candidates(retriever, queries, self.pool + most)
        _ = self.candidates.rows_QK  # found now, not in the first step
        self._gold_texts = [
            {identity(text) for text in self.store.full_texts(list(example.positives))} for example in examples
        ]

    def rows(self, numbers: Sequence[int], epochs: Sequence[int]) -> np.ndarray:
        """Rows of the corpus `[B, K]` for the questions of these numbers; -1: none.

        A function of seed, epoch and question alone. Gold passages take half of the places at most, those of a higher
        grade more often.
        """
        rows_BK = np.full((len(numbers), self.count), -1, dtype=np.int64)
        for b, (number, epoch) in enumerate(zip(numbers, epochs, strict=True)):
            example, most = self.examples[number], max(1, self.count // 2)
            others = self._others(number, example)
            if self.seed is None:
                golds = list(dict.fromkeys(example.targets))[:most]
                chosen = others[: self.count - len(golds)]
            else:
                generator = random.Random(f"{self.seed}/{epoch}/{example.question.id}")
                golds = example.sample_targets(generator, most) if example.targets else []
                chosen = generator.sample(others, min(len(others), self.count - len(golds)))
            rows_BK[b, : len(golds) + len(chosen)] = [*golds, *chosen]
        return rows_BK

    def grades(self, numbers: Sequence[int], rows_BK: np.ndarray) -> np.ndarray:
        """The grade of each candidate as a gold passage `[B, K]`; 0 where it is none."""
        grades_BK = np.zeros(rows_BK.shape, dtype=np.float32)
        for b, number in enumerate(numbers):
            known = dict(zip(self.examples[number].positives, self.examples[number].grades, strict=True))
            grades_BK[b] = [known.get(row, 0.0) for row in rows_BK[b].tolist()]
        return grades_BK

    def _others(self, number: int, example: ContrastiveExample) -> list[int]:
        """Listed negatives and the pool, without passages that are gold or have a gold one's text."""
        barred, texts = set(example.positives), self._gold_texts[number]
        found = [row for row in self.candidates.rows_QK[number].tolist() if row >= 0 and row not in barred]
        rows = list(dict.fromkeys([*(row for row in example.negatives if row not in barred), *found[: self.pool]]))
        return without_texts(rows, self.store.full_texts, texts)
