"""The objectives of RPG: by hand, gradients of known sign, one order of candidates."""

from __future__ import annotations

import math

import pytest
import torch

from rag_experiments.algorithms.rpg import rpg_loss, target_values
from tests.tiny_readers import tiny_llama, tiny_t5  # noqa: F401 - fixtures

# One question, three candidates, an answer of one token: log-probabilities given each candidate.
LIKELY, MIDDLING, UNLIKELY = -1.0, -2.0, -4.0
ONE_TOKEN = torch.tensor([[[LIKELY], [MIDDLING], [UNLIKELY]]], dtype=torch.float64)
# Leave-one-out: without the first candidate the answer is unlikely, without the last it stays likely.
WITHOUT = ONE_TOKEN.flip(1)
OBJECTIVES = ["replug", "pdist", "loop", "emdr2"]


def loss_of(objective: str, scores_BK: torch.Tensor, log_probs_BKT: torch.Tensor, **settings) -> torch.Tensor:
    settings = {"retriever_temperature": 1.0, "target_temperature": 1.0, **settings}
    mask_BT = torch.ones(log_probs_BKT.shape[0], log_probs_BKT.shape[2], dtype=torch.bool)
    return rpg_loss(scores_BK, log_probs_BKT, mask_BT, objective, **settings)


def gradient(objective: str, scores: list[float], log_probs_BKT: torch.Tensor, **settings) -> torch.Tensor:
    scores_BK = torch.tensor([scores], dtype=torch.float64, requires_grad=True)
    loss_of(objective, scores_BK, log_probs_BKT, **settings).backward()
    return scores_BK.grad[0]


@pytest.mark.parametrize(
    ("objective", "log_probs", "signs"),
    [
        # KL(P‖Q): P_k (log P_k/Q_k − KL). The middling passage is better than the average log Q, so it rises too.
        ("replug", ONE_TOKEN, [-1, -1, 1]),
        # KL(Q‖P): P_k − Q_k, Q = 0.705, 0.259, 0.035: only the first is above a third.
        ("pdist", ONE_TOKEN, [-1, 1, 1]),
        # Q from what is lost without each: 4, 2, 1.
        ("loop", WITHOUT, [-1, 1, 1]),
        # P_k − p_k P_k / Σ: the posterior, here Q.
        ("emdr2", ONE_TOKEN, [-1, 1, 1]),
    ],
)
def test_the_gradient_of_each_passage_has_the_sign_worked_out_by_hand(objective, log_probs, signs):
    """Negative: descent raises this passage's score."""
    found = gradient(objective, [0.0, 0.0, 0.0], log_probs)
    assert torch.sign(found).tolist() == signs
    assert found.sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_scores_and_log_probs_stand_in_one_order(objective):
    """The passage that helps is the last one here: it, and no other, is raised the most."""
    log_probs = (WITHOUT if objective == "loop" else ONE_TOKEN).flip(1)
    found = gradient(objective, [0.3, 0.1, -0.2], log_probs)
    assert found.argmin().item() == 2
    assert found[2] < 0 < found[0]


def test_losses_by_hand():
    scores = torch.tensor([[0.4, 0.1, -0.3]], dtype=torch.float64)
    p = [math.exp(s / 0.5) for s in (0.4, 0.1, -0.3)]
    p = [value / sum(p) for value in p]
    q = [math.exp(v / 2.0) for v in (LIKELY, MIDDLING, UNLIKELY)]
    q = [value / sum(q) for value in q]
    at = {"retriever_temperature": 0.5, "target_temperature": 2.0}
    by_hand = {
        "replug": sum(pk * math.log(pk / qk) for pk, qk in zip(p, q, strict=True)),
        "pdist": sum(qk * math.log(qk / pk) for pk, qk in zip(p, q, strict=True)),
        "emdr2": -math.log(sum(pk * math.exp(v) for pk, v in zip(p, (LIKELY, MIDDLING, UNLIKELY), strict=True))),
    }
    for objective, expected in by_hand.items():
        assert loss_of(objective, scores, ONE_TOKEN, **at).item() == pytest.approx(expected, abs=1e-12), objective
    q = [math.exp(v / 2.0) for v in (4, 2, 1)]
    q = [value / sum(q) for value in q]
    expected = sum(qk * math.log(qk / pk) for pk, qk in zip(p, q, strict=True))
    assert loss_of("loop", scores, WITHOUT, **at).item() == pytest.approx(expected, abs=1e-12)


def test_targets_of_an_answer_of_two_tokens_and_padding():
    log_probs_BKT = torch.tensor([[[-1.0, -3.0, 0.0], [-2.0, -2.5, 0.0]]])
    mask_BT = torch.tensor([[True, True, False]])
    assert target_values(log_probs_BKT, mask_BT, "mean").tolist() == [[-2.0, -2.25]]
    assert target_values(log_probs_BKT, mask_BT, "sum").tolist() == [[-4.0, -4.5]]
    torch.testing.assert_close(target_values(log_probs_BKT, mask_BT, "probability"), torch.tensor([[-4.0, -4.5]]).exp())


def test_emdr2_is_the_mean_over_a_questions_own_tokens():
    """Two candidates equally near. Two tokens: −[log ½(e⁻¹ + e⁻²) + log ½(e⁻³ + e⁻²·⁵)] / 2; one: −log ½(e⁻¹ + e⁻⁵)."""
    log_probs_BKT = torch.tensor([[[-1.0, -3.0], [-2.0, -2.5]], [[-1.0, 0.0], [-5.0, 0.0]]], dtype=torch.float64)
    mask_BT = torch.tensor([[True, True], [True, False]])
    scores = torch.zeros(2, 2, dtype=torch.float64)
    two = -(math.log((math.exp(-1) + math.exp(-2)) / 2) + math.log((math.exp(-3) + math.exp(-2.5)) / 2)) / 2
    one = -math.log((math.exp(-1) + math.exp(-5)) / 2)
    both = rpg_loss(scores, log_probs_BKT, mask_BT, "emdr2", retriever_temperature=1.0)
    first = rpg_loss(scores[:1], log_probs_BKT[:1], mask_BT[:1], "emdr2", retriever_temperature=1.0)
    assert first.item() == pytest.approx(two, abs=1e-12)
    assert both.item() == pytest.approx((two + one) / 2, abs=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_order_of_candidates_does_not_matter(objective):
    torch.manual_seed(0)
    scores, log_probs = torch.randn(4, 6, dtype=torch.float64), -torch.rand(4, 6, 5, dtype=torch.float64) * 5
    shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = loss_of(objective, scores, log_probs)
    assert loss_of(objective, scores[:, shuffled], log_probs[:, shuffled]).item() == pytest.approx(
        loss.item(), abs=1e-12
    )
    # One of the two shuffled alone is another loss: the test can fail.
    assert abs(loss_of(objective, scores[:, shuffled], log_probs).item() - loss.item()) > 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_empty_place_counts_for_nothing(objective):
    log_probs = WITHOUT if objective == "loop" else ONE_TOKEN
    padded = torch.cat([log_probs, torch.zeros(1, 1, 1, dtype=torch.float64)], dim=1)
    scores = torch.tensor([[0.4, 0.1, -0.3, 0.9]], dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, True, True, False]])
    loss = loss_of(objective, scores, padded, present_BK=present)
    loss.backward()
    assert loss.item() == pytest.approx(loss_of(objective, scores[:, :3], log_probs).item(), abs=1e-9)
    assert scores.grad[0, 3].item() == 0
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_question_without_any_candidate_counts_for_nothing(objective):
    scores = torch.tensor([[0.4, 0.1, -0.3], [0.2, 0.1, 0.3]], dtype=torch.float64, requires_grad=True)
    found = WITHOUT if objective == "loop" else ONE_TOKEN
    log_probs = torch.cat([found, torch.zeros_like(found)])
    present = torch.tensor([[True] * 3, [False] * 3])
    mask = torch.tensor([[True] * found.shape[2], [False] * found.shape[2]])
    loss = rpg_loss(scores, log_probs, mask, objective, present_BK=present)
    loss.backward()
    alone = rpg_loss(scores[:1], found, mask[:1], objective)
    assert loss.item() == pytest.approx(alone.item() / 2, abs=1e-9)
    assert scores.grad[1].tolist() == [0, 0, 0]


def test_no_gradient_reaches_the_target():
    log_probs = ONE_TOKEN.clone().requires_grad_()
    loss_of("replug", torch.zeros(1, 3, dtype=torch.float64, requires_grad=True), log_probs).backward()
    assert log_probs.grad is None
