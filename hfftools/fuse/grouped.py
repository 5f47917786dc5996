"""Grouped weighted sum: {layer: h [B, T, D]} in, x [B, T, D] out.

Neighbouring layers form `groups` groups (low, middle, high), each with its own softmax-weighted sum; the sums are laid side
by side and projected to D. Initialised to the mean of all layers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import at_least
from hfftools.log import require
from hfftools.nn.layer_sum import add_logits, weighted_sum


@dataclass(frozen=True)
class Config:
    name: str = "grouped"
    layers: Any = "all"  # all, last, blocks, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first
    groups: int = 3  # of neighbouring layers, as even as can be

    def __post_init__(self):
        at_least(self, 1, "groups")


class Fuse(nn.Module):
    """One scalar a layer, and one Linear from groups * D to D."""

    any_width = False  # each group is a sum, which needs one width
    logits_L: Tensor

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.out_dim = list(dims), next(iter(dims.values()))
        count, groups = len(dims), config.groups
        require(groups <= count, f"fuse.groups: {groups} groups cannot be made of {count} layers")
        self.sizes = [count // groups + (number < count % groups) for number in range(groups)]
        add_logits(self, count, trained=groups < count)
        self.project = nn.Linear(groups * self.out_dim, self.out_dim)
        with torch.no_grad():
            self.project.weight.copy_(torch.cat([torch.eye(self.out_dim) * size / count for size in self.sizes], 1))
        nn.init.zeros_(self.project.bias)

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        sums, start = [], 0
        for logits_G in self.logits_L.split(self.sizes):
            states = [hidden[layer] for layer in self.layers[start : start + len(logits_G)]]
            sums.append(weighted_sum(states, logits_G.softmax(0)))
            start += len(states)
        return self.project(torch.cat(sums, -1))

    def layer_weights(self) -> dict[int, float]:
        """A layer's share in its group, times the group's share of the layers; they add up to 1. Not the projection's."""
        parts = self.logits_L.detach().split(self.sizes)
        weights_L = torch.cat([logits_G.softmax(0) * len(logits_G) / len(self.layers) for logits_G in parts])
        return dict(zip(self.layers, weights_L.tolist(), strict=True))
