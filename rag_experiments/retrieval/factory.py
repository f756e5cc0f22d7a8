"""From the configuration to a retriever: the one place the rest of the program gets one."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_experiments.config.kinds import RETRIEVER_KINDS, imported
from rag_experiments.core.errors import RequestError
from rag_experiments.retrieval.reranking import RerankingRetriever
from rag_experiments.retrieval.retriever import Retriever

if TYPE_CHECKING:
    from rag_experiments.config.schema import RetrieverConfig
    from rag_experiments.data.passage_store import PassageStore
    from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
    from rag_experiments.models.encoder.encoder import Encoder


def build_retriever(
    config: RetrieverConfig,
    passages: PassageStore,
    encoder: Encoder | None,
    cache: Path | None,
    reranker: CrossEncoder | None = None,
) -> Retriever:
    """The retriever that `config` describes. Nothing is embedded or indexed before the first search.

    Args:
        reranker: puts the first `rerank_depth` passages into its order; None: they stay in the retriever's.

    Raises:
        RequestError: an encoder is needed and there is none.
    """
    kind = RETRIEVER_KINDS[config.type]
    if kind.needs_encoder and encoder is None:
        raise RequestError(
            f"retriever.encoder: a {config.type} retriever needs an encoder; give model@retriever.encoder=minilm, "
            "or use retriever=bm25."
        )
    build = imported(kind.build)
    if reranker is None:
        return build(config, passages, encoder, cache)
    # What is kept of the first retriever's lists is the same whatever comes after it.
    plain: Any = {field.name: field.default for field in fields(config) if field.name.startswith("rerank")}
    return RerankingRetriever(config, build(replace(config, **plain), passages, encoder, cache), reranker)


def build_baseline(name: str, config: RetrieverConfig, passages: PassageStore, cache: Path | None) -> Retriever:
    """The retriever of type `name`, which needs no encoder, with those settings of `config` that it has as well."""
    own = RETRIEVER_KINDS[name].config
    shared = {field.name for field in fields(own)} & {field.name for field in fields(config)}
    settings = {key: getattr(config, key) for key in shared - {"type", "encoder", "reranker"}}
    return build_retriever(own(type=name, **settings), passages, None, cache)


def build_bm25(config: RetrieverConfig, passages: PassageStore, encoder: Any, cache: Path | None) -> Retriever:
    """A `BM25Retriever`."""
    from rag_experiments.retrieval.bm25 import BM25Retriever

    return BM25Retriever(config, passages, cache)


def build_dense(config: RetrieverConfig, passages: PassageStore, encoder: Encoder, cache: Path | None) -> Retriever:
    """A `DenseRetriever`."""
    from rag_experiments.retrieval.dense import DenseRetriever

    return DenseRetriever(config, passages, encoder, cache)


def build_hybrid(config: RetrieverConfig, passages: PassageStore, encoder: Encoder, cache: Path | None) -> Retriever:
    """A `HybridRetriever` of both."""
    from rag_experiments.retrieval.bm25 import BM25Retriever
    from rag_experiments.retrieval.dense import DenseRetriever
    from rag_experiments.retrieval.hybrid import HybridRetriever

    dense = DenseRetriever(config, passages, encoder, cache)
    return HybridRetriever(config, dense, BM25Retriever(config, passages, cache))
