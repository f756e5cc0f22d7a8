"""Questions with several gold passages: which of them an example shows, and the loss over several at once."""

from __future__ import annotations

import math
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_experiments.algorithms.ctl import CTLConfig, CTLTrainer, ctl_loss
from rag_experiments.algorithms.shared.multiple_positives import (
    ContrastiveExample,
    count_examples,
    make_examples,
    multi_positive_loss,
)
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Question
from tests.algorithms.plain_encoder import TableEncoder
from tests.algorithms.test_ctl_masks import by_loops, feature, trainer_of

SCORES = torch.tensor([[0.9, 0.4, 0.1, 0.6]], dtype=torch.float64)
NONE = torch.zeros(1, 4, dtype=torch.bool)


def e(score: float, temperature: float = 0.5) -> float:
    return math.exp(score / temperature)


# -- the loss by hand --------------------------------------------------------------------------------


def test_the_sum_outside_by_hand():
    """Positives 0 and 1 with grades 1 and 3; negatives 2 and 3. A positive is not in the other's denominator."""
    grades = torch.tensor([[1.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    negatives = e(0.1) + e(0.6)
    first = -math.log(e(0.9) / (e(0.9) + negatives))
    second = -math.log(e(0.4) / (e(0.4) + negatives))
    loss = multi_positive_loss(SCORES, grades, NONE, 0.5, "outside")
    assert loss.item() == pytest.approx((first + 3 * second) / 4, abs=1e-12)


def test_the_sum_inside_by_hand():
    grades = torch.tensor([[1.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    everything = e(0.9) + e(0.4) + e(0.1) + e(0.6)
    loss = multi_positive_loss(SCORES, grades, NONE, 0.5, "inside")
    assert loss.item() == pytest.approx(-math.log((e(0.9) + 3 * e(0.4)) / 4 / everything), abs=1e-12)


@pytest.mark.parametrize("form", ["outside", "inside"])
def test_what_is_excluded_counts_neither_way(form):
    grades = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    excluded = torch.tensor([[False, True, False, True]])
    left = multi_positive_loss(SCORES[:, [0, 2]], grades[:, [0, 2]], NONE[:, :2], 0.5, form)
    assert multi_positive_loss(SCORES, grades, excluded, 0.5, form).item() == pytest.approx(left.item(), abs=1e-12)


@pytest.mark.parametrize("form", ["outside", "inside"])
def test_with_one_positive_both_are_the_usual_loss(form):
    scores = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grades = torch.nn.functional.one_hot(torch.tensor([2, 0, 4]), 5).double()
    none = torch.zeros(3, 5, dtype=torch.bool)
    usual = ctl_loss(scores, torch.tensor([2, 0, 4]), none, 0.3)
    assert multi_positive_loss(scores, grades, none, 0.3, form).item() == pytest.approx(usual.item(), abs=1e-12)


@pytest.mark.parametrize("form", ["outside", "inside"])
def test_a_question_without_negatives_has_a_finite_gradient(form):
    scores = SCORES.clone().requires_grad_()
    grades = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    excluded = torch.tensor([[False, False, True, True]])
    multi_positive_loss(scores, grades, excluded, 0.5, form).backward()
    assert scores.grad.isfinite().all()
    if form == "outside":
        assert scores.grad.abs().max() == 0.0, "nothing to be told apart from"


# -- the trainer against loops --------------------------------------------------------------------------


def multi_by_loops(features: list[dict], form: str, symmetric: bool, temperature: float) -> float:
    encoder = TableEncoder()
    table = torch.nn.functional.normalize(encoder.table.detach(), dim=-1).numpy()
    query = [table[int(f["query"].split()[0])] for f in features]
    pool = sorted({row for f in features for row in (*f["targets"], *f["negatives"])})
    score = np.array([[q @ table[encoder.SHIFT + row] / temperature for row in pool] for q in query])
    grades = np.array(
        [[dict(zip(f["positives"], f["grades"], strict=True)).get(row, 0) for row in pool] for f in features]
    )

    def loss(scores: np.ndarray, weights: np.ndarray) -> float:
        total = 0.0
        for s, w in zip(scores, weights, strict=True):
            negatives = sum(math.exp(x) for x, y in zip(s, w, strict=True) if y == 0)
            if form == "inside":
                worthy = sum(y * math.exp(x) for x, y in zip(s, w, strict=True)) / w.sum()
                total -= math.log(worthy / sum(math.exp(x) for x in s))
            else:
                each = [-y * math.log(math.exp(x) / (math.exp(x) + negatives)) for x, y in zip(s, w, strict=True) if y]
                total += sum(each) / w.sum()
        return total / len(scores)

    forth = loss(score, grades)
    if not symmetric:
        return forth
    columns = (grades > 0).any(axis=0)
    return (forth + loss(score.T[columns], grades.T[columns])) / 2


@st.composite
def batches(draw) -> list[dict]:
    """Up to four questions on six passages with grades; what is shown is a part of what is known."""
    features = []
    for query in range(draw(st.integers(1, 4))):
        positives = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
        others = [row for row in range(7) if row not in positives]
        made = feature(query, positives[0], positives, draw(st.lists(st.sampled_from(others), max_size=2, unique=True)))
        made["targets"] = positives[: draw(st.integers(1, len(positives)))]
        made["grades"] = [float(draw(st.integers(1, 3))) for _ in positives]
        features.append(made)
    return features


@settings(max_examples=40, deadline=None)
@given(features=batches(), form=st.sampled_from(["outside", "inside"]), symmetric=st.booleans())
def test_the_loss_over_several_positives_is_the_definitions(features, form, symmetric):
    encoder = TableEncoder()
    trainer = trainer_of(encoder, positives="multi", positives_sum=form, symmetric=symmetric, temperature=0.5)
    loss = trainer.compute_loss(encoder, trainer.collate(features))
    assert loss.item() == pytest.approx(multi_by_loops(features, form, symmetric, 0.5), abs=1e-6)


def test_pairs_weigh_their_grade():
    features = [feature(0, 0), feature(1, 1)]
    apart = [by_loops(TableEncoder(), features, slice(i, i + 1), temperature=0.5) for i in range(2)]
    for made, weight in zip(features, (0.5, 1.5), strict=True):
        made["weight"] = weight
    encoder = TableEncoder()
    trainer = trainer_of(encoder, positives="pairs", temperature=0.5)
    loss = trainer.compute_loss(encoder, trainer.collate(features))
    assert loss.item() == pytest.approx((0.5 * apart[0] + 1.5 * apart[1]) / 2, abs=1e-6)


def test_two_pairs_of_one_question_do_not_meet_as_negatives():
    encoder = TableEncoder()
    trainer = trainer_of(encoder, positives="pairs", symmetric=True)
    features = [feature(0, 0, [0, 1]), feature(0, 1, [0, 1])]
    assert trainer.compute_loss(encoder, trainer.collate(features)).item() == pytest.approx(0.0, abs=1e-9)
    assert trainer.recorded == {"negatives_per_question": 0.0}


# -- the examples ------------------------------------------------------------------------------------------

QUESTIONS = [
    Question("a", "?", positive_ids=("p1", "p2", "p3"), relevance={"p1": 3, "p2": 1, "p9": 0}, copies={"p3": "p1"}),
    Question("b", "?", positive_ids=("p4",), negative_ids=("p5",)),
]
STORE = SimpleNamespace(rows=lambda ids: np.array([int(name[1:]) for name in ids], dtype=np.int64))


def test_pairs_are_an_example_each_without_copies():
    pairs = make_examples(QUESTIONS, STORE, "pairs")
    assert [(example.question.id, example.targets) for example in pairs] == [("a", (1,)), ("a", (2,)), ("b", (4,))]
    assert {example.positives for example in pairs} == {(1, 2, 3), (4,)}, "a copy is still no negative"
    assert [example.weight for example in pairs] == pytest.approx([9 / 5, 3 / 5, 3 / 5])
    assert count_examples(QUESTIONS, "pairs") == len(pairs)


@pytest.mark.parametrize("positives", ["one", "multi"])
def test_otherwise_a_question_is_an_example(positives):
    examples = make_examples(QUESTIONS, STORE, positives)
    assert [example.targets for example in examples] == [(1, 2, 3), (4,)]
    assert [example.grades for example in examples] == [(3.0, 1.0, 1.0), (1.0,)]
    assert [example.negatives for example in examples] == [(), (5,)]
    assert {example.weight for example in examples} == {1.0}
    assert count_examples(QUESTIONS, positives) == 2


def example_with(*grades: float) -> ContrastiveExample:
    rows = tuple(range(len(grades)))
    return ContrastiveExample(QUESTIONS[0], rows, rows, grades, ())


@pytest.mark.parametrize("grades", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_so_many_are_shown_each_once(grades, most):
    for seed in range(20):
        shown = example_with(*grades).sample_targets(random.Random(seed), most)
        assert len(shown) == len(set(shown)) == min(most, 3)
        assert set(shown) <= {0, 1, 2}


def test_a_higher_grade_is_shown_more_often():
    met = Counter(example_with(3.0, 1.0).sample_targets(random.Random(seed), 1)[0] for seed in range(4000))
    assert met[0] / 4000 == pytest.approx(0.75, abs=0.03)
    alike = Counter(example_with(2.0, 2.0).sample_targets(random.Random(seed), 1)[0] for seed in range(4000))
    assert alike[0] / 4000 == pytest.approx(0.5, abs=0.03)


def test_each_pair_of_a_question_meets_negatives_of_its_own():
    trainer = CTLTrainer.__new__(CTLTrainer)
    trainer.config = CTLConfig(positives="pairs", hard_negatives=3)
    trainer.components = SimpleNamespace(config=SimpleNamespace(seed=0, data=SimpleNamespace(query_history="none")))
    pairs = [ContrastiveExample(QUESTIONS[0], (row,), (1, 2), (1.0, 1.0), tuple(range(10, 40))) for row in (1, 2)]
    first, second = (trainer._draw(pair, 0) for pair in pairs)
    assert [first["targets"], second["targets"]] == [[1], [2]]
    assert first["negatives"] != second["negatives"]


def test_a_mask_without_effect_is_refused():
    config = SimpleNamespace(algorithm=CTLConfig(positives="multi", mask_known_positives=False))
    with pytest.raises(RequestError, match=r"^algorithm\.mask_known_positives=false has no effect"):
        CTLTrainer.check_config(config)
    for positives in ("one", "pairs"):
        CTLTrainer.check_config(SimpleNamespace(algorithm=CTLConfig(positives=positives, mask_known_positives=False)))
