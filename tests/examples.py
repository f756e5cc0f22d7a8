"""Passages and questions small enough to check in the head, a store and a retriever for them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from rag_experiments.data.records import Passage, Question, Turn

PASSAGES = [
    Passage(id="p1", title="Cats", text="A cat sleeps in the house."),
    Passage(id="p2", title="", text="A dog runs to the river."),
    Passage(id="p3", title="Fish", text="A fish eats a star."),
]
QUESTION = Question(
    id="q1",
    question="Where does it sleep?",
    answers=("in the house",),
    positive_ids=("p1",),
    history=(Turn("user", "Is there a cat?"), Turn("assistant", "Yes.")),
)


class ListStore:
    """A `PassageStore` in memory."""

    def __init__(self, passages: list[Passage]):
        self.passages = passages
        self._rows = {passage.id: row for row, passage in enumerate(passages)}

    def __len__(self) -> int:
        return len(self.passages)

    def __getitem__(self, row: int) -> Passage:
        return self.passages[row]

    def rows(self, ids) -> np.ndarray:
        return np.array([self._rows[passage] for passage in ids], dtype=np.int64)

    def ids(self, rows) -> list[str]:
        return [self.passages[int(row)].id for row in rows]

    def full_texts(self, rows) -> list[str]:
        return [self.passages[int(row)].full_text for row in rows]


class WordRetriever:
    """Ranks passages by words shared with the query; counts how often it was asked."""

    def __init__(self, store: ListStore):
        self.passages = store
        self.searches = 0

    def search(self, queries: list[str], k: int) -> SimpleNamespace:
        self.searches += 1
        texts = [set(passage.full_text.lower().replace(".", "").split()) for passage in self.passages.passages]
        scores_QP = np.array(
            [[len(text & set(query.lower().replace("?", "").split())) for text in texts] for query in queries],
            dtype=np.float32,
        )
        rows_QK = np.argsort(-scores_QP, axis=1, kind="stable")[:, :k]
        return SimpleNamespace(rows_QK=rows_QK, scores_QK=np.take_along_axis(scores_QP, rows_QK, axis=1))

    def refresh(self, **options: object) -> None:
        """Its order never changes."""

    def fingerprint(self) -> str:
        return "words"
