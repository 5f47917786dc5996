"""Make one optimisation step, the same for training, its measurement, probing heads, the aligner and pre-training."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from hfftools import dist


class NotFinite(ArithmeticError):
    """Report a loss or a gradient norm that is not finite; the message is a clause that says which."""


class Step(NamedTuple):
    """Hold what the history records of one step."""

    loss_sum: float  # of the losses of this process, before the division by `count`
    grad_norm: float  # of all parameters together, over all processes, before clipping


class Updater:
    """Apply the mean gradient of batches to the parameters of an optimiser, and advance its schedule."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        max_norm: float,
        see: Callable[[], None] = lambda: None,
    ):
        self.optimizer, self.schedule, self.max_norm = optimizer, schedule, max_norm
        self.see = see  # called in each step while the gradients of all processes are there

    def step(self, losses: Iterable[Tensor], count: int = 1) -> Step:
        """Make one update by the gradient of sum(losses) / count, and return the sum of the losses and that norm.

        losses: a scalar for each batch that fell to this process. Taken one by one, each before the forward pass of the
            next, where they come from a generator: so the activations of one batch alone are in memory. The generator
            runs its forward passes under autocast where it wants bfloat16; the backward pass is outside, as torch asks.
        count: what the losses of all processes are divided by: the utterances of the step where each loss is a sum over
            utterances, 1 where it is a mean already.

        Raises NotFinite, with parameters, optimiser and schedule as they were before.
        """
        loss_sum = 0.0
        for loss in losses:
            value = loss.item()
            if not math.isfinite(value):
                self.optimizer.zero_grad(set_to_none=True)
                raise NotFinite(f"the loss is {value}")
            (loss / count).backward()
            loss_sum += value
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        # before clipping: the bound holds for the whole step's gradient, whatever the number of processes
        dist.add_gradients(parameters)
        self.see()
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm).item()
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise NotFinite(f"the norm of the gradient is {norm}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return Step(loss_sum, norm)
