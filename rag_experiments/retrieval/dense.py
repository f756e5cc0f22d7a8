"""Retrieval by the encoder's vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_experiments.core import cache as disk_cache
from rag_experiments.core.digest import digest, without
from rag_experiments.core.distributed import is_main_process
from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval.embedding import embed_corpus, keep_corpus, vectors_key
from rag_experiments.retrieval.index import FaissIndex, library_version
from rag_experiments.retrieval.retriever import Retriever, SearchResult, empty_result

if TYPE_CHECKING:
    from rag_experiments.config.schema import RetrieverConfig
    from rag_experiments.data.passage_store import PassageStore
    from rag_experiments.models.encoder.encoder import Encoder

log = logging.getLogger(__name__)

QUERY_BLOCK = 4096
"""Questions embedded and searched at a time."""

_NOT_OF_THE_INDEX = {
    "type": "a hybrid's vectors are the same",
    **dict.fromkeys(("k", "nprobe", "ef_search"), "of a search; set when the index is opened"),
    "encoder": "its vectors are in the key",
    **dict.fromkeys(("reranker", "rerank_depth", "rerank_batch_size"), "of what comes after the search"),
    "device": "an index is kept as that of a CPU",
    **dict.fromkeys(("bm25_k1", "bm25_b", "fusion", "rrf_k", "dense_weight"), "of the other half of a hybrid"),
}
_NOT_OF_THE_KIND = {
    "ivf": dict.fromkeys(("hnsw_m", "ef_construction"), "of a graph"),
    "hnsw": {"nlist": "of inverted lists"},
}
"""Keys of the retriever that do not change what an index is built to, and why."""


class DenseRetriever(Retriever):
    """The nearest passages in the encoder's own similarity.

    The index is built at the first search. It stays as it was while the encoder trains, until `refresh`.
    """

    def __init__(self, config: RetrieverConfig, passages: PassageStore, encoder: Encoder, cache: Path | None) -> None:
        self.config = config
        self.passages = passages
        self.encoder = encoder
        self.cache = cache
        self.progress = is_main_process()  # one bar, not one a rank
        self._index: FaissIndex | None = None
        self._vectors_ND: np.ndarray | None = None
        self._key = ""
        self._unkept: str | None = None
        """Of the vectors that the cache could not take: it is tried once."""

    @property
    def index(self) -> FaissIndex:
        """The index, built now if it was not."""
        if self._index is None:
            self._build(store=True)
        assert self._index is not None
        return self._index

    @property
    def vectors(self) -> np.ndarray:
        """The indexed passage vectors `[N, D]`, in passage order; do not write to them."""
        index = self.index  # first: building it decides where the vectors are held
        vectors_ND = index.vectors() if self._vectors_ND is None else self._vectors_ND
        assert vectors_ND is not None
        return vectors_ND

    def search(self, queries: Sequence[str], k: int) -> SearchResult:
        """See `Retriever.search`; the questions are embedded with the encoder's current weights."""
        index = self.index
        k = min(k, len(self.passages))
        result = empty_result(len(queries), k)
        for start in range(0, len(queries), QUERY_BLOCK):
            rows = slice(start, start + QUERY_BLOCK)
            queries_QD = self.encoder.embed_queries(list(queries[rows]))
            result.scores_QK[rows], result.rows_QK[rows] = index.search(queries_QD, k)
        return result

    def refresh(self, persist: bool = False) -> None:
        """See `Retriever.refresh`. Nothing is embedded where the weights are those already indexed."""
        if self._index is not None and vectors_key(self.encoder, self.passages) == self._key:
            if persist and self.cache is not None and not isinstance(self._vectors_ND, np.memmap):
                self._keep(self._index, self.cache)
            return
        # The old index goes first: two of them beside each other may be more than the memory holds.
        self._index = self._vectors_ND = None
        self._build(store=persist)

    def fingerprint(self) -> str:
        """A hash of the indexed vectors, the encoder's current weights and the index's parameters."""
        _ = self.index
        return digest(self._key, self.encoder.fingerprint(), self.config)

    def save(self, folder: Path) -> None:
        """`index.faiss` and `index.json`."""
        self.index.save(folder)

    def _build(self, store: bool) -> None:
        """Embed the corpus and index it; a graph or inverted lists over cached vectors are cached beside them."""
        self._key = vectors_key(self.encoder, self.passages)
        vectors_ND = embed_corpus(self.encoder, self.passages, self.cache, self.progress, store=store)
        if isinstance(vectors_ND, np.memmap) and self.config.index != "flat" and self.cache is not None:
            self._index = self._cached_index(vectors_ND, self.cache)
        else:
            self._index = FaissIndex.build(vectors_ND, self.config)
        # A flat index holds a copy of its own: what is only in memory need not be held twice.
        keep = isinstance(vectors_ND, np.memmap) or self._index.vectors() is None
        self._vectors_ND = vectors_ND if keep else None

    def _keep(self, index: FaissIndex, cache: Path) -> None:
        """Into the cache what an evaluation during training computed in memory, if it is of the weights that stay."""
        if not is_main_process() or self._unkept == self._key:  # all processes hold the same
            return
        try:
            kept_ND = keep_corpus(self.vectors, self.encoder, self.passages, cache)
            if isinstance(kept_ND, np.memmap):
                self._vectors_ND = kept_ND
                if self.config.index != "flat":
                    self._index_entry(cache, index.save)
        except (OSError, RequestError) as error:  # what is in memory is enough for this run
            self._unkept = self._key
            log.warning("the passages' vectors are not kept for later commands: %s", error)

    def _cached_index(self, vectors_ND: np.ndarray, cache: Path) -> FaissIndex:
        """The index built before over the same vectors with the same parameters, or a new one, kept for the next."""
        folder = self._index_entry(cache, lambda making: FaissIndex.build(vectors_ND, self.config).save(making))
        return FaissIndex.load(folder, self.config)

    def _index_entry(self, cache: Path, fill: Callable[[Path], None]) -> Path:
        """The folder of the cached index over the current vectors."""
        reasons = _NOT_OF_THE_INDEX | _NOT_OF_THE_KIND[self.config.index]
        key = digest(self._key, library_version(), without(self.config, reasons))
        return disk_cache.entry(cache, "indices", key, fill)
