"""The loss of `pull.py`: its value by hand, its best value, the direction of its gradient."""

import pytest
import torch
from pull import pull_loss


def test_pull_loss_is_the_weighted_mean_distance_from_one():
    scores_B = torch.tensor([1.0, 0.5, -0.3], dtype=torch.float64)
    assert pull_loss(scores_B, 2.0).item() == pytest.approx(2.0 * (0.0 + 0.5 + 1.3) / 3)


def test_pull_loss_is_zero_where_every_score_is_one():
    assert pull_loss(torch.ones(4, dtype=torch.float64), 3.0).item() == 0


def test_a_step_along_the_gradient_raises_every_score():
    scores_B = torch.tensor([0.2, -0.9], dtype=torch.float64, requires_grad=True)
    pull_loss(scores_B, 1.0).backward()
    assert (scores_B.grad < 0).all()
