"""Hooks and figures of trainers on their own, without a training."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from rag_experiments.algorithms import base
from rag_experiments.algorithms.ctl import CTLTrainer
from rag_experiments.algorithms.fid_teacher import PassageTeacher
from rag_experiments.algorithms.rerank import RerankTrainer
from rag_experiments.algorithms.shared import pair_scoring
from rag_experiments.config.schema import EncoderConfig, RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.formats.jsonl import JsonlConfig
from rag_experiments.data.load import load_data
from tests.conftest import write_small_data
from tests.stand_in import stand_in


@pytest.mark.parametrize(("labels", "field"), [("reader", "answers"), ("positives", "positive_ids")])
def test_labels_of_a_reranker_need_their_own_field(labels, field, tmp_path):
    data = load_data(JsonlConfig(path=str(write_small_data(tmp_path / "data"))), tmp_path / "cache")
    bare = {
        split: [dataclasses.replace(question, **{field: ()}) for question in questions]
        for split, questions in data.splits.items()
    }
    config = SimpleNamespace(algorithm=SimpleNamespace(labels=labels, name="rerank", teacher=None))
    with pytest.raises(RequestError, match=rf"no {field}, and algorithm=rerank needs"):
        RerankTrainer.check_data(config, dataclasses.replace(data, splits=bare))


def test_listed_scores_need_positives_only_where_is_measured(tmp_path):
    data = load_data(JsonlConfig(path=str(write_small_data(tmp_path / "data"))), tmp_path / "cache")
    config = SimpleNamespace(algorithm=SimpleNamespace(labels="scores", name="rerank"))
    scored = [dataclasses.replace(q, positive_ids=(), scores={"p1": 1.0, "p2": 0.0}) for q in data.splits["train"]]
    RerankTrainer.check_data(config, dataclasses.replace(data, splits={**data.splits, "train": scored}))
    bare = [dataclasses.replace(question, positive_ids=()) for question in data.splits["dev"]]
    with pytest.raises(RequestError, match="no positive_ids, and algorithm=rerank needs"):
        RerankTrainer.check_data(config, dataclasses.replace(data, splits={"train": scored, "dev": bare}))


def test_a_frozen_encoder_is_opened_where_none_trains(monkeypatch, tmp_path):
    opened = []

    def load_model(config, cache, frozen=False):
        opened.append((config, cache, frozen))
        return "frozen"

    monkeypatch.setattr("rag_experiments.models.component.load_model", load_model)
    monkeypatch.setattr(base, "build_retriever", lambda config, passages, encoder, cache, reranker: encoder)
    encoder = EncoderConfig(path="e")
    config = SimpleNamespace(retriever=RetrieverConfig(encoder=encoder))
    data = SimpleNamespace(passages=None)
    make = base.AlgorithmTrainer.make_retriever
    assert make(config, data, {"encoder": "trained"}, tmp_path) == "trained"
    assert opened == []
    assert make(config, data, {}, tmp_path) == "frozen"
    assert opened == [(encoder, tmp_path, True)]
    assert make(SimpleNamespace(retriever=RetrieverConfig(type="bm25")), data, {}, tmp_path) is None


def test_an_example_shows_its_own_draw_where_nothing_is_mined():
    trainer = SimpleNamespace(examples=["a", "b"], mined=None, _draw=lambda example, epoch: (example, epoch))
    assert CTLTrainer._feature(trainer, 1, 3) == ("b", 3)


@pytest.mark.parametrize(("underflowed", "said"), [(0, False), (4, True)])
def test_what_a_teachers_scores_cost_says_what_underflowed(underflowed, said):
    cost = PassageTeacher.cost(SimpleNamespace(lookups=3, hits=1, seconds=2.0, underflowed=underflowed))
    assert cost.startswith("3 candidate sets, 1 of them from the cache, in 2 s")
    assert ("4 attentions had underflowed" in cost) is said


def test_seconds_of_scoring_pairs_are_those_of_all_calls(monkeypatch, tmp_path):
    clock = [0.0]

    class Judge:
        def score(self, queries, texts):
            clock[0] += 3.0
            return np.zeros(len(queries), np.float32)

        def fingerprint(self):
            return "judge"

    stand_in(monkeypatch, pair_scoring, "time", perf_counter=lambda: clock[0])
    scorer = pair_scoring.PairScorer(Judge(), tmp_path)
    scorer.of_pairs([("a", "b")])
    scorer.of_pairs([("a", "b"), ("a", "c")])
    assert scorer.seconds == 6.0
    assert scorer.cost().startswith("3 pairs, 2 of them scored in 6 s")
