"""Check each learning rate schedule against its formula written out, and that the optimiser follows it."""

import math
from types import SimpleNamespace

import pytest
import torch

from hfftools.train import optim

STEPS, WARMUP, HOLD, FROZEN = 60, 12, 24, 7  # counted in steps; the last is those before the schedule begins


def wanted(schedule: str, step: int) -> float:
    """Return the share of the peak at a step: (n + 1) / warmup to the peak, then the schedule's own decay."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    if schedule == "linear":
        return (STEPS - step) / (STEPS - WARMUP)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2
    if schedule == "tri_stage" and step >= WARMUP + HOLD:
        return math.exp(math.log(0.05) * (step - WARMUP - HOLD) / (STEPS - WARMUP - HOLD))
    return 1.0


def group(schedule: str, frozen: int = 0, lr: float = 0.3) -> optim.Group:
    return optim.Group(
        lr=lr, schedule=schedule, warmup=WARMUP / STEPS, hold=HOLD / STEPS, freeze_steps=frozen
    )  # fmt: skip


@pytest.mark.parametrize("frozen", [0, FROZEN])
@pytest.mark.parametrize("schedule", optim.SCHEDULES)
def test_shape_is_the_formula_at_every_step(schedule, frozen):
    share = optim.shape(group(schedule, frozen), STEPS + frozen)
    assert [share(step) for step in range(frozen)] == [0.0] * frozen
    for step in range(STEPS + 1):
        assert share(frozen + step) == pytest.approx(wanted(schedule, step), abs=1e-9), step


def test_each_group_follows_its_own_schedule_from_its_own_peak():
    """Step an optimiser of three groups and read the learning rates that it used."""
    names, peaks = ("upstream", "fuse", "head"), (0.3, 0.02, 5.0)
    schedules = ("tri_stage", "cosine", "linear")
    weights = {name: torch.nn.Parameter(torch.ones(2)) for name in names}
    model = SimpleNamespace(parts=lambda: {"inserted": [], **{n: [(n, w)] for n, w in weights.items()}})
    groups = {
        name: group(schedule, FROZEN if name == "upstream" else 0, peak)
        for name, schedule, peak in zip(names, schedules, peaks, strict=True)
    }
    # all groups share one count of steps: those without frozen steps span it whole
    optimizer, schedule = optim.build(model, optim.Config(**groups), STEPS + FROZEN)
    used = {name: [] for name in names}
    for _ in range(STEPS + FROZEN):
        for part in optimizer.param_groups:
            used[part["name"]].append(part["lr"])
        sum(weight.sum() for weight in weights.values()).backward()
        optimizer.step()
        schedule.step()
    late = [0.0] * FROZEN + [0.3 * wanted("tri_stage", step) for step in range(STEPS)]
    assert used["upstream"] == pytest.approx(late, abs=1e-9)
    total, warmup = STEPS + FROZEN, round((STEPS + FROZEN) * WARMUP / STEPS)
    left = [(total - max(step, warmup)) / (total - warmup) for step in range(total)]
    rise = [min(1.0, (step + 1) / warmup) for step in range(total)]
    assert used["head"] == pytest.approx([5.0 * up * down for up, down in zip(rise, left, strict=True)])
    turn = [0.5 - 0.5 * math.cos(math.pi * share) for share in left]
    assert used["fuse"] == pytest.approx([0.02 * up * down for up, down in zip(rise, turn, strict=True)])
