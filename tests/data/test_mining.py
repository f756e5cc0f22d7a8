"""Mining: ranks, filters, processes, the report. The encoder is a fake whose vectors are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import load_data
from rag_experiments.data.passage_store import PassageStore
from rag_experiments.data.tools.mining import MineOptions, Miner

ANGLES = {"gold": 0.30, "twin": 0.30, "near": 0.31, "far": 0.9, "farther": 1.1, "answer": 1.0, "back": 3.0}
TEXTS = {name: f"the {name} passage of red fish" for name in ANGLES} | {
    "twin": "the gold passage of red fish",
    "answer": "red fish with blue forty two in it",
    "back": "a green stone",
}


class FakeEncoder:
    """The query points along the first axis, passages at their angles to it."""

    dimension = 2

    def embed_queries(self, texts):
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(texts), 1))

    def embed_passages(self, texts):
        angles = [next(ANGLES[name] for name, text in TEXTS.items() if text == one) for one in texts]
        return np.array([[np.cos(a), np.sin(a)] for a in angles], dtype=np.float32)

    def fingerprint(self):
        return "fake"


@pytest.fixture
def store(tmp_path: Path, native) -> tuple:
    rows = [{"id": name, "text": text} for name, text in TEXTS.items()]
    question = {"id": "q", "question": "red fish passage", "answers": ["Blue  forty two"], "positive_ids": ["gold"]}
    folder = native(passages=rows, train=[question, {"id": "w", "question": "green stone"}], dev=None, test=None)
    for name in ("dev", "test"):
        (folder / f"{name}.jsonl").write_text('{"question": "red"}\n')
    data = load_data(JsonlConfig(path=str(folder)), tmp_path / "cache")
    return data, tmp_path / "cache"


def mined(store, **options) -> tuple[tuple[str, ...], Miner]:
    data, cache = store
    miner = Miner(
        data.passages, MineOptions(**options), RetrieverConfig(), "user", cache, options.pop("_encoder", FakeEncoder())
    )
    done = miner.mine(data.splits, progress=False)
    assert done.splits["train"][1].negative_ids == ()
    return done.splits["train"][0].negative_ids, miner


def test_margin_takes_out_what_is_as_near_as_gold(store):
    assert mined(store, retrievers=["encoder"], margin=None, answer_match=False)[0] == (
        "near",
        "far",
        "answer",
        "farther",
    )
    ids, miner = mined(store, retrievers=["encoder"], margin=0.05, answer_match=False)
    assert ids == ("far", "answer", "farther", "back")
    assert miner.counts["margin"] == 1
    # cos(0.30) - 0.4 = 0.555, and cos(0.9) = 0.62: the absolute margin is the stricter one here
    ids, miner = mined(store, retrievers=["encoder"], margin=0.05, margin_absolute=0.4, answer_match=False)
    assert ids == ("answer", "farther", "back")


def test_answer_match(store):
    ids, miner = mined(store, retrievers=["encoder"])
    assert ids == ("far", "farther", "back")
    assert miner.counts["answer"] == 1


def test_rank_range_and_count(store):
    ids, _ = mined(store, retrievers=["encoder"], margin=None, answer_match=False, first_rank=2, last_rank=3, count=9)
    assert ids == ("far", "answer")
    ids, _ = mined(store, retrievers=["encoder"], margin=None, answer_match=False, count=1)
    assert ids == ("near",)


def test_gold_and_its_copies_never_come(store):
    for retrievers in (["bm25"], ["encoder"], ["bm25", "encoder"]):
        ids, _ = mined(store, retrievers=retrievers, margin=None, answer_match=False, count=9)
        assert not {"gold", "twin"} & set(ids)
        assert len(set(ids)) == len(ids) >= 3


def test_random_sampling_is_seeded(store):
    options = {"retrievers": ["encoder"], "margin": None, "answer_match": False, "sampling": "random", "count": 3}
    draws = {mined(store, **options, seed=seed)[0] for seed in range(8)}
    assert len(draws) > 1
    assert mined(store, **options, seed=3)[0] == mined(store, **options, seed=3)[0]


def test_processes_find_the_same(store):
    options = {"retrievers": ["bm25"], "margin": None, "answer_match": False}
    assert mined(store, **options)[0] == mined(store, **options, processes=2)[0]


def test_judge(store):
    data, cache = store
    miner = Miner(
        data.passages,
        MineOptions(retrievers=["encoder"], margin=None, answer_match=False),
        RetrieverConfig(),
        "user",
        cache,
        FakeEncoder(),
        judge=lambda query, golds, texts: ["far" in text for text in texts],
    )
    done = miner.mine(data.splits, progress=False)
    assert done.splits["train"][0].negative_ids == ("far", "farther")
    assert "by the cross-encoder" in "\n".join(done.lines(miner.options))


def test_store_is_read_by_workers(store):
    data, _ = store
    assert len(PassageStore(data.passages.path)) == len(TEXTS)
