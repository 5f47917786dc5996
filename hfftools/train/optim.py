"""Build one AdamW, with a learning rate and a schedule for each part of a model."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from hfftools.config import above, at_least, between, one_of
from hfftools.log import UserError, log, require
from hfftools.model import Model

SCHEDULES = ("constant", "linear", "cosine", "tri_stage")


@dataclass(frozen=True)
class Group:
    """Set the peak learning rate of one part, and its shape over the steps."""

    lr: float = 1e-3  # peak learning rate
    schedule: str = "cosine"  # constant, linear, cosine, or tri_stage
    warmup: float = 0.1  # share of the steps that rise linearly
    hold: float = 0.4  # tri_stage: share of the steps at the peak, before an exponential decay to 5 %
    freeze_steps: int = (
        0  # optim.upstream alone: steps for which the whole upstream is held frozen; its schedule follows
    )

    def __post_init__(self):
        above(self, 0, "lr")
        one_of(self, SCHEDULES, "schedule")
        at_least(self, 0, "freeze_steps")
        between(self, 0, 1, "warmup", "hold")  # shares of the steps


@dataclass(frozen=True)
class Config:
    """Learning rates of the upstream's own parameters, of what is grafted or fused, and of the head."""

    upstream: Group = field(default_factory=lambda: Group(lr=5e-5))  # the upstream's own parameters
    fuse: Group = field(default_factory=Group)  # what is inserted into the upstream, and the fusion
    head: Group = field(default_factory=Group)  # the task's parameters
    weight_decay: float = 0.01  # of AdamW
    clip: float = 5.0  # largest norm of the gradient

    def __post_init__(self):
        for name in ("fuse", "head"):
            require(getattr(self, name).freeze_steps == 0, f"optim.{name}.freeze_steps: only the upstream can be held")
        above(self, 0, "clip")
        at_least(self, 0, "weight_decay")


def _decay(group: Group, rest: float) -> float:
    """Return the share of the peak learning rate, `rest` (0 to 1) of the way from the warm-up's end to the last step."""
    if group.schedule == "linear":
        return 1.0 - rest
    if group.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * rest))
    if group.schedule == "tri_stage":
        hold = group.hold / max(1e-9, 1.0 - group.warmup)
        return 1.0 if rest < hold else 0.05 ** ((rest - hold) / max(1e-9, 1.0 - hold))
    return 1.0


def shape(group: Group, steps: int) -> Callable[[int], float]:
    """Return a function from the step number to the share of the peak learning rate.

    It begins once the steps for which the group is frozen are over.
    """
    frozen = group.freeze_steps
    steps = max(1, steps - frozen)
    warmup = max(1, round(group.warmup * steps))

    def share(step: int) -> float:
        step -= frozen
        rest = min(1.0, max(0, step - warmup) / max(1, steps - warmup))
        return 0.0 if step < 0 else min(1.0, (step + 1) / warmup) * _decay(group, rest)

    return share


def build(model: Model, config: Config, steps: int) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Return the optimiser and its schedule for a run of `steps` steps; raise UserError where nothing trains."""
    parts = model.parts()
    chosen = {
        "upstream": (config.upstream, parts["upstream"]),
        "fuse": (config.fuse, parts["inserted"] + parts["fuse"]),
        "head": (config.head, parts["head"]),
    }
    frozen = config.upstream.freeze_steps
    if parts["upstream"] + parts["inserted"] and frozen >= steps:
        log.warning(
            f"optim.upstream.freeze_steps={frozen}, of {steps} steps in all: nothing in the upstream will train"
        )
    groups: list[dict] = []
    shapes: list[Callable[[int], float]] = []
    for name, (group, named) in chosen.items():
        if named:
            groups.append({"name": name, "params": [parameter for _, parameter in named], "lr": group.lr})
            shapes.append(shape(group, steps))
    if not groups:
        raise UserError("nothing is trainable: choose another tune, fuse or head")
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, shapes)
