"""CTL against its definition written as loops: which passages a question is contrasted with, however it is computed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.algorithms import ctl
from rag_experiments.algorithms.ctl import CTLConfig, CTLTrainer, ctl_loss
from rag_experiments.algorithms.shared import batches
from rag_experiments.algorithms.shared.multiple_positives import ContrastiveExample
from rag_experiments.data.records import Question, Turn
from tests.algorithms.plain_encoder import TableEncoder

PASSAGES = [" ".join([str(row)] * (1 + row % 4)) for row in range(12)]


def trainer_of(encoder: TableEncoder, **options) -> CTLTrainer:
    """A trainer's collate and compute_loss without the rest of a Trainer; what it records is in `recorded`."""
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(**options)
    store = SimpleNamespace(full_texts=lambda rows: [PASSAGES[row] for row in rows])
    trainer.components = SimpleNamespace(model=encoder, data=SimpleNamespace(passages=store))
    trainer.recorded = {}
    trainer.record = lambda name, value: trainer.recorded.update({name: float(value)})
    return trainer


def feature(query: int, target: int, positives=None, negatives=()) -> dict:
    return {
        "query": " ".join([str(query)] * (1 + query % 3)),
        "targets": [target],
        "positives": list(positives or [target]),
        "grades": [1.0] * len(positives or [target]),
        "negatives": list(negatives),
        "weight": 1.0,
    }


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def by_loops(encoder: TableEncoder, features: list[dict], own: slice, similarity: str = "cosine", **options) -> float:
    """The docstring's equation for the questions `own`, whose batch is all of `features`."""
    hyper = CTLConfig(**options)
    table = encoder.table.detach().numpy()
    query = [table[int(f["query"].split()[0])] for f in features]
    pool = {row for f in features for row in (*f["targets"], *f["negatives"])}
    width = table.shape[1]
    widths = {width, *(dim for dim in hyper.matryoshka_dims or () if dim <= width)}
    mine = range(len(features))[own]

    def score(i: int, row: int, dim: int) -> float:
        a, b = query[i][:dim], table[encoder.SHIFT + row][:dim]
        return (cosine(a, b) if similarity == "cosine" else float(a @ b)) / hyper.temperature

    def known(i: int, row: int) -> bool:
        return hyper.mask_known_positives and row in features[i]["positives"]

    at_each_width = []
    for dim in widths:
        total = 0.0
        for i in mine:
            target = features[i]["targets"][0]
            among = [row for row in pool if row == target or not known(i, row)]
            forth = -math.log(math.exp(score(i, target, dim)) / sum(math.exp(score(i, row, dim)) for row in among))
            if not hyper.symmetric:
                total += forth
                continue
            others = [j for j in mine if j == i or not known(j, target)]
            back = -math.log(math.exp(score(i, target, dim)) / sum(math.exp(score(j, target, dim)) for j in others))
            total += (forth + back) / 2
        at_each_width.append(total / len(mine))
    return sum(at_each_width) / len(widths)


@st.composite
def batches_of_questions(draw) -> list[dict]:
    """Up to five questions on seven passages, so that they share targets, negatives and known positives."""
    features = []
    for query in range(draw(st.integers(1, 5))):
        positives = draw(st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True))
        others = [row for row in range(7) if row not in positives]
        negatives = draw(st.lists(st.sampled_from(others), max_size=2, unique=True))
        features.append(feature(query, positives[0], positives, negatives))
    return features


@settings(max_examples=40, deadline=None)
@given(
    features=batches_of_questions(),
    symmetric=st.booleans(),
    dims=st.sampled_from([None, [2], [3, 2], [6], [4, 99]]),
    mask=st.booleans(),
    size=st.sampled_from([None, 1, 3]),
    similarity=st.sampled_from(["cosine", "dot"]),
    temperature=st.sampled_from([0.5, 2.0]),
)
def test_loss_is_the_definitions_whatever_is_asked(features, symmetric, dims, mask, size, similarity, temperature):
    options = {
        "symmetric": symmetric,
        "matryoshka_dims": dims,
        "mask_known_positives": mask,
        "temperature": temperature,
    }
    encoder = TableEncoder(similarity=similarity)
    trainer = trainer_of(encoder, mini_batch_size=size, **options)
    loss = trainer.compute_loss(encoder, trainer.collate(features))
    expected = by_loops(encoder, features, slice(None), similarity, **options)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_a_known_positive_is_no_negative_in_either_direction():
    """Question 0 knows passage 1, which is question 1's own; question 1 does not know passage 0."""
    features = [feature(0, 0, [0, 1]), feature(1, 1)]
    found = {}
    for mask in (True, False):
        encoder = TableEncoder()
        trainer = trainer_of(encoder, symmetric=True, temperature=0.5, mask_known_positives=mask)
        found[mask] = trainer.compute_loss(encoder, trainer.collate(features)).item()
        expected = by_loops(encoder, features, slice(None), symmetric=True, temperature=0.5, mask_known_positives=mask)
        assert found[mask] == pytest.approx(expected, abs=1e-9)
    turned = by_loops(
        TableEncoder(), [feature(0, 0), feature(1, 1, [1, 0])], slice(None), symmetric=True, temperature=0.5
    )
    assert abs(found[True] - found[False]) > 1e-2
    assert abs(found[True] - turned) > 1e-2, "a mask turned round would be another loss"


def test_two_processes_contrast_with_the_passages_of_both(monkeypatch):
    """Each question with all passages of both processes, each once, less those it knows; targets stay its own."""
    features = [
        feature(0, 0, [0, 4], [1]), feature(1, 1, negatives=[0]), feature(2, 3),
        feature(3, 4, [4, 1], [0]), feature(4, 3, negatives=[5]), feature(5, 6, negatives=[1]),
    ]  # fmt: skip
    halves = [features[:3], features[3:]]
    encoder = TableEncoder()
    trainers = [trainer_of(encoder, temperature=0.5) for _ in halves]
    inputs = [trainer.collate(half) for trainer, half in zip(trainers, halves, strict=True)]
    vectors = [batches.encode_chunks(encoder, given["passages"]) for given in inputs]
    rows = torch.cat([given["passage_rows_P"] for given in inputs])
    for rank, trainer in enumerate(trainers):
        offset = 0 if rank == 0 else len(vectors[0])
        monkeypatch.setattr(ctl, "gather_with_gradient", lambda own, offset=offset: (torch.cat(vectors), offset))
        monkeypatch.setattr(ctl, "gather_rows", lambda own: rows)
        loss = trainer.compute_loss(encoder, inputs[rank])
        expected = by_loops(encoder, features, slice(rank * 3, rank * 3 + 3), temperature=0.5)
        assert loss.item() == pytest.approx(expected, abs=1e-9), f"process {rank}"


@settings(max_examples=20, deadline=None)
@given(features=batches_of_questions(), order=st.randoms(use_true_random=False))
def test_the_order_of_a_batch_changes_no_loss(features, order):
    encoder = TableEncoder()
    shuffled = [{**f, "negatives": order.sample(f["negatives"], len(f["negatives"]))} for f in features]
    order.shuffle(shuffled)
    found = []
    for batch in (features, shuffled):
        trainer = trainer_of(encoder, symmetric=True, temperature=0.5)
        found.append(trainer.compute_loss(encoder, trainer.collate(batch)).item())
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_negatives_are_counted_without_known_and_repeated_ones():
    """Passages 0, 1, 2, 3: question 0 knows 1, so it meets 2 and 3; question 1 meets 0, 2 and 3."""
    trainer = trainer_of(TableEncoder())
    trainer.compute_loss(
        trainer.components.model, trainer.collate([feature(0, 0, [0, 1], [2]), feature(1, 1, negatives=[3])])
    )
    assert trainer.recorded == {"negatives_per_question": 2.5}


def test_texts_are_encoded_so_many_at_a_time():
    features = [feature(i, i, negatives=[i + 5]) for i in range(5)]
    for options, wanted in (
        ({}, [5, 10]),
        ({"sub_batch_size": 4}, [4, 1, 4, 4, 2]),
        ({"mini_batch_size": 3, "sub_batch_size": 4}, [3, 2, 3, 3, 3, 1]),
    ):
        encoder = TableEncoder()
        trainer = trainer_of(encoder, **options)
        loss = trainer.compute_loss(encoder, trainer.collate(features))
        assert encoder.sizes == wanted, options
        encoder.sizes.clear()
        loss.backward()
        # Cached gradients are what a second forward costs; without `mini_batch_size` nothing is computed again.
        assert sum(encoder.sizes) == (15 if "mini_batch_size" in options else 0), options


def test_loss_outputs_are_the_vectors_in_the_order_of_the_batch():
    encoder = TableEncoder()
    trainer = trainer_of(encoder)
    features = [feature(3, 4, negatives=[2]), feature(0, 1, negatives=[7])]
    loss, outputs = trainer.compute_loss(encoder, trainer.collate(features), return_outputs=True)
    assert loss.item() == trainer.compute_loss(encoder, trainer.collate(features)).item()
    table = torch.nn.functional.normalize(encoder.table, dim=-1)
    torch.testing.assert_close(outputs["queries"], table[[3, 0]])
    torch.testing.assert_close(outputs["passages"], table[[104, 101, 102, 107]])


def test_temperature_divides_the_scores():
    scores = torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    none = torch.zeros_like(scores, dtype=torch.bool)
    cold = ctl_loss(scores, torch.tensor([0]), none, 0.1)
    assert cold.item() == pytest.approx(ctl_loss(scores / 0.1, torch.tensor([0]), none, 1.0).item(), abs=1e-12)
    assert cold.item() < ctl_loss(scores, torch.tensor([0]), none, 1.0).item()


def test_examples_hold_each_questions_own_positives_and_negatives():
    """Drawn from the training questions alone, by row of the store, and remade each epoch."""
    rows = {f"p{row}": row for row in range(9)}
    store = SimpleNamespace(rows=lambda ids: np.array([rows[passage] for passage in ids], dtype=np.int64))
    train = [
        Question("a", "1", positive_ids=("p3", "p1"), negative_ids=("p7",)),
        Question("b", "2", positive_ids=("p2",)),
    ]
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(hard_negatives=2)
    data = SimpleNamespace(passages=store, splits={"train": train, "dev": [Question("c", "3", positive_ids=("p5",))]})
    trainer.components = SimpleNamespace(
        data=data, config=SimpleNamespace(seed=0, data=SimpleNamespace(query_history="none"))
    )
    examples = trainer.training_examples()
    assert len(examples) == 2
    assert [examples[i]["query"] for i in range(2)] == ["1", "2"]
    assert [examples[i]["positives"] for i in range(2)] == [[3, 1], [2]]
    assert [examples[i]["negatives"] for i in range(2)] == [[7], []]
    met = set()
    for epoch in range(20):
        examples.set_epoch(epoch)
        met.update(examples[0]["targets"])
    assert met == {1, 3}


# -- what is drawn ---------------------------------------------------------------------------------


def drawn(seed: int = 0, epoch: int = 0, identity: str = "q", history: str = "none", **options) -> dict:
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(**options)
    trainer.components = SimpleNamespace(config=SimpleNamespace(seed=seed, data=SimpleNamespace(query_history=history)))
    question = Question(id=identity, question="And who?", history=(Turn("user", "What?"), Turn("assistant", "So.")))
    return trainer._draw(
        ContrastiveExample(question, (1, 2, 3), (1, 2, 3), (1.0, 1.0, 1.0), tuple(range(10, 30))), epoch
    )


@pytest.mark.parametrize("count", [0, 1, 5, 20, 25])
def test_so_many_hard_negatives_are_drawn_each_once_and_never_more_than_there_are(count):
    negatives = drawn(hard_negatives=count)["negatives"]
    assert len(negatives) == len(set(negatives)) == min(count, 20)
    assert set(negatives) <= set(range(10, 30))


def test_another_seed_question_or_epoch_draws_others():
    base = {"seed": 0, "epoch": 0, "identity": "q"}
    first = drawn(**base, hard_negatives=8)
    assert drawn(**base, hard_negatives=8) == first
    for change in ({"seed": 1}, {"epoch": 1}, {"identity": "other"}):
        assert drawn(**{**base, **change}, hard_negatives=8)["negatives"] != first["negatives"], change
    assert {drawn(epoch=epoch)["targets"][0] for epoch in range(30)} == {1, 2, 3}


def test_the_query_has_the_turns_that_are_asked_for():
    assert [drawn(history=mode)["query"] for mode in ("none", "user", "all")] == [
        "And who?", "What?\nAnd who?", "What?\nSo.\nAnd who?",
    ]  # fmt: skip
