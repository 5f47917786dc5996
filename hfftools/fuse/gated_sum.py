"""A sum of layers that each pass a sigmoid gate of their own: {layer: h [B, T, D]} in, x [B, T, D] out.

    x_t = 2 / L · sum over l of sigmoid(a_l + w_l · LayerNorm(h_lt)) h_lt

With a and w of zero, the initial values, this is the mean of the L layers.

Gates do not compete, as the shares of a softmax do: all layers may pass, or none. After the gating of layers in Tran et al.,
arXiv:2509.03409, whose text was not available to us; as it is summarised, states projected to a narrow width are multiplied
by the sigmoid of another projection of theirs. Ours is a reconstruction with one number for each layer and frame, without
the projections.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.nn.layer_sum import normed


@dataclass(frozen=True)
class Config:
    name: str = "gated_sum"
    layers: Any = "all"  # all, blocks, last, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first


class Fuse(nn.Module):
    """D + 1 parameters for each layer."""

    any_width = False  # a sum needs layers of one width

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.out_dim = list(dims), next(iter(dims.values()))
        self.a_L = nn.Parameter(torch.zeros(len(dims)))
        self.w_LD = nn.Parameter(torch.zeros(len(dims), self.out_dim))

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        total = torch.zeros_like(hidden[self.layers[0]])
        for layer, a, w_D in zip(self.layers, self.a_L, self.w_LD, strict=True):
            gate_BT = (a + normed(hidden[layer]) @ w_D).sigmoid()
            total = total + gate_BT[..., None] * hidden[layer]
        return 2 / len(self.layers) * total
