"""Ranking metrics against values worked out by hand."""

from __future__ import annotations

from math import log2

import pytest

from rag_experiments.data.records import Question
from rag_experiments.evaluation.ranking import gold_grades, ranking_metrics


def one(gold: dict[str, int], retrieved: list[str], cutoffs: tuple[int, ...] = (1, 4, 20)) -> dict[str, float]:
    return ranking_metrics([gold], [retrieved], cutoffs)[0]


def test_names_are_the_contracts() -> None:
    assert list(one({"a": 1}, ["a"], (20, 1, 4, 1))) == [
        "recall@1",
        "recall@4",
        "recall@20",
        "hit@1",
        "hit@4",
        "hit@20",
        "mrr@10",
        "ndcg@10",
    ]


def test_two_golds_one_found_third() -> None:
    metrics = one({"a": 1, "b": 1}, ["x", "y", "a", "z", "w"])
    assert metrics["recall@1"] == metrics["hit@1"] == 0
    assert metrics["recall@4"] == metrics["recall@20"] == 0.5
    assert metrics["hit@4"] == 1
    assert metrics["mrr@10"] == pytest.approx(1 / 3)
    assert metrics["ndcg@10"] == pytest.approx((1 / log2(4)) / (1 + 1 / log2(3)))


def test_grades_weigh_in_ndcg_alone() -> None:
    metrics = one({"best": 2, "good": 1}, ["good", "best"])
    assert metrics["ndcg@10"] == pytest.approx((1 + 2 / log2(3)) / (2 + 1 / log2(3)))
    assert metrics["recall@1"] == 0.5
    assert metrics["mrr@10"] == 1


def test_mrr_ends_at_rank_ten() -> None:
    others = [f"x{i}" for i in range(20)]
    assert one({"a": 1}, [*others[:9], "a"])["mrr@10"] == pytest.approx(0.1)
    eleventh = one({"a": 1}, [*others[:10], "a"])
    assert eleventh["mrr@10"] == eleventh["ndcg@10"] == 0
    assert eleventh["recall@20"] == 1


def test_order_decides_not_ids() -> None:
    # trec_eval breaks ties by id, backwards: both orders must come out as they were given
    assert one({"zzz": 1}, ["aaa", "zzz"])["hit@1"] == 0
    assert one({"aaa": 1}, ["aaa", "zzz"])["hit@1"] == 1


def test_a_long_list_keeps_its_order() -> None:
    ids = [f"p{i}" for i in range(5000)]
    metrics = one({"p3999": 1}, ids, (3999, 4000))
    assert (metrics["recall@3999"], metrics["recall@4000"]) == (0, 1)


def test_a_repeated_id_counts_once() -> None:
    metrics = one({"a": 1, "b": 1}, ["a", "a", "b"])
    assert metrics["recall@4"] == 1
    assert metrics["recall@1"] == 0.5
    assert metrics["ndcg@10"] == pytest.approx(1)


def test_missing_gold_and_missing_results() -> None:
    rows = ranking_metrics([{}, {"a": 1}, {"a": 1}], [["a"], [], ["a"]], (1,))
    assert rows[0] == {}
    assert set(rows[1].values()) == {0.0}
    assert set(rows[2].values()) == {1.0}
    assert ranking_metrics([{"a": 1}], [[]], (1,))[0]["recall@1"] == 0
    assert ranking_metrics([], [], (1,)) == []


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 questions but 1"):
        ranking_metrics([{}, {}], [[]], (1,))


def test_gold_grades() -> None:
    assert gold_grades(Question("q", "?", positive_ids=("a", "b"))) == {"a": 1, "b": 1}
    judged = Question("q", "?", positive_ids=("a",), relevance={"a": 2, "b": 0, "c": -1, "d": 1})
    assert gold_grades(judged) == {"a": 2, "d": 1}
