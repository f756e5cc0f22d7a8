"""What a frozen retriever finds for a set of queries, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_experiments.core import cache as disk_cache
from rag_experiments.core.digest import digest
from rag_experiments.retrieval.retriever import Retriever, SearchResult

_FILE = "found.npz"


def cached_search(retriever: Retriever, queries: Sequence[str], k: int, cache: Path) -> SearchResult:
    """`retriever.search(queries, k)`, read from `cache` where the same retriever was asked the same before.

    The key holds the retriever's fingerprint (weights, index, corpus), every query in order, and `k`. Only for
    a retriever whose weights stay as they are for as long as the result is used.
    """

    def fill(folder: Path) -> None:
        result = retriever.search(list(queries), k)
        np.savez(folder / _FILE, rows=result.rows_QK, scores=result.scores_QK)

    folder = disk_cache.entry(cache, "searches", digest(retriever.fingerprint(), k, list(queries)), fill)
    with np.load(folder / _FILE, allow_pickle=False) as stored:
        return SearchResult(rows_QK=stored["rows"], scores_QK=stored["scores"])
