"""Candidate passages of the training questions, kept up with the encoder while it trains.

Distillation from a reader (RPG, DCA) needs the encoder's current best K passages of each training question. Finding
them anew at every step would cost more than the training, so they are found every N steps (REPLUG LSR: 3,000 of
25,000): the corpus and the questions embedded again (`corpus`), or, at a fraction of the cost, the questions only,
against passage vectors that stay those of the start (`questions`, as Atlas's query-side fine-tuning).

A trainer reads `candidates.rows_QK` when it computes a step's loss, not when it collates: batches are collated ahead of
their step, and a resumed run would otherwise meet other candidates than an uninterrupted one.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rag_experiments.core.errors import RequestError
from rag_experiments.core.files import atomic_write_bytes
from rag_experiments.retrieval.dense import DenseRetriever
from rag_experiments.retrieval.hybrid import HybridRetriever
from rag_experiments.retrieval.reranking import RerankingRetriever
from rag_experiments.retrieval.retriever import Retriever

log = logging.getLogger(__name__)

FILE = "candidates.npy"
"""In every checkpoint."""

KEEPS_VECTORS = "algorithm.refresh: 'questions' keeps passage vectors"

QUERY_BLOCK = 1024
"""Questions between two steps of the progress bar."""


class Candidates:
    """`rows_QK`: for each training question, in a fixed order, K rows of the passage store, best first; -1: none."""

    def __init__(
        self,
        retriever: Retriever,
        queries: Sequence[str],
        k: int,
        golds: Sequence[Sequence[int]] | None = None,
        mode: Literal["corpus", "questions"] = "corpus",
        progress: bool = True,
    ) -> None:
        """`golds` are rows that each question's candidates must hold: they take the places of the last ones.

        Raises `RequestError` where `mode=questions` and the retriever has no passage vectors to keep.
        """
        self.retriever = retriever
        self.queries = list(queries)
        self.k = min(k, len(retriever.passages))
        self.golds = golds
        self.mode = mode
        self.progress = progress
        self._rows_QK: np.ndarray | None = None
        # Taken now, from the weights the run starts with: evaluation during training renews the retriever's own.
        self._frozen = dense_part(retriever).index if mode == "questions" else None

    @property
    def rows_QK(self) -> np.ndarray:
        """int64 `[Q, K]`, found now if they were not."""
        if self._rows_QK is None:
            self.refresh()
        assert self._rows_QK is not None
        return self._rows_QK

    def refresh(self) -> dict[str, float]:
        """Find the candidates of the encoder's current weights; returns figures to log.

        `refresh_seconds`; `candidates_changed`: the share of candidates that were none before; `gold_found`: the
        share of questions with a gold passage among the candidates before any was added, where golds are known.
        """
        started = time.perf_counter()
        if self.mode == "corpus":
            self.retriever.refresh()
        rows_QK = np.full((len(self.queries), self.k), -1, dtype=np.int64)
        with tqdm(total=len(self.queries), desc="finding candidates", disable=not self.progress) as bar:
            for start in range(0, len(self.queries), QUERY_BLOCK):
                block = range(start, min(start + QUERY_BLOCK, len(self.queries)))
                rows_QK[block.start : block.stop] = self._search(block)
                bar.update(len(block))
        figures = {}
        if self.golds is not None:
            figures["gold_found"] = _share_with_gold(rows_QK, self.golds)
            rows_QK = add_golds(rows_QK, self.golds)
        if self._rows_QK is not None:
            figures["candidates_changed"] = _share_changed(self._rows_QK, rows_QK)
        self._rows_QK = rows_QK
        return {"refresh_seconds": time.perf_counter() - started, **figures}

    def save(self, folder: Path) -> None:
        """Write the candidates into a checkpoint."""
        buffer = io.BytesIO()
        np.save(buffer, self.rows_QK, allow_pickle=False)
        atomic_write_bytes(folder / FILE, buffer.getvalue())

    def load(self, folder: Path) -> bool:
        """Take the candidates of a checkpoint; False where it holds none for these questions."""
        if not (folder / FILE).is_file():
            return False
        rows_QK = np.load(folder / FILE, allow_pickle=False)
        if rows_QK.shape != (len(self.queries), self.k):
            return False
        self._rows_QK = rows_QK
        return True

    def _search(self, block: range) -> np.ndarray:
        """The rows `[len(block), K]` of the questions of these numbers."""
        queries = self.queries[block.start : block.stop]
        if self._frozen is None:
            return self.retriever.search(queries, self.k).rows_QK
        queries_QD = dense_part(self.retriever).encoder.embed_queries(queries)
        return self._frozen.search(queries_QD, self.k)[1]


class RefreshCandidates(TrainerCallback):
    """Refreshes `candidates` every `every` optimiser steps (0: never); takes them from a resumed run's checkpoint.

    The trainer writes them there (`save_more`) before the checkpoint's last file: on_save comes after it, and a run
    killed between the two would go on from a checkpoint without.

    `record` gets each figure by name: `AlgorithmTrainer.record`. `preparing` is entered around the work.
    """

    def __init__(
        self,
        candidates: Candidates,
        every: int,
        record: Callable[[str, float], None],
        preparing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.candidates = candidates
        self.every = every
        self.record = record
        self.preparing = preparing

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A resumed run goes on with the candidates it had."""
        checkpoint = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        if state.global_step and not self.candidates.load(checkpoint):
            log.warning("%s holds no candidates: they are found anew with the weights it holds", checkpoint)
        with self.preparing():
            _ = self.candidates.rows_QK  # found now where they were not, and not in the first step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Nothing after the last step: nobody would read them."""
        if self.every and state.global_step % self.every == 0 and state.global_step < state.max_steps:
            with self.preparing():
                figures = self.candidates.refresh()
            log.info("step %d: candidates refreshed in %.1f s", state.global_step, figures["refresh_seconds"])
            for name, value in figures.items():
                self.record(name, value)


def add_golds(rows_QK: np.ndarray, golds: Sequence[Sequence[int]]) -> np.ndarray:
    """`rows_QK` with each question's gold rows among them: missing ones take the last places, empty ones first.

    The order of the others stays. With more golds than K, the first K golds are kept.
    """
    rows_QK = rows_QK.copy()
    for q, gold in enumerate(golds):
        present = rows_QK[q][rows_QK[q] >= 0].tolist()
        missing = [row for row in dict.fromkeys(gold) if row not in set(present)][: rows_QK.shape[1]]
        wanted = set(gold)
        surplus = len(present) + len(missing) - rows_QK.shape[1]
        for row in reversed(present.copy()):
            if surplus > 0 and row not in wanted:
                present.remove(row)
                surplus -= 1
        kept = (present + missing)[: rows_QK.shape[1]]
        rows_QK[q] = -1
        rows_QK[q, : len(kept)] = kept
    return rows_QK


def dense_part(retriever: Retriever, wanted: str = KEEPS_VECTORS) -> DenseRetriever:
    """What of a retriever searches with vectors.

    Raises:
        RequestError: nothing does. `wanted` says which key asks for it.
    """
    first = retriever.first if isinstance(retriever, RerankingRetriever) else retriever
    dense = first.dense if isinstance(first, HybridRetriever) else first
    if not isinstance(dense, DenseRetriever):
        raise RequestError(f"{wanted}, so it needs a faiss retriever.")
    return dense


def _share_with_gold(rows_QK: np.ndarray, golds: Sequence[Sequence[int]]) -> float:
    found = [bool(set(gold) & set(rows_K.tolist())) for rows_K, gold in zip(rows_QK, golds, strict=True) if len(gold)]
    return float(np.mean(found)) if found else 0.0


def _share_changed(before_QK: np.ndarray, after_QK: np.ndarray) -> float:
    new = [
        len(set(after_K) - set(before_K))
        for before_K, after_K in zip(before_QK.tolist(), after_QK.tolist(), strict=True)
    ]
    return float(sum(new) / max(1, after_QK.size))
