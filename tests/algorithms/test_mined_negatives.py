"""Negatives that the encoder mines: against a loop over plain numbers, and what a step is made of."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Trainer

from rag_experiments.algorithms import ctl
from rag_experiments.algorithms.ctl import CTLTrainer
from rag_experiments.algorithms.ctl_options import CTLConfig, check_negatives, check_options
from rag_experiments.algorithms.shared.mined_negatives import MinedNegatives, MiningRules
from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.negatives import highest_score, near_equal
from rag_experiments.data.records import Question
from rag_experiments.retrieval.bm25 import BM25Retriever
from rag_experiments.retrieval.candidates import RefreshCandidates
from rag_experiments.retrieval.dense import DenseRetriever
from tests.algorithms.plain_encoder import TableEncoder
from tests.retrieval.fakes import ListPassages, WordEncoder

GOLD = "the old river fox sleeps under a large stone"
TEXTS = [
    GOLD,
    "The old  RIVER fox\nsleeps under a large stone",  # its text
    f"animals: {GOLD} all day",  # nearly: holds it, and is hardly longer
    "old river fox sleeps under a large",  # nearly: the most of it
    "river fox",  # a part of it that says little
    f"{GOLD} " + "and other things that nobody counts " * 5,  # holds it among much else
    *(f"{noun} fox item{number}" for number, noun in enumerate(["river", "stone", "bird", "tree", "house", "old"] * 5)),
]
QUERIES = ["old river fox", "tree item3", "stone item7 fox"]
GOLDS = [[0], [9], [13, 9]]
NEVER = {0: {0, 1, 2, 3}, 1: {9}, 2: {13, 9}}


def miner(encoder: WordEncoder | None = None, judge=None, **rules) -> MinedNegatives:
    dense = DenseRetriever(RetrieverConfig(), ListPassages(TEXTS), encoder or WordEncoder(), None)  # type: ignore[arg-type]
    dense.progress = False
    given_rules = {"first_rank": 1, "last_rank": 8, "margin": None, "margin_absolute": None, **rules}
    return MinedNegatives(dense, QUERIES, GOLDS, MiningRules(**given_rules), judge, progress=False)


def by_loops(encoder: WordEncoder, number: int, first=1, last=8, margin=None, margin_absolute=None) -> list[int]:
    """The module's description for one question."""
    query, passages = encoder.embed_queries([QUERIES[number]])[0], encoder.embed_queries(TEXTS)
    scores = {row: float(passages[row] @ query) for row in range(len(TEXTS))}
    ranked = [row for row in sorted(scores, key=lambda row: (-scores[row], row)) if row not in NEVER[number]]
    gold = min(scores[row] for row in GOLDS[number])
    kept = []
    for row in ranked[first - 1 : last]:
        if margin is not None and scores[row] > gold - margin * abs(gold):
            continue
        if margin_absolute is not None and scores[row] > gold - margin_absolute:
            continue
        kept.append(row)
    return kept


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 20),
    first=st.integers(1, 4),
    width=st.integers(0, 12),
    margin=st.sampled_from([None, 0.0, 0.05, 0.4]),
    margin_absolute=st.sampled_from([None, 0.0, 0.3]),
)
def test_what_is_mined_is_what_the_rules_say(seed, first, width, margin, margin_absolute):
    encoder = WordEncoder(seed)
    rules = {"first_rank": first, "last_rank": first + width, "margin": margin, "margin_absolute": margin_absolute}
    made = miner(encoder, **rules)
    made.refresh()
    assert made.rows_QK.shape == (3, width + 1)
    unfiltered = 0
    for number in range(3):
        wanted = by_loops(encoder, number, first, first + width, margin, margin_absolute)
        assert set(made.of(number)) == set(wanted)
        scores = encoder.embed_queries(TEXTS) @ encoder.embed_queries([QUERIES[number]])[0]
        assert [scores[row] for row in made.of(number)] == pytest.approx([scores[row] for row in wanted])
        unfiltered += len(by_loops(encoder, number, first, first + width))
    assert made.counts["candidates"] == unfiltered
    assert made.counts["margin"] == unfiltered - (made.rows_QK >= 0).sum()


def test_a_gold_passage_and_what_is_nearly_equal_to_it_are_never_negatives():
    made = miner(last_rank=len(TEXTS))
    assert set(made.of(0)) == set(range(len(TEXTS))) - NEVER[0]
    assert set(made.of(2)) == set(range(len(TEXTS))) - NEVER[2]
    assert made.counts["near-equal"] == 3


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (" a b c d ", " a b c d ", True),
        (" a b c d ", " x a b c d y ", True),
        (" a b ", " a b c d e f g h ", False),
        (" a b c ", " a b d ", False),
        ("", " a ", False),
    ],
)
def test_near_equal_texts(one, other, expected):
    assert near_equal(one, other) is near_equal(other, one) is expected


@pytest.mark.parametrize(
    ("scores", "margin", "absolute", "expected"),
    [
        ([0.8, 0.5], 0.1, None, 0.45),
        ([-0.5], 0.1, None, -0.55),
        ([0.5], None, 0.2, 0.3),
        ([0.5], 0.1, 0.2, 0.3),
        ([0.5], 0.6, 0.2, 0.2),
        ([0.5], None, None, float("inf")),
    ],
)
def test_the_stricter_margin_counts_below_the_lowest_gold_score(scores, margin, absolute, expected):
    assert highest_score(scores, margin, absolute) == pytest.approx(expected)


def test_a_search_follows_the_weights_and_a_checkpoint_keeps_what_was_found(tmp_path):
    encoder = WordEncoder(0)
    made = miner(encoder)
    assert made.of(1) == tuple(by_loops(encoder, 1))
    made.save(tmp_path)
    encoder.seed = 5
    assert made.of(1) == tuple(by_loops(WordEncoder(0), 1)), "until a refresh"
    figures = made.refresh()
    assert set(made.of(1)) == set(by_loops(WordEncoder(5), 1))
    new = sum(len(set(by_loops(WordEncoder(5), n)) - set(by_loops(WordEncoder(0), n))) for n in range(3))
    assert figures["candidates_changed"] == pytest.approx(new / 24)
    resumed = miner(encoder)
    assert resumed.load(tmp_path)
    assert resumed.of(1) == tuple(by_loops(WordEncoder(0), 1))


def test_places_that_an_index_leaves_empty_are_no_negatives(monkeypatch):
    made = miner()
    search = made.dense.index.search

    def with_gaps(queries_QD, k):
        scores_QK, rows_QK = search(queries_QD, k)
        rows_QK = rows_QK.copy()
        rows_QK[:, ::2] = -1
        return scores_QK, rows_QK

    monkeypatch.setattr(made.dense.index, "search", with_gaps)
    every = [
        set(search(made.dense.encoder.embed_queries([query]), made.depth)[1][0, 1::2].tolist()) for query in QUERIES
    ]
    for number in range(3):
        assert set(made.of(number)) <= every[number] - NEVER[number]
        assert len(made.of(number)) > 3


@pytest.mark.parametrize("rules", [{"margin": 0.9}, {"margin_absolute": 0.1}, {"margin_absolute": 0.25}])
def test_what_is_dropped_is_said(caplog, rules):
    made = miner(**rules)
    with caplog.at_level(logging.INFO):
        figures = made.refresh()
    assert figures["dropped_by_margin"] == made.counts["margin"] > 0
    without = sum(not made.of(number) for number in range(3))
    assert figures["questions_without_mined"] == pytest.approx(without / 3)
    assert f"{made.counts['margin']} dropped by the margins" in caplog.text
    assert f"{without} of 3 questions have none" in caplog.text
    assert ("algorithm.margin=null" in caplog.text) is (without >= 2)


def test_a_retriever_without_vectors_is_refused():
    words = BM25Retriever(RetrieverConfig(type="bm25"), ListPassages(TEXTS), None)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"algorithm\.negatives.*needs a faiss retriever"):
        MinedNegatives(words, QUERIES, GOLDS, MiningRules(first_rank=1, last_rank=2, margin=None, margin_absolute=None))


# -- a step ----------------------------------------------------------------------------------------------


def trainer_of(monkeypatch, mined: list[list[int]], **options) -> CTLTrainer:
    """A trainer of three questions after its preparation, without the rest of a Trainer."""
    monkeypatch.setattr(Trainer, "_prepare_inputs", lambda self, inputs: inputs)
    rows = {f"p{row}": row for row in range(20)}
    store = SimpleNamespace(
        rows=lambda ids: np.array([rows[one] for one in ids], dtype=np.int64),
        full_texts=lambda rows: [str(row) for row in rows],
    )
    train = [
        Question(f"q{n}", str(n), positive_ids=(f"p{n}", f"p{n + 3}"), negative_ids=(f"p{n + 6}",)) for n in range(3)
    ]
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(negatives="mined", **options) if "negatives" not in options else CTLConfig(**options)
    run = SimpleNamespace(seed=0, data=SimpleNamespace(query_history="none"))
    data = SimpleNamespace(passages=store, splits={"train": train})
    trainer.components = SimpleNamespace(model=TableEncoder(), data=data, config=run)
    trainer.mined = SimpleNamespace(of=lambda number: tuple(mined[number]))
    trainer.record = lambda name, value: None
    trainer.tokens_seen = 0
    return trainer


def batch_of(trainer: CTLTrainer, epoch: int = 0) -> dict:
    examples = trainer.training_examples()
    examples.set_epoch(epoch)
    return trainer._prepare_inputs(trainer.collate([examples[number] for number in range(len(examples))]))


def test_a_step_shows_what_is_mined_when_it_is_computed(monkeypatch):
    mined = [[10, 11], [12], []]
    trainer = trainer_of(monkeypatch, mined, hard_negatives=2)
    examples = trainer.training_examples()
    collated = trainer.collate([examples[0], examples[1], examples[2]])
    mined[:] = [[14, 15], [], [16]]  # a refresh between collating and the step
    batch = trainer._prepare_inputs(collated)
    assert set(batch["passage_rows_P"].tolist()) - {0, 1, 2, 3, 4, 5} == {14, 15, 16}
    assert trainer.tokens_seen == 3 + len(batch["passage_rows_P"])


@pytest.mark.parametrize("positives", ["one", "pairs", "multi"])
def test_with_both_listed_and_mined_ones_are_drawn(monkeypatch, positives):
    met = set()
    for epoch in range(30):
        trainer = trainer_of(monkeypatch, [[10, 11]] * 3, negatives="both", positives=positives)
        batch = batch_of(trainer, epoch)
        assert len(batch["target_B"]) == (6 if positives == "pairs" else 3)
        met |= set(batch["passage_rows_P"].tolist()) - {0, 1, 2, 3, 4, 5}
    assert met == {6, 7, 8, 10, 11}


def test_the_loss_is_that_of_the_same_negatives_listed(monkeypatch):
    trainer = trainer_of(monkeypatch, [[10], [11], [12]])
    mined = trainer.compute_loss(trainer.components.model, batch_of(trainer)).item()
    listed = trainer_of(monkeypatch, [])
    listed.config, listed.mined = CTLConfig(), None
    questions = listed.components.data.splits["train"]
    listed.components.data.splits["train"] = [
        Question(q.id, q.question, positive_ids=q.positive_ids, negative_ids=(f"p{10 + n}",))
        for n, q in enumerate(questions)
    ]
    assert mined == listed.compute_loss(listed.components.model, batch_of(listed)).item()


def test_preparing_searches_every_n_steps(monkeypatch):
    added, made = [], []
    trainer = trainer_of(monkeypatch, [], refresh_every=7, first_rank=2, last_rank=5, margin=0.1, margin_absolute=0.2)
    trainer.components.retriever, trainer.components.cache = object(), None
    monkeypatch.setattr(ctl, "MinedNegatives", lambda *arguments: made.append(arguments) or "mined")
    trainer.add_callback = added.append
    trainer.prepare()
    ((retriever, queries, golds, rules, judge),) = made
    assert judge is None
    assert retriever is trainer.components.retriever
    assert (queries, golds) == (["0", "1", "2"], [[0, 3], [1, 4], [2, 5]])
    assert rules == MiningRules(first_rank=2, last_rank=5, margin=0.1, margin_absolute=0.2)
    (callback,) = added
    assert isinstance(callback, RefreshCandidates)
    assert (callback.every, callback.candidates) == (7, "mined")
    assert len(trainer.train_dataset) == 3


# -- requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"refresh_every": 5}, r"algorithm\.refresh_every=5 is about mined negatives: add algorithm\.negatives=mined"),
        ({"first_rank": 2}, r"algorithm\.first_rank=2 is about mined"),
        ({"last_rank": 20}, r"algorithm\.last_rank=20 is about mined"),
        ({"margin": None}, r"algorithm\.margin=null is about mined"),
        ({"margin_absolute": 0.1}, r"algorithm\.margin_absolute=0\.1 is about mined"),
        ({"negatives": "mined", "hard_negatives": 0}, r"algorithm\.hard_negatives=0 mines negatives and shows none"),
        ({"negatives": "both", "first_rank": 51}, r"algorithm\.first_rank=51 is beyond algorithm\.last_rank=50"),
    ],
)
def test_options_without_effect_are_refused(values, message):
    with pytest.raises(RequestError, match=message):
        check_options(CTLConfig(**values))


def test_options_that_go_together_are_taken():
    check_options(CTLConfig())
    check_options(CTLConfig(negatives="both", refresh_every=3, first_rank=5, last_rank=5, margin=None))


@pytest.mark.parametrize(
    ("values", "corpus", "listed", "message"),
    [
        ({"negatives": "mined", "first_rank": 6}, 6, True, r"algorithm\.first_rank=6: the corpus has 6 passages"),
        ({"negatives": "both"}, 6, False, r"no training question lists negatives .*take algorithm\.negatives=mined"),
    ],
)
def test_what_the_data_lack_is_said(values, corpus, listed, message):
    train = [Question("q", "?", positive_ids=("p",), negative_ids=("n",) if listed else ())] * 2
    data = SimpleNamespace(passages=range(corpus), splits={"train": train})
    config = SimpleNamespace(algorithm=CTLConfig(**values), trainer={})
    with pytest.raises(RequestError, match=message):
        check_negatives(config, data, 2)


def test_one_question_alone_is_told_apart_from_mined_negatives():
    data = SimpleNamespace(passages=range(6), splits={"train": [Question("q", "?", positive_ids=("p",))]})
    check_negatives(SimpleNamespace(algorithm=CTLConfig(negatives="mined"), trainer={}), data, 1)
    with pytest.raises(RequestError, match="a question alone in its batch"):
        check_negatives(SimpleNamespace(algorithm=CTLConfig(), trainer={}), data, 1)
