"""Learning rates: each group its own, each schedule its shape."""

from types import SimpleNamespace

import pytest
import torch

from hfftools.log import UserError
from hfftools.model import Model
from hfftools.text import units
from hfftools.train import optim
from hfftools.train.experiment import configure


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "tri_stage"])
def test_schedules_warm_up_and_end_where_they_should(schedule):
    shape = optim.shape(optim.Group(schedule=schedule, warmup=0.1, hold=0.4), 100)
    values = [shape(step) for step in range(101)]
    assert values[0] == pytest.approx(0.1) and max(values) == pytest.approx(1.0)
    assert all(a <= b for a, b in zip(values[:10], values[1:10], strict=False))
    assert values[100] == pytest.approx(
        {"constant": 1.0, "linear": 0.0, "cosine": 0.0, "tri_stage": 0.05}[schedule], abs=1e-6
    )
    if schedule == "tri_stage":
        assert values[11:49] == [pytest.approx(1.0)] * 38 and values[60] < 1


def test_groups_have_their_own_rates(options):
    config = configure([], [*options, "optim.fuse.lr=0.5", "optim.head.lr=0.25", "optim.fuse.schedule=constant"])
    model = Model(config, units.load(config.data.units))
    optimizer, _ = optim.build(model, config.optim, 100)
    rates = {group["name"]: group["initial_lr"] for group in optimizer.param_groups}
    assert rates == {"fuse": 0.5, "head": 0.25}
    held = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert held == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="'step' is not one of"):
        optim.Group(schedule="step")


def test_inserted_parts_train_at_the_rate_of_the_fusion():
    weights = {name: torch.nn.Parameter(torch.ones(2)) for name in ("upstream", "inserted", "fuse", "head")}
    model = SimpleNamespace(parts=lambda: {name: [(name, weight)] for name, weight in weights.items()})
    groups = {name: optim.Group(lr=lr) for name, lr in (("upstream", 0.1), ("fuse", 0.2), ("head", 0.3))}
    optimizer, _ = optim.build(model, optim.Config(**groups), 100)
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(weight)] for weight in weights.values()] == [0.1, 0.2, 0.2, 0.3]
