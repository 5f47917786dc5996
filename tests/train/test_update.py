"""The shared optimisation step: a sum of losses over a count, and nothing changed where a number is not finite."""

import pytest
import torch

from hfftools.train.update import NotFinite, Updater


@pytest.fixture
def weight():
    return torch.nn.Parameter(torch.tensor([3.0, -1.0]))


def make_updater(weight, max_norm=100.0):
    optimizer = torch.optim.SGD([weight], lr=0.5)
    return Updater(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1), max_norm)


def test_the_gradient_is_that_of_the_sum_over_the_count(weight):
    updater = make_updater(weight)
    loss_sum, norm = updater.step((weight * factor).sum() for factor in (2.0, 4.0))
    assert (loss_sum, norm) == pytest.approx((12.0, 6 * 2**0.5))
    assert weight.tolist() == [0.0, -4.0], "3 - 0.5 * (2 + 4)"
    assert updater.step([weight.sum() * 6], count=3).grad_norm == pytest.approx(2 * 2**0.5)
    assert weight.tolist() == pytest.approx([-0.1, -4.1]), "the rate fell to 0.05, the gradient is 6 / 3"


def test_the_whole_gradient_is_clipped(weight):
    assert make_updater(weight, 1.0).step([3 * weight[0] + 4 * weight[1]]).grad_norm == pytest.approx(5.0)
    assert weight.tolist() == pytest.approx([3 - 0.5 * 3 / 5, -1 - 0.5 * 4 / 5])


@pytest.mark.parametrize(
    "factors, clause", [((2.0, float("nan")), "the loss is nan"), ((float("inf"),), "the loss is inf")]
)
def test_a_loss_that_is_not_finite_changes_nothing(weight, factors, clause):
    updater = make_updater(weight)
    with pytest.raises(NotFinite, match=clause):
        updater.step(weight[0] * factor for factor in factors)
    assert weight.tolist() == [3.0, -1.0] and weight.grad is None
    assert updater.schedule.last_epoch == 0


def test_a_gradient_that_is_not_finite_changes_nothing(weight):
    updater = make_updater(weight)
    with pytest.raises(NotFinite, match="the norm of the gradient is nan"):
        updater.step([(weight - weight.detach()).abs().sqrt().sum()])  # 0, and its slope is infinity times 0
    assert weight.tolist() == [3.0, -1.0] and weight.grad is None and updater.schedule.last_epoch == 0
