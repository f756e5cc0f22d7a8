"""From the configuration to a retriever: the one place the rest of the program gets one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval.retriever import Retriever, SearchResult, empty_result

if TYPE_CHECKING:
    from rag_experiments.config.schema import RetrieverConfig
    from rag_experiments.data.passage_store import PassageStore
    from rag_experiments.models.encoder.encoder import Encoder

__all__ = ["Retriever", "SearchResult", "build_retriever", "empty_result"]


def build_retriever(
    config: RetrieverConfig, passages: PassageStore, encoder: Encoder | None, cache: Path | None
) -> Retriever:
    """The retriever that `config` describes. Nothing is embedded or indexed before the first search.

    Raises `RequestError` where an encoder is needed and there is none.
    """
    if config.type == "bm25":
        from rag_experiments.retrieval.bm25 import BM25Retriever

        return BM25Retriever(config, passages, cache)
    if encoder is None:
        raise RequestError(
            f"retriever.encoder: a {config.type} retriever needs an encoder; give model@retriever.encoder=minilm, "
            "or use retriever=bm25."
        )
    from rag_experiments.retrieval.dense import DenseRetriever

    dense = DenseRetriever(config, passages, encoder, cache)
    if config.type == "faiss":
        return dense
    from rag_experiments.retrieval.bm25 import BM25Retriever
    from rag_experiments.retrieval.hybrid import HybridRetriever

    return HybridRetriever(config, dense, BM25Retriever(config, passages, cache))
