"""A weighted sum whose weights follow from the states: {layer: h [B, T, D]} in, x [B, T, D] out.

    x_t = sum over l of softmax_l(a_l + w_l · LayerNorm(h_lt)) h_lt         a and w start at zero: the mean of the layers

Input-dependent layer weights after VARAN (Diatlova et al., arXiv:2508.12061) and arXiv:2601.22480, whose text was not
available to us. This is our reconstruction: VARAN weighs a head for each layer, by attention across the layers' means over
time, and ties the weights to a prior; ours weighs the states of each frame by themselves, so that padding changes nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.nn.layer_sum import normed


@dataclass(frozen=True)
class Config:
    name: str = "dynamic_sum"
    layers: Any = "all"  # all, blocks, last, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first


class Fuse(nn.Module):
    """D + 1 parameters for each layer; of one layer alone the share is always 1, and nothing trains."""

    any_width = False  # a sum needs layers of one width

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.out_dim = list(dims), next(iter(dims.values()))
        count = len(dims)
        self.a_L = nn.Parameter(torch.zeros(count), requires_grad=count > 1)
        self.w_LD = nn.Parameter(torch.zeros(count, self.out_dim), requires_grad=count > 1)

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        states = [hidden[layer] for layer in self.layers]
        scores = [a + normed(h_BTD) @ w_D for h_BTD, a, w_D in zip(states, self.a_L, self.w_LD, strict=True)]
        shares = torch.stack(scores, -1).softmax(-1).unbind(-1)
        total = shares[0][..., None] * states[0]
        for share_BT, h_BTD in zip(shares[1:], states[1:], strict=True):
            total = total + share_BT[..., None] * h_BTD
        return total
