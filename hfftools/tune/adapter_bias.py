"""AdapterBias (Fu et al., arXiv:2205.00305): add a learned shift to each feed-forward output.

y + v alpha(x), with a trained vector v and a linear map alpha to one number for each frame. Two forms:
- `output`: alpha reads the feed-forward's output, as in the paper; v starts at zero, so that nothing changes at first;
- `intermediate`: alpha reads the wide layer inside the feed-forward, and v starts at ones, as in the code released with
  Chen et al., arXiv:2210.06175. A LayerNorm removes a shift that is the same for all channels, so this form changes
  nothing at first in families whose norms come after the sublayers, and does where the norms come first.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import one_of
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "adapter_bias"
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    form: str = "output"  # output, or intermediate

    def __post_init__(self):
        one_of(self, ("output", "intermediate"), "form")


class Shift(nn.Module):
    """Compute v alpha(x), added to x itself where `residual`."""

    def __init__(self, in_dim: int, dim: int, residual: bool):
        super().__init__()
        self.v_D = nn.Parameter(torch.zeros(dim) if residual else torch.ones(dim))
        self.alpha, self.residual = nn.Linear(in_dim, 1), residual

    def forward(self, x_BTD: Tensor) -> Tensor:
        shift_BTD = self.v_D * self.alpha(x_BTD)
        return x_BTD + shift_BTD if self.residual else shift_BTD


def places(config: Config) -> list[str]:
    return ["feed_forward" if config.form == "output" else "down"]


def apply(upstream: Upstream, config: Config) -> None:
    """Set a shift into the feed-forward of each chosen block."""
    for block in graft.choose_blocks(upstream, config.layers):
        dim = graft.width(block)
        if config.form == "output":
            graft.after(block, "feed_forward", Shift(dim, dim, residual=True))
        else:
            graft.beside(block, "down", Shift(graft.at(block, "down").in_features, dim, residual=False))
