"""Convolution over the layer axis (HConv; Shih and Harwath, arXiv:2406.12209): {layer: h [B, T, D]} in, x [B, T, D] out.

Each frame by itself: its L states as [D, L], then floor(log_3 L) times Conv1d over the layers (kernel 5, stride 3, padding
2) and ReLU. The last has ceil(D / layers left) channels, so that laid side by side they are D wide, or are projected to it.
One or two layers leave no block: they are laid side by side and projected. It is not the identity at initialisation.

Over the layers of two upstreams (after Shih and Harwath, arXiv:2511.08389, whose text was not available to us; our
reconstruction) the layer axis has those of the first, then those of the second. Layers that are not as wide as the first
are projected to its width, by a Linear each.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.nn.widths import first_width

KERNEL, STRIDE, PADDING = 5, 3, 2


@dataclass(frozen=True)
class Config:
    name: str = "hconv"
    layers: Any = "all"  # all, last, blocks, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first


class Fuse(nn.Module):
    """4.42 M parameters for 13 layers of 768."""

    any_width = True  # layers of another width than the first's are projected to it

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.out_dim = list(dims), first_width(dims)[0]
        others = {str(layer): nn.Linear(dim, self.out_dim) for layer, dim in dims.items() if dim != self.out_dim}
        self.enter = nn.ModuleDict(others)
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
        states = [hidden[n] if str(n) not in self.enter else self.enter[str(n)](hidden[n]) for n in self.layers]
        h_BTDL = torch.stack(states, -1)
        x_BTF = self.blocks(h_BTDL.flatten(0, 1)).reshape(h_BTDL.shape[0], h_BTDL.shape[1], -1)
        return x_BTF if self.project is None else self.project(x_BTF)
