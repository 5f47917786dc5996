"""A learned softmax-weighted sum of layers (SUPERB, arXiv:2105.01051): {layer: h [B, T, D]} in, x [B, T, D] out."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hfftools.nn.layer_sum import LayerSum


@dataclass(frozen=True)
class Config:
    name: str = "weighted_sum"
    layers: Any = "all"  # all, last, blocks, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first


class Fuse(nn.Module):
    """Sum the layers with one trainable scalar each; the plain mean at initialisation."""

    any_width = False  # a sum needs one width

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.out_dim = next(iter(dims.values()))
        self.sum = LayerSum(list(dims))

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        return self.sum(hidden)

    def layer_weights(self) -> dict[int, float]:
        """Return the share of each layer, for the plots; they add up to 1."""
        return self.sum.layer_weights()
