"""L-adapters (Otake et al., arXiv:2212.02780), one for each layer: {layer: h [B, T, D]} in, x [B, T, F] out.

    x = sum over l of softmax(w)_l LayerNorm(GELU(Linear(D -> F)(h_l)))

The paper's are 512 wide on the 12 blocks of a base model, so layer 0, which `layers: all` has beside, is not among them.
Widths may differ between layers. It is not the identity at initialisation: its stream is narrower than the layers.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hfftools.config import at_least
from hfftools.nn.layer_sum import LayerSum
from hfftools.nn.widths import first_width


@dataclass(frozen=True)
class Config:
    name: str = "l_adapter"
    layers: Any = "all"  # all, last, blocks, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first
    width: int = 512  # F; 0: two thirds of the first layer's, which is 512 of 768

    def __post_init__(self):
        at_least(self, 0, "width")


class Fuse(nn.Module):
    """4.74 M parameters for 12 layers of 768."""

    any_width = True  # each layer is projected by itself

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        width = self.out_dim = config.width or first_width(dims)[0] * 2 // 3
        self.layers = list(dims)
        self.adapters = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.LayerNorm(width)) for dim in dims.values()
        )
        self.sum = LayerSum(self.layers)

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        return self.sum(
            {layer: adapter(hidden[layer]) for layer, adapter in zip(self.layers, self.adapters, strict=True)}
        )

    def layer_weights(self) -> dict[int, float]:
        """Return the share of each layer's adapter; they add up to 1."""
        return self.sum.layer_weights()
