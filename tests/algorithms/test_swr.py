"""SwR: which passages stand in the prompt, and that they come from the whole corpus, once."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_experiments.algorithms.swr import SwRTrainer, order_pool
from rag_experiments.data.records import Question
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
    pools = [[passage.id for passage in trainer.passages_for(q, 0)] for q in trainer.components.data.splits["train"]]
    assert all(len(pool) == len(set(pool)) == 3 for pool in pools), "gold and retriever.k = 2 others"
    assert all(
        q.positive_ids[0] in pool for q, pool in zip(trainer.components.data.splits["train"], pools, strict=True)
    )
    assert "x0" in pools[0]


def test_one_search_for_the_whole_set_and_none_the_second_time(tiny_llama, tmp_path):
    first = make_trainer(SwRTrainer, tiny_llama, tmp_path)
    assert first.components.retriever.searches == 1
    again = make_trainer(SwRTrainer, tiny_llama, tmp_path)
    assert again.components.retriever.searches == 0
    assert again.found == first.found
    other = make_trainer(SwRTrainer, tiny_llama, tmp_path, algorithm_distractors=1)
    assert other.components.retriever.searches == 1
    assert {len(other.passages_for(question, 0)) for question in other.components.data.splits["train"]} == {2}


def easy_questions(golds: int = 1) -> list[Question]:
    """Questions that say what their passage says, so that the retriever finds the gold passages, and first."""
    passages, questions = small_set()
    return [
        dataclasses.replace(
            question,
            question=passages[i].full_text,
            positive_ids=tuple(f"p{(i + step) % 8}" for step in range(golds)),
        )
        for i, question in enumerate(questions)
    ]


@pytest.mark.parametrize("position", ["first", "random", "by_score"])
@pytest.mark.parametrize(("dropout", "with_gold"), [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_gold_is_left_out_as_often_as_asked(dropout, with_gold, position, tiny_llama, tmp_path):
    """Out of the prompt altogether, though the retriever finds it; other retrieved passages take its place."""
    trainer = make_trainer(
        SwRTrainer,
        tiny_llama,
        tmp_path,
        questions=easy_questions(),
        algorithm_gold_dropout=dropout,
        algorithm_gold_position=position,
    )
    questions = trainer.components.data.splits["train"]
    assert all(trainer.found[question.id][0] == question.positive_ids[0] for question in questions)
    there = []
    for question in questions:
        for epoch in range(50):
            pool = [passage.id for passage in trainer.passages_for(question, epoch)]
            there.append(question.positive_ids[0] in pool)
            assert len(pool) == len(set(pool)) == 3 + there[-1], "three distractors, with the gold or without it"
    assert sum(there) / len(there) == pytest.approx(with_gold, abs=0.08)


def test_gold_beyond_max_gold_is_no_distractor(tiny_llama, tmp_path):
    """A second gold passage that is not wanted would stand there as a wrong one."""
    for most, kept in ((1, 1), (2, 2), (None, 2)):
        trainer = make_trainer(
            SwRTrainer, tiny_llama, tmp_path, questions=easy_questions(golds=2), algorithm_max_gold=most
        )
        for question in trainer.components.data.splits["train"]:
            assert set(question.positive_ids) <= {*trainer.found[question.id], *question.positive_ids[1:]}
            pool = [passage.id for passage in trainer.passages_for(question, 0)]
            assert [passage for passage in question.positive_ids if passage in pool] == [*question.positive_ids[:kept]]
            assert len(pool) == 3 + kept


def test_no_passage_is_left_where_all_are_gold_and_gold_is_left_out(tiny_llama, tmp_path):
    trainer = make_trainer(
        SwRTrainer,
        tiny_llama,
        tmp_path,
        questions=easy_questions(),
        algorithm_gold_dropout=1.0,
        algorithm_distractors=0,
    )
    assert trainer.passages_for(trainer.components.data.splits["train"][0], 0) == []


def test_search_is_deep_enough_for_the_distractors_beside_all_golds(tiny_llama, tmp_path):
    """Never deeper than the corpus; places that an index leaves empty are left out."""
    asked = []

    class Spying(WordRetriever):
        def search(self, queries, k):
            asked.append(k)
            found = super().search(queries, k)
            found.rows_QK[0, -1] = -1
            return found

    trainer = make_trainer(SwRTrainer, tiny_llama, tmp_path, questions=easy_questions(golds=2))
    for distractors, depth in ((3, 5), (99, 12)):
        trainer.config.distractors = distractors
        trainer.components.retriever = Spying(trainer.components.data.passages)
        trainer.components.cache = tmp_path / f"cache{distractors}"
        trainer.prepare()
        assert asked.pop() == depth
        first, *others = [len(found) for found in trainer.found.values()]
        assert (first, set(others)) == (depth - 1, {depth})


def test_an_epochs_draws_are_the_same_again(tiny_llama, tmp_path):
    made = [
        make_trainer(SwRTrainer, tiny_llama, tmp_path, algorithm_gold_position="random", algorithm_gold_dropout=0.3)
        for _ in range(2)
    ]
    question = made[0].components.data.splits["train"][0]
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
