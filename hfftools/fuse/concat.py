"""Concatenate the layers and project them: {layer: h [B, T, D]} -> x [B, T, F].

The projection is initialised to the mean of the layers of width F (by default the width of the first layer). Where the
widths differ, as those of two fused upstreams may, the other layers start with weight zero; without any layer of width F
the weights start at random.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import at_least
from hfftools.nn.widths import first_width


@dataclass(frozen=True)
class Config:
    name: str = "concat"
    layers: Any = "all"  # all, blocks, last, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first
    out_dim: int = 0  # F; 0: the first layer's width

    def __post_init__(self):
        at_least(self, 0, "out_dim")


class Fuse(nn.Module):
    """One Linear from the sum of the widths to F."""

    any_width = True  # one Linear spans all widths

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.out_dim = list(dims), config.out_dim or first_width(dims)[0]
        self.project = nn.Linear(sum(dims.values()), self.out_dim)
        alike = [layer for layer, dim in dims.items() if dim == self.out_dim]
        if alike:
            parts = [torch.eye(self.out_dim, dim) / len(alike) * (layer in alike) for layer, dim in dims.items()]
            with torch.no_grad():
                self.project.weight.copy_(torch.cat(parts, 1))
            nn.init.zeros_(self.project.bias)

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        return self.project(torch.cat([hidden[layer] for layer in self.layers], -1))
