"""The losses of rerank by hand, by loops, against sentence-transformers' own; which candidates a question is shown."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as theirs

from rag_experiments.algorithms import rerank
from rag_experiments.algorithms.rerank import RerankConfig, RerankTrainer
from rag_experiments.algorithms.shared.candidate_draws import CandidateDraws
from rag_experiments.algorithms.shared.multiple_positives import ContrastiveExample
from rag_experiments.core.errors import RequestError
from rag_experiments.data.records import Question
from rag_experiments.retrieval.retriever import Retriever, SearchResult
from tests.retrieval.fakes import ListPassages

ALL = torch.ones(1, 3, dtype=torch.bool)


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def logistic(x: float) -> float:
    return math.log1p(math.exp(x))


def test_listwise_and_kl_by_hand():
    log_scores = tensor([0.5, 0.25, 0.25], [0.2, 0.8, 1.0]).log()
    target = tensor([0.75, 0.25, 0.0], [0.5, 0.5, 0.0])
    first = -(0.75 * math.log(0.5) + 0.25 * math.log(0.25))
    second = -(0.5 * math.log(0.2) + 0.5 * math.log(0.8))
    assert rerank.listwise_loss(log_scores, target).item() == pytest.approx((first + second) / 2)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), math.log(2)
    assert rerank.kl_loss(log_scores, target).item() == pytest.approx((first + second - sum(entropy)) / 2)
    assert rerank.kl_loss(target[:, :2].log(), target[:, :2]).item() == pytest.approx(0, abs=1e-12)


def test_pairs_by_hand():
    scores, labels = tensor([1.0, 0.5, -1.0]), tensor([0.0, 2.0, 1.0])
    wanted = (logistic(0.5) + logistic(-1.5) + logistic(2.0)) / 3  # 1 over 0, 1 over 2, 2 over 0
    assert rerank.ranknet_loss(scores, labels, ALL).item() == pytest.approx(wanted)
    assert rerank.pairwise_loss(scores, labels, ALL, 1.75).item() == pytest.approx((2.25 + 0.25 + 3.75) / 3)
    positive = torch.tensor([[False, True, False]])
    wanted = ((0.5 - 1.0 - 2.0) ** 2 + (0.5 + 1.0 - 1.0) ** 2) / 2
    assert rerank.margin_mse_loss(scores, labels, positive, ALL).item() == pytest.approx(wanted)


def test_lambda_by_hand():
    """Two candidates, the better one second: G = (1, 0), D = (1, log2 3), both weights are |1 - 1/log2 3|."""
    step = 1 - 1 / math.log2(3)
    wanted = (10 * step + step) * logistic(0.75)
    found = rerank.lambda_loss(tensor([0.25, 1.0]), tensor([1.0, 0.0]), ALL[:, :2])
    assert found.item() == pytest.approx(wanted)


LOSSES = {
    "ranknet": lambda s, y, p: rerank.ranknet_loss(s, y, p),
    "lambda": lambda s, y, p: rerank.lambda_loss(s, y, p),
    "pairwise": lambda s, y, p: rerank.pairwise_loss(s, y, p, 1.0),
    "margin_mse": lambda s, y, p: rerank.margin_mse_loss(s, y, y > 1, p),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_place_without_a_candidate_and_a_question_without_a_pair_change_nothing(name):
    scores = tensor([0.1, 1.0, -0.5, 0.7, 2.0], [0.3, -0.2, 1.5, 0.9, 0.0]).requires_grad_()
    labels = torch.tensor([[2.0, 0, 1, 0, 3], [1, 1, 1, 1, 1]], dtype=torch.float64)
    present = torch.tensor([[True, True, True, False, False], [True] * 5])
    loss = LOSSES[name](scores, labels, present)
    alone = LOSSES[name](scores[:1, :3], labels[:1, :3], present[:1, :3])
    assert loss.item() == pytest.approx(alone.item() / 2), "the second question counts 0, its mean is over both"
    loss.backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[0, 3:] == 0).all()
    assert (scores.grad[1] == 0).all()
    assert scores.grad[0, 0] < 0, "the best candidate rises"


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_candidates_does_not_matter(name):
    scores, labels = tensor([0.3, -0.2, 1.5, 0.9]), tensor([0.0, 2.0, 1.0, 0.0])
    present = torch.ones(1, 4, dtype=torch.bool)
    orders = [list(order) for order in itertools.permutations(range(4))]
    values = [LOSSES[name](scores[:, order], labels[:, order], present).item() for order in orders]
    assert values == pytest.approx([values[0]] * 24)


class Given(CrossEncoder):
    """sentence-transformers' losses ask it for scores: a document is its own."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self):
        torch.nn.Module.__init__(self)

    def preprocess(self, pairs, **_):
        return {"scores": torch.tensor([float(document) for _, document in pairs])}

    def forward(self, features, **_):
        return features


CASES = [([0.3, -0.2, 1.5, 0.9], [0.0, 2.0, 1.0, 0.0]), ([2.5, 0.1, 0.2], [0.0, 0.0, 1.0]), ([-1.0, 4.0], [1.0, 0.0])]


@pytest.mark.parametrize(("scores", "labels"), CASES)
def test_losses_are_those_of_sentence_transformers(scores, labels):
    inputs, given = [["q"], [[str(score) for score in scores]]], [torch.tensor(labels)]
    present = torch.ones(1, len(scores), dtype=torch.bool)
    ours = tensor(scores), tensor(labels), present
    ranknet = theirs.RankNetLoss(Given(), reduction_log="natural")(inputs, given)
    assert rerank.ranknet_loss(*ours).item() == pytest.approx(float(ranknet), rel=1e-5)
    weighted = theirs.LambdaLoss(Given(), reduction_log="natural")(inputs, given)
    assert rerank.lambda_loss(*ours).item() == pytest.approx(float(weighted), rel=1e-5)
    listnet = theirs.ListNetLoss(Given())(inputs, given)
    found = rerank.listwise_loss(ours[0].log_softmax(dim=1), ours[1].softmax(dim=1))
    assert found.item() == pytest.approx(float(listnet), rel=1e-5)


def test_margins_are_those_of_sentence_transformers():
    scores, labels = [0.3, -0.2, 1.5], [4.0, 1.0, 2.5]
    columns = [["q"], *([str(score)] for score in scores)]
    margin = theirs.MarginMSELoss(Given())(columns, torch.tensor([labels]))
    positive = torch.tensor([[True, False, False]])
    found = rerank.margin_mse_loss(tensor(scores), tensor(labels), positive, ALL)
    assert found.item() == pytest.approx(float(margin), rel=1e-5)


# -- candidates ------------------------------------------------------------------------------------------

TEXTS = ["gold", "Gold ", "second gold", "a", "b", "c", "d", "e", "f", "listed"]


class InOrder(Retriever):
    """Finds the passages in the order of their rows."""

    def __init__(self):
        self.passages = ListPassages(TEXTS)  # type: ignore[assignment]

    def search(self, queries, k):
        rows = np.tile(np.arange(min(k, len(TEXTS))), (len(queries), 1))
        return SearchResult(rows, -rows.astype(np.float32))

    def fingerprint(self):
        return "in order"

    def save(self, folder):
        raise NotImplementedError


def draws(seed: int | None = 0, grades=(1.0, 1.0), negatives=(9,), count=4, pool=5) -> CandidateDraws:
    examples = [
        ContrastiveExample(Question(str(number), "q"), (0, 2), (0, 2), grades, negatives) for number in range(3)
    ]
    return CandidateDraws(examples, ["q"] * 3, InOrder(), count, pool, seed)


def test_gold_passages_and_what_equals_them_are_never_negatives():
    made = draws()
    seen = set()
    for epoch in range(60):
        for row_K in made.rows([0, 1, 2], [epoch] * 3).tolist():
            assert 1 not in row_K, "the gold one's text under another id"
            assert len(set(row_K)) == 4
            golds = {0, 2} & set(row_K)
            assert len(golds) == 2
            assert set(row_K) <= {0, 2, *range(3, 7), 9}
            seen |= set(row_K)
    assert seen == {0, 2, 3, 4, 5, 6, 9}, "five of the retriever's that are not gold by id, and the listed one"


def test_a_draw_is_of_seed_epoch_and_question_alone():
    one, other = draws(), draws()
    other.rows([2, 1, 0], [5, 4, 3])
    np.testing.assert_array_equal(one.rows([0, 1], [3, 3]), other.rows([0, 1], [3, 3]))
    assert not np.array_equal(one.rows([0] * 9, [*range(9)]), one.rows([1] * 9, [*range(9)]))
    assert not np.array_equal(one.rows([0] * 9, [*range(9)]), draws(seed=1).rows([0] * 9, [*range(9)]))


def test_nothing_is_drawn_without_a_seed():
    made = draws(seed=None)
    np.testing.assert_array_equal(made.rows([0], [0]), [[0, 2, 9, 3]])
    np.testing.assert_array_equal(made.rows([0], [7]), [[0, 2, 9, 3]])


def test_places_are_empty_where_there_are_no_more_passages():
    made = draws(count=12, pool=12)
    (row_K,) = made.rows([0], [0]).tolist()
    assert sorted(row_K) == [-1, -1, -1, 0, 2, 3, 4, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(made.grades([0], np.array([[0, 5, -1]])), [[1.0, 0.0, 0.0]])


def test_one_gold_passage_leaves_the_other_out():
    made = draws(count=2, grades=(1.0, 3.0))
    rows = made.rows([0] * 200, [*range(200)])
    first = rows[:, 0]
    assert set(first.tolist()) == {0, 2}
    assert (first == 2).mean() > 0.6, "the higher grade more often"
    assert not {0, 2} & set(rows[:, 1].tolist())
    np.testing.assert_array_equal(made.grades([0], np.array([[2, 0]])), [[3.0, 1.0]])


# -- requests --------------------------------------------------------------------------------------------


def check(**values) -> None:
    RerankTrainer.check_config(SimpleNamespace(algorithm=RerankConfig(**values)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": "reader"}, "model@algorithm.teacher=smollm2_135m"),
        ({"objective": "kl"}, "learns a teacher's scores"),
        ({"objective": "margin_mse"}, "learns a teacher's scores"),
        ({"refresh_every": 5}, "algorithm.ordered_by=reranker"),
        ({"teacher": SimpleNamespace()}, "with algorithm.labels=reader only"),
        ({"teacher": SimpleNamespace(), "labels": "reader", "objective": "lambda"}, "needs grades"),
        ({"teacher": SimpleNamespace(), "labels": "reader", "pool": 9}, "algorithm.candidates=8"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(RequestError, match=message.replace(".", r"\.")):
        check(**values)


def test_values_that_go_together_are_taken():
    check()
    check(teacher=SimpleNamespace(), labels="reader", objective="kl", pool=8)
    check(ordered_by="reranker", refresh_every=5, objective="lambda")


def test_a_teachers_margins_are_taken_from_its_best_where_no_gold_is_known():
    positive = torch.tensor([[False, False, False], [True, False, False]])
    labels, present = tensor([1.0, 3.0, 9.0], [1.0, 3.0, 2.0]), torch.tensor([[True, True, False], [True] * 3])
    found = rerank._or_best(positive, labels, present)
    assert found.tolist() == [[False, True, False], [True, False, False]]
