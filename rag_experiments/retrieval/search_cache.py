"""What a frozen retriever finds for a set of queries, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_experiments.core.files import atomic_write_bytes
from rag_experiments.retrieval.retriever import Retriever, SearchResult


def cached_search(retriever: Retriever, queries: Sequence[str], k: int, cache: Path) -> SearchResult:
    """`retriever.search(queries, k)`, read from `cache` where the same retriever was asked the same before.

    The key holds the retriever's fingerprint (weights, index, corpus), every query in order, and `k`. Only for
    a retriever whose weights stay as they are for as long as the result is used.
    """
    asked = json.dumps([retriever.fingerprint(), k, list(queries)], ensure_ascii=False)
    file = cache / "searches" / f"{hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()}.npz"
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            return SearchResult(rows_QK=stored["rows"], scores_QK=stored["scores"])
    result = retriever.search(list(queries), k)
    buffer = io.BytesIO()
    np.savez(buffer, rows=result.rows_QK, scores=result.scores_QK)
    atomic_write_bytes(file, buffer.getvalue())
    return result
