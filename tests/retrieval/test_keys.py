"""What is kept on disk is found again under the same ingredients only: every field of every configuration in a key.

For each key: every field is changed, and the key must change, unless the field stands in the key's own list of
exceptions with the reason. A new field is in neither, so this file asks about it.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_experiments.algorithms.fid_teacher import PassageTeacher
from rag_experiments.algorithms.shared.lm_scoring import AnswerScorer
from rag_experiments.config.schema import (
    CrossEncoderConfig,
    EncoderConfig,
    FidSettings,
    LoraConfig,
    ReaderConfig,
    RetrieverConfig,
)
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.fid.fid_reader import FidReader
from rag_experiments.models.reader.prompts import Prompt
from rag_experiments.models.reader.reader import Reader
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.retrieval.dense import DenseRetriever
from rag_experiments.retrieval.embedding import embed_corpus, vectors_key
from rag_experiments.retrieval.hybrid import HybridRetriever
from rag_experiments.retrieval.retriever import SearchResult
from rag_experiments.retrieval.search_cache import cached_search
from tests.retrieval.fakes import ListPassages, WordEncoder
from tests.tiny_readers import tiny_llama  # noqa: F401 - fixture


def walk(config: Any, others: dict[str, Any], key: Callable[[Any], Any], exceptions: dict[str, str]) -> None:
    """Assert the rule above. `others`: another value for each field; a field without one may not be forgotten."""
    names = {field.name for field in dataclasses.fields(config)}
    assert names == set(others) | set(exceptions), "a field is new, or gone: say whether it is part of the key"
    before = key(config)
    assert key(dataclasses.replace(config)) == before, "the same ingredients have the same key"
    for name, value in others.items():
        assert getattr(config, name) != value, name
        after = key(dataclasses.replace(config, **{name: value}))
        assert (after == before) == (name in exceptions), name


# -- vectors -------------------------------------------------------------------------------------------

WEIGHTS = "what it makes of the weights is seen in the weights"
ENCODER: dict[str, Any] = {
    "precision": "bf16",
    "pooling": "cls",
    "similarity": "dot",
    "query_prefix": "query: ",
    "passage_prefix": "passage: ",
    "max_query_length": 12,
    "max_passage_length": 12,
    "padding_side": "left",
    "append_eos": True,
    "dimension": 16,
    "batch_size": 3,
}
NOT_THE_ENCODERS = {
    "path": WEIGHTS,
    "kind": "there is one",
    "revision": WEIGHTS,
    "init": WEIGHTS,
    "architecture": WEIGHTS,
    "lora": WEIGHTS,
    "attn_implementation": "the same numbers but for rounding",
    "batch_size": "the same numbers but for rounding",
}


def test_an_encoders_fingerprint(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(tiny_bert, tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_bert, eos_token="[SEP]").save_pretrained(tmp_path / "model")
    config = EncoderConfig(path=str(tmp_path / "model"), precision="fp32")
    walk(config, ENCODER, lambda made: Encoder.load(made).fingerprint(), NOT_THE_ENCODERS)


def test_vectors_are_those_of_the_text_and_the_encoder(tmp_path: Path) -> None:
    """An edited corpus of the same length, and an encoder of the same dimension, never get another's vectors."""
    texts = ["river stone", "bird tree", "house fox"]
    edits = [texts, ["river stone", "bird tree", "house cat"], texts[::-1], texts[:2]]
    keys = {vectors_key(WordEncoder(seed), ListPassages(edit)) for edit in edits for seed in (0, 1)}  # type: ignore[arg-type]
    assert len(keys) == 8
    for edit in edits:
        found = embed_corpus(WordEncoder(), ListPassages(edit), tmp_path, False)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, WordEncoder().embed_queries(edit))


# -- retrievers ----------------------------------------------------------------------------------------

RETRIEVER: dict[str, Any] = {
    "type": "hybrid",
    "k": 5,
    "encoder": EncoderConfig(path="other"),
    "index": "ivf",
    "nlist": 3,
    "nprobe": 2,
    "hnsw_m": 8,
    "ef_construction": 50,
    "ef_search": 7,
    "device": "cpu",
    "bm25_k1": 0.9,
    "bm25_b": 0.4,
    "fusion": "weighted",
    "rrf_k": 10,
    "dense_weight": 0.9,
    "reranker": CrossEncoderConfig(path="other"),
    "rerank_depth": 7,
    "rerank_batch_size": 3,
}
VECTORS = "vectors and fusion are no matter of BM25"
NOT_BM25S = {
    **dict.fromkeys(("encoder", "index", "nlist", "nprobe", "hnsw_m", "ef_construction", "ef_search"), VECTORS),
    **dict.fromkeys(("fusion", "rrf_k", "dense_weight", "device"), VECTORS),
    "type": "a hybrid's BM25 index is the same",
    "k": "chosen at the search",
    **dict.fromkeys(("reranker", "rerank_depth", "rerank_batch_size"), "of what comes after the search"),
}


def dense(config: RetrieverConfig, passages: ListPassages, cache: Path | None, seed: int = 0) -> DenseRetriever:
    made = DenseRetriever(config, passages, WordEncoder(seed), cache)  # type: ignore[arg-type]
    made.progress = False
    return made


def test_a_dense_retrievers_fingerprint(passages: ListPassages) -> None:
    walk(RetrieverConfig(), RETRIEVER, lambda made: dense(made, passages, None).fingerprint(), {})
    corpora = [ListPassages([*passages.texts[:-1], text]) for text in "ab"]
    prints = {dense(RetrieverConfig(), corpus, None, seed).fingerprint() for corpus in corpora for seed in (0, 1)}
    assert len(prints) == 4


def test_a_bm25_retrievers_fingerprint(passages: ListPassages, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(config: RetrieverConfig, corpus: ListPassages = passages) -> str:
        return BM25Retriever(config, corpus, None).fingerprint()  # type: ignore[arg-type]

    walk(RetrieverConfig(type="bm25"), RETRIEVER, made, NOT_BM25S)
    before = made(RetrieverConfig())
    assert made(RetrieverConfig(), ListPassages([*passages.texts[:-1], "other"])) != before
    monkeypatch.setattr("bm25s.__version__", "0")
    assert made(RetrieverConfig()) != before, "another version may index otherwise"


def test_a_hybrid_retrievers_fingerprint(passages: ListPassages) -> None:
    def made(config: RetrieverConfig, corpus: ListPassages = passages, seed: int = 0) -> str:
        sparse = BM25Retriever(RetrieverConfig(), corpus, None)  # type: ignore[arg-type]
        return HybridRetriever(config, dense(RetrieverConfig(), corpus, None, seed), sparse).fingerprint()

    walk(RetrieverConfig(), RETRIEVER, made, {})
    assert made(RetrieverConfig(), seed=1) != made(RetrieverConfig())
    parts = [dense(RetrieverConfig(), passages, None), BM25Retriever(RetrieverConfig(bm25_b=0.1), passages, None)]  # type: ignore[arg-type]
    assert HybridRetriever(RetrieverConfig(), *parts).fingerprint() != made(RetrieverConfig())


OTHERS_OF = {"ivf": ("hnsw_m", "ef_construction", "ef_search"), "hnsw": ("nlist", "nprobe")}
SEARCHED_WITH = {"ivf": "nprobe", "hnsw": "ef_search"}


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_built_index_is_kept_by_what_it_is_built_with(kind: Any, passages: ListPassages, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def made(config: RetrieverConfig) -> str:
        """The folder of the index; the older ones are touched by nobody."""
        before = {path.name for path in (cache / "indices").glob("*") if path.is_dir()}
        retriever = dense(config, passages, cache)
        retriever.search(["stone"], 1)
        if SEARCHED_WITH[kind] == "nprobe" and config.index == "ivf":
            assert retriever.index._index.nprobe == min(config.nprobe, retriever.index._index.nlist)
        if SEARCHED_WITH[kind] == "ef_search" and config.index == "hnsw":
            assert retriever.index._index.hnsw.efSearch == config.ef_search
        after = {path.name for path in (cache / "indices").glob("*") if path.is_dir()}
        return (after - before or {"known"}).pop()

    config = RetrieverConfig(index=kind, nlist=4, nprobe=3, ef_search=40)
    made(config)
    others = {**RETRIEVER, "index": {"ivf": "hnsw", "hnsw": "ivf"}[kind]}
    apart = {
        **dict.fromkeys(("type", "k", "encoder", "device", "bm25_k1", "bm25_b"), "no matter of the index's file"),
        **dict.fromkeys(("fusion", "rrf_k", "dense_weight"), "no matter of the index's file"),
        **dict.fromkeys(("reranker", "rerank_depth", "rerank_batch_size"), "no matter of the index's file"),
        **dict.fromkeys(OTHERS_OF[kind], "of the other kind"),
        SEARCHED_WITH[kind]: "set when the index is opened",
    }
    walk(config, others, made, apart)
    assert dense(config, ListPassages([*passages.texts[:-1], "other"]), cache).search(["other"], 1).rows_QK[0, 0] == 59


class Counting:
    """A retriever that says who it is; its rows say how often it was asked."""

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, 0

    def fingerprint(self) -> str:
        return self.name

    def search(self, queries: list[str], k: int) -> SearchResult:
        self.asked += 1
        rows = np.array([[len(self.name) + len(query) + place for place in range(k)] for query in queries])
        return SearchResult(rows, rows.astype(np.float32) / 3)


def test_a_cached_search_is_of_this_retriever_these_queries_in_this_order_and_this_depth(tmp_path: Path) -> None:
    requests = list(itertools.product(["a", "bcd"], [["x", "yy"], ["yy", "x"], ["x"], ["x yy"], ["x", "yz"]], [1, 2]))
    for again in (False, True):
        for name, queries, k in requests:
            retriever = Counting(name)
            found = cached_search(retriever, queries, k, tmp_path)  # type: ignore[arg-type]
            assert retriever.asked == (0 if again else 1), (name, queries, k)
            wanted = Counting(name).search(queries, k)
            np.testing.assert_array_equal(found.rows_QK, wanted.rows_QK)
            np.testing.assert_array_equal(found.scores_QK, wanted.scores_QK)
    assert len(list((tmp_path / "searches").glob("*/found.npz"))) == len(requests)


# -- readers' scores -----------------------------------------------------------------------------------

READER: dict[str, Any] = {
    "precision": "bf16",
    "max_input_length": 200,
    "max_new_tokens": 7,
    "chat_template": "none",
    "instruction": "Be brief.",
    "batch_size": 3,
}
NOT_THE_READERS = {
    "path": WEIGHTS,
    "kind": "another kind is another model",
    "revision": WEIGHTS,
    "init": WEIGHTS,
    "architecture": WEIGHTS,
    "lora": WEIGHTS,
    "load_in_4bit": "needs a GPU; other weights",
    "template_date": "this template shows no date",
    "fid": "a reader of its own, below",
    "attn_implementation": "the same numbers but for rounding",
    "batch_size": "the same numbers but for rounding",
}


def test_a_readers_fingerprint_names_the_file_of_its_scores(tiny_llama: Path, tmp_path: Path) -> None:  # noqa: F811
    config = ReaderConfig(path=str(tiny_llama), precision="fp32")

    def file(made: ReaderConfig) -> str:
        found = AnswerScorer(Reader.load(made, device="cpu"), tmp_path).cache.file
        assert found is not None
        return found.name

    walk(config, READER, file, NOT_THE_READERS)
    assert file(dataclasses.replace(config, lora=LoraConfig(r=2))) != file(config)


def test_the_same_weights_in_another_architecture_are_another_reader(tiny_llama: Path) -> None:  # noqa: F811
    """As many heads of another size, or other positions, have weights of the same shapes, and other scores."""
    reader = Reader.load(ReaderConfig(path=str(tiny_llama), precision="fp32"), device="cpu")
    before = reader.fingerprint()
    reader.module.config.rms_norm_eps *= 2
    assert reader.fingerprint() != before


FID: dict[str, Any] = {"passage_tokens": 100, "question_with_passage": False, "sub_batch_size": 3, "reuse_mb": 0}
SPEED = "how the work is cut up, no matter of the result"


def test_a_fid_readers_fingerprint_and_the_file_of_a_teachers_scores(tiny_llama: Path, tmp_path: Path) -> None:  # noqa: F811
    config = ReaderConfig(path=str(tiny_llama), precision="fp32", max_input_length=600, fid=FidSettings())

    def made(settings: FidSettings) -> FidReader:
        return FidReader.load(dataclasses.replace(config, fid=settings), device="cpu")

    exceptions = {"sub_batch_size": SPEED, "reuse_mb": SPEED}
    walk(FidSettings(), FID, lambda settings: made(settings).fingerprint(), exceptions)
    reader = made(FidSettings())
    assert reader.fingerprint() != Reader.load(dataclasses.replace(config, fid=None), device="cpu").fingerprint()
    other = made(FidSettings(passage_tokens=100))
    kinds: Any = ("cross_attention", "adist")
    files = {PassageTeacher(one, kind, tmp_path).cache.file for one in (reader, other) for kind in kinds}
    assert len(files) == 4


def test_a_teachers_score_is_of_these_passages_this_question_and_this_answer() -> None:
    teacher: Any = object.__new__(PassageTeacher)

    def key(head: Any, passages: Any, tail: Any, answer: str | None) -> bytes:
        return PassageTeacher._key(teacher, Prompt(head, passages, tail), answer)

    keys = [
        key((1,), ((2, 3), (4,)), (5,), "a"),
        key((9,), ((2, 3), (4,)), (5,), "a"),
        key((1,), ((2,), (3, 4)), (5,), "a"),
        key((1,), ((4,), (2, 3)), (5,), "a"),
        key((1,), ((2, 3, 4),), (5,), "a"),
        key((1,), ((2, 3), (4,)), (9,), "a"),
        key((1, 2), ((3,), (4,)), (5,), "a"),
        key((1,), ((2, 3), (4,)), (5,), "b"),
        key((1,), ((2, 3), (4,)), (5,), None),
        key((1,), ((2, 3), (4,)), (5,), "None"),
    ]
    assert len(set(keys)) == len(keys)
    assert key((1,), ((2, 3), (4,)), (5,), "a") == keys[0]
