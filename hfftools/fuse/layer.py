"""Return one layer unchanged: {layer: h [B, T, D]} in, x [B, T, D] out. The last layer is the usual baseline."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hfftools.log import UserError


@dataclass(frozen=True)
class Config:
    name: str = "layer"
    layers: Any = "last"  # last, or a list with one layer number
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first


class Fuse(nn.Module):
    """Return the one selected layer unchanged."""

    any_width = True  # there is one layer

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        if len(dims) != 1:
            raise UserError(f"fuse.layers: 'layer' takes one layer, not {list(dims)}")
        ((self.layer, self.out_dim),) = dims.items()

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        return hidden[self.layer]
