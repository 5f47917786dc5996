"""LoRA (Hu et al., arXiv:2106.09685): add a trainable low-rank change to linear layers.

y = W x + b + (alpha / rank) B A x, with B initialised to zero. Our attention calls its projections as modules, so that a
module in parallel to them takes effect. Where attention reads the weights of the projections instead, such a LoRA would
change nothing and get no gradient (see upstream/transformer.py).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import above, at_least, share_below_one
from hfftools.log import require
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "lora"
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    projections: list[str] = field(default_factory=lambda: ["q", "k"])  # of q, k, v, out, up, down
    rank: int = 8
    alpha: float = 8.0  # the change is scaled by alpha / rank
    dropout: float = 0.0  # on what enters A

    def __post_init__(self):
        at_least(self, 1, "rank")
        above(self, 0, "alpha")
        share_below_one(self, "dropout")
        require(len(self.projections) > 0, "tune.projections: names no layer; such as [q,v]")


class LowRank(nn.Module):
    """Compute (alpha / rank) B A x."""

    def __init__(self, base: nn.Linear, config: Config):
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, config.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale, self.dropout = config.alpha / config.rank, nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.scale * nn.functional.linear(nn.functional.linear(self.dropout(x_BTD), self.a), self.b)

    def delta(self) -> Tensor:
        """Return the change [out, in] of the weight of the linear layer to which this is added."""
        return (self.scale * self.b @ self.a).detach()


def places(config: Config) -> list[str]:
    return list(config.projections)


def apply(upstream: Upstream, config: Config) -> None:
    """Add a low-rank change to each chosen linear layer of each chosen block; each place once."""
    for block in graft.choose_blocks(upstream, config.layers):
        for place in dict.fromkeys(config.projections):
            base = graft.at(block, place)
            require(isinstance(base, nn.Linear), f"tune.projections: '{place}' is no linear layer; such as [q,v]")
            graft.beside(block, place, LowRank(base, config))
