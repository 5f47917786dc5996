"""Ladder side network (Sung et al., arXiv:2206.06522): {layer: h [B, T, D]} -> x [B, T, F].

A narrow stream passes from the lowest tapped layer to the highest, and back-propagates through no frozen upstream:

    s_0 = down_0(LayerNorm(h_0))                                          Linear(D -> r), r = F / reduction
    s_l = rung_l(gate_l s_(l-1) + (1 - gate_l) down_l(LayerNorm(h_l)))    gate = sigmoid(trained scalar), initially 0.5
    rung(s) = s + Linear(GELU(Linear(LayerNorm(s))))                      both r -> r
    x   = h_last + Linear(r -> F)(s_last)                                 this Linear is initialised to zero

From the paper: the gates, the reduction by 8, no gradient through the backbone. Our reconstruction: the paper's side
network is a Transformer pruned from the backbone, with a rung at every block; ours are small adapters that see one frame
at a time, and the end of the ladder is added to the last tapped layer, which is thus the initial output. Widths may
differ; F is that of the last layer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import at_least


@dataclass(frozen=True)
class Config:
    name: str = "ladder"
    layers: Any = "all"  # all, blocks, last, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first
    reduction: int = 8  # how many times the side stream is narrower than the last tapped layer

    def __post_init__(self):
        at_least(self, 1, "reduction")


class Rung(nn.Module):
    """A small residual adapter: s [B, T, r] -> [B, T, r]."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down, self.up = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, s_BTr: Tensor) -> Tensor:
        return s_BTr + self.up(nn.functional.gelu(self.down(self.norm(s_BTr))))


class Fuse(nn.Module):
    """The side stream over the tapped layers, lowest first, added to the last of them."""

    any_width = True  # each layer is projected by itself

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.out_dim = list(dims), dims[max(dims)]
        width = max(1, self.out_dim // config.reduction)
        self.enter = nn.ModuleList(nn.Sequential(nn.LayerNorm(d), nn.Linear(d, width)) for d in dims.values())
        self.rungs = nn.ModuleList(Rung(width) for _ in self.layers[1:])
        # with one layer there is no gate, and an empty parameter would be trained without a gradient
        self.gates_R = nn.Parameter(torch.zeros(len(self.rungs))) if self.rungs else None
        self.up = nn.Linear(width, self.out_dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        first, *others = [enter(hidden[layer]) for enter, layer in zip(self.enter, self.layers, strict=True)]
        s_BTr = first
        for number, (rung, other_BTr) in enumerate(zip(self.rungs, others, strict=True)):
            assert self.gates_R is not None
            gate = self.gates_R[number].sigmoid()
            s_BTr = rung(gate * s_BTr + (1 - gate) * other_BTr)
        return hidden[self.layers[-1]] + self.up(s_BTr)
