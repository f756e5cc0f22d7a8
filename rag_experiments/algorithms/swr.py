"""SwR: fine-tune a reader on gold passages among retrieved ones (SFT with a frozen retriever).

The loss is SFT's; the passages are `gold ∪ retrieved`, deduplicated by id. The retriever is frozen and
searches the whole corpus, as it will when the reader is used; a pool of the training set's gold passages
would make every wrong passage another question's right one. All questions are searched at once, before
training, and what was found is cached.

Where the gold passages stand and how often they are left out are drawn anew each epoch. Left out (RAFT,
Zhang et al. 2024, leaves them out of 20 % of its questions), the reader also learns what to say when the
retriever missed. `by_score` is what a reader meets in use: gold stands where the retriever put it, and last
where it was not found.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rag_experiments.algorithms.sft import SFTConfig, SFTTrainer
from rag_experiments.config.schema import Fraction
from rag_experiments.data.queries import retrieval_query
from rag_experiments.data.records import Passage, Question
from rag_experiments.retrieval.search_cache import cached_search


@dataclass(kw_only=True)
class SwRConfig(SFTConfig):
    """`algorithm:` of `algorithm=swr`."""

    name: str = "swr"
    """The algorithm's name, which stands in the run's path and in messages."""
    distractors: Annotated[int, Field(ge=0)] | None = 3
    """Retrieved passages beside the gold ones; null is `retriever.k`. 3 and a gold one are the 4 that a reader is given
    by default."""
    gold_position: Literal["first", "random", "by_score"] = "by_score"
    """Where the gold passages stand among the retrieved ones; `by_score` is where the retriever put them."""
    gold_dropout: Fraction = 0.0
    """The share of questions, drawn each epoch, whose gold passages are left out; RAFT (Zhang et al. 2024) has 0.2."""


def order_pool(
    gold: Sequence[str], ranked_ids: Sequence[str], distractors: int, place: str, draws: random.Random
) -> list[str]:
    """Ids of `gold ∪ ranked_ids` in the order the reader sees them: each once, `distractors` that are not gold.

    Args:
        ranked_ids: ids by falling score.
        place: `first`, `random`, or `by_score`: where `ranked_ids` has them, those it has not at the end.
        draws: asked only for `random`.
    """
    gold = list(dict.fromkeys(gold))
    others = [passage for passage in dict.fromkeys(ranked_ids) if passage not in set(gold)][:distractors]
    if place == "first":
        return gold + others
    if place == "random":
        pool = list(others)
        for passage in gold:
            pool.insert(draws.randint(0, len(pool)), passage)
        return pool
    ranked = [passage for passage in dict.fromkeys(ranked_ids) if passage in set(gold) or passage in set(others)]
    return ranked + [passage for passage in gold if passage not in set(ranked_ids)]


class SwRTrainer(SFTTrainer):
    """The only change from SFT: which passages stand in the prompt."""

    Config = SwRConfig

    def prepare(self) -> None:
        """Search the whole corpus for every training question, once."""
        questions = self.components.data.splits["train"]
        mode = self.components.config.data.query_history
        depth = self.distractors + max((len(set(question.positive_ids)) for question in questions), default=0)
        store = self.components.data.passages
        result = cached_search(
            self.components.retriever,
            [retrieval_query(question, mode) for question in questions],
            min(depth, len(store)),
            self.components.cache,
        )
        self.found = {
            question.id: store.ids([row for row in rows.tolist() if row >= 0])
            for question, rows in zip(questions, result.rows_QK, strict=True)
        }
        super().prepare()

    @property
    def distractors(self) -> int:
        """Retrieved passages beside the gold."""
        configured = self.config.distractors
        return self.components.config.retriever.k if configured is None else configured

    def passages_for(self, question: Question, epoch: int) -> list[Passage]:
        """Gold and retrieved, in the order asked for."""
        draws = self.draws(question, epoch)
        gold = question.distinct_golds[: self.config.max_gold]
        # Gold that is left out is out of the retrieved ones as well.
        retrieved = [
            passage for passage in self.found[question.id] if passage not in set(question.positive_ids) - set(gold)
        ]
        if draws.random() < self.config.gold_dropout:
            retrieved = [passage for passage in retrieved if passage not in set(gold)]
            gold = ()
        pool = order_pool(gold, retrieved, self.distractors, self.config.gold_position, draws)
        store = self.components.data.passages
        return [store[int(row)] for row in store.rows(pool)] if pool else []
