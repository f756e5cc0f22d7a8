"""SwR: which passages stand in the prompt, and that they come from the whole corpus, once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_experiments.algorithms.swr import SwRTrainer, order_pool
from rag_experiments.data.schema import Question
from tests.algorithms.reader_parts import losses, make_trainer, small_set
from tests.examples import QUESTION, ListStore, WordRetriever

FOUND = ["b", "g", "a", "c", "d"]


def order(place: str, gold=("g",), found=FOUND, distractors=2, seed=0) -> list[str]:
    return order_pool(list(gold), found, distractors, place, random.Random(seed))


def test_gold_first():
    assert order("first") == ["g", "b", "a"]


def test_gold_where_the_retriever_put_it():
    assert order("by_score") == ["b", "g", "a"]
    assert order("by_score", gold=["g", "d"]) == ["b", "g", "a", "d"]


def test_gold_that_was_not_found_stands_last():
    assert order("by_score", gold=["z"]) == ["b", "g", "z"]


def test_gold_anywhere():
    seen = {tuple(order("random", seed=seed)) for seed in range(40)}
    assert {pool.index("g") for pool in seen} == {0, 1, 2}
    assert all([passage for passage in pool if passage != "g"] == ["b", "a"] for pool in seen)


@given(
    gold=st.lists(st.sampled_from("abcdefgh"), max_size=4),
    found=st.lists(st.sampled_from("abcdefgh"), max_size=8),
    distractors=st.integers(0, 5),
    place=st.sampled_from(["first", "random", "by_score"]),
)
def test_whatever_is_asked(gold, found, distractors, place):
    pool = order(place, gold, found, distractors)
    others = [passage for passage in dict.fromkeys(found) if passage not in gold][:distractors]
    assert sorted(pool) == sorted({*gold, *others}), "each once: all the gold, and the best of the others"
    assert [passage for passage in pool if passage not in gold] == others, "retrieved ones keep their order"


def test_the_pool_is_the_whole_corpus(tiny_llama, tmp_path):
    """Passages that are nobody's gold are found; they share more words with the questions than other golds do."""
    trainer = make_trainer(SwRTrainer, tiny_llama, tmp_path, algorithm_distractors=None)
    pools = [[passage.id for passage in trainer.passages_for(q, 0)] for q in trainer.parts.data.splits["train"]]
    assert all(len(pool) == len(set(pool)) == 3 for pool in pools), "gold and retriever.k = 2 others"
    assert all(q.positive_ids[0] in pool for q, pool in zip(trainer.parts.data.splits["train"], pools, strict=True))
    assert "x0" in pools[0]


def test_one_search_for_the_whole_set_and_none_the_second_time(tiny_llama, tmp_path):
    first = make_trainer(SwRTrainer, tiny_llama, tmp_path)
    assert first.parts.retriever.searches == 1
    again = make_trainer(SwRTrainer, tiny_llama, tmp_path)
    assert again.parts.retriever.searches == 0
    assert again.found == first.found
    other = make_trainer(SwRTrainer, tiny_llama, tmp_path, algorithm_distractors=1)
    assert other.parts.retriever.searches == 1
    assert {len(other.passages_for(question, 0)) for question in other.parts.data.splits["train"]} == {2}


@pytest.mark.parametrize(("dropout", "with_gold"), [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_gold_is_left_out_as_often_as_asked(dropout, with_gold, tiny_llama, tmp_path):
    trainer = make_trainer(SwRTrainer, tiny_llama, tmp_path, algorithm_gold_dropout=dropout)
    there = [
        question.positive_ids[0] in [passage.id for passage in trainer.passages_for(question, epoch)]
        for question in trainer.parts.data.splits["train"]
        for epoch in range(50)
    ]
    assert sum(there) / len(there) == pytest.approx(with_gold, abs=0.08)


def test_an_epochs_draws_are_the_same_again(tiny_llama, tmp_path):
    made = [
        make_trainer(SwRTrainer, tiny_llama, tmp_path, algorithm_gold_position="random", algorithm_gold_dropout=0.3)
        for _ in range(2)
    ]
    question = made[0].parts.data.splits["train"][0]
    pools = [[made[run].passages_for(question, epoch) for epoch in range(20)] for run in (0, 1)]
    assert pools[0] == pools[1]
    assert len({tuple(passage.id for passage in pool) for pool in pools[0]}) > 2


def test_it_trains(tiny_llama, tmp_path):
    trainer = make_trainer(SwRTrainer, tiny_llama, tmp_path, max_steps=30, learning_rate=3e-3)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0] / 2


def test_the_retriever_is_used_with_the_conversation(tiny_llama, tmp_path):
    """The query is made where every retrieval query is made."""
    passages, _ = small_set()
    asked = [Question("q", "And where?", answers=("house",), positive_ids=("p1",), history=QUESTION.history)]
    trainer = make_trainer(
        SwRTrainer, tiny_llama, tmp_path, questions=asked, passages=passages, algorithm_distractors=None
    )
    wanted = WordRetriever(ListStore(passages)).search(["Is there a cat? And where?"], 3).rows_QK[0]
    assert trainer.found["q"] == [passages[row].id for row in wanted]
