"""Convolution over the layer axis (HConv; Shih and Harwath, arXiv:2406.12209): {layer: h [B, T, D]} in, x [B, T, D] out.

Each frame by itself: its L states as [D, L], then floor(log_3 L) times Conv1d over the layers (kernel 5, stride 3, padding
2) and ReLU. The last has ceil(D / layers left) channels, so that laid side by side they are D wide, or are projected to it.
One or two layers leave no block: they are laid side by side and projected. It is not the identity at initialisation.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KERNEL, STRIDE, PADDING = 5, 3, 2


@dataclass(frozen=True)
class Config:
    name: str = "hconv"
    layers: Any = "all"  # all, last, blocks, or a list of layer numbers


class Fuse(nn.Module):
    """4.42 M parameters for 13 layers of 768."""

    any_width = False  # its convolutions run over the layers, which need one width

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.out_dim = list(dims), next(iter(dims.values()))
        left = len(dims)
        lefts: list[int] = []  # layers left after each block
        while STRIDE ** (len(lefts) + 1) <= len(dims):
            left = (left + 2 * PADDING - KERNEL) // STRIDE + 1
            lefts.append(left)
        channels = -(-self.out_dim // left) if lefts else self.out_dim
        widths = [self.out_dim] * len(lefts) + [channels]
        blocks = []
        for enter, leave in zip(widths[:-1], widths[1:], strict=True):
            blocks += [nn.Conv1d(enter, leave, KERNEL, STRIDE, PADDING), nn.ReLU()]
        self.blocks = nn.Sequential(*blocks)
        fits = lefts and channels * left == self.out_dim
        self.project = None if fits else nn.Linear(channels * left, self.out_dim)

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        h_BTDL = torch.stack([hidden[layer] for layer in self.layers], -1)
        x_BTF = self.blocks(h_BTDL.flatten(0, 1)).flatten(1).unflatten(0, h_BTDL.shape[:2])
        return x_BTF if self.project is None else self.project(x_BTF)
