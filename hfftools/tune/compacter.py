"""Compacter (Mahabadi et al., arXiv:2106.04647): insert low-rank hypercomplex adapters into the blocks.

A layer's weight is a sum of n Kronecker products, W = sum_i A_i (x) (s_i t_i): A_i [n, n] are shared by all adapters,
s_i [in/n, r] and t_i [r, out/n] are the layer's own. Adapters stand after attention and feed-forward; after the feed-forward
alone it is the paper's Compacter++. The width is our choice.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import at_least
from hfftools.log import UserError, require
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "compacter"
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    width: int = 24  # of the bottleneck
    products: int = 4  # n, the number of Kronecker products; must divide this width and the upstream's
    rank: int = 1  # r, the rank of each s_i t_i
    places: list[str] = field(
        default_factory=lambda: ["attention", "feed_forward"]
    )  # sublayers after which adapters are inserted: attention, feed_forward
    train_norms: bool = True  # the LayerNorms of all blocks train too

    def __post_init__(self):
        known = ("attention", "feed_forward")
        at_least(self, 1, "width", "products", "rank")
        require(
            self.width % self.products == 0, f"tune.width: {self.width} is no multiple of tune.products {self.products}"
        )
        require(
            0 < len(self.places) and set(self.places) <= {*known},
            f"tune.places: {self.places} is not of {', '.join(known)}",
        )


class Hypercomplex(nn.Module):
    """Compute x W + b with W [in, out] = sum_i A_i (x) (s_i t_i)."""

    def __init__(self, rule_nnn: nn.Parameter, in_dim: int, out_dim: int, rank: int, zero: bool):
        super().__init__()
        n = len(rule_nnn)
        self.rule_nnn = rule_nnn
        self.s = nn.Parameter(torch.empty(n, in_dim // n, rank))
        self.t = nn.Parameter(torch.empty(n, rank, out_dim // n))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        nn.init.xavier_uniform_(self.s)
        nn.init.zeros_(self.t) if zero else nn.init.xavier_uniform_(self.t)

    def forward(self, x_BTD: Tensor) -> Tensor:
        w = torch.einsum("nab,ncr,nrd->acbd", self.rule_nnn, self.s, self.t)
        return nn.functional.linear(x_BTD, w.flatten(2).flatten(0, 1).T, self.bias)


class Compact(nn.Module):
    """Return y + up(GELU(down(y))): the identity at initialisation, since `up` starts at zero."""

    def __init__(self, rule_nnn: nn.Parameter, dim: int, config: Config):
        super().__init__()
        self.down = Hypercomplex(rule_nnn, dim, config.width, config.rank, zero=False)
        self.up = Hypercomplex(rule_nnn, config.width, dim, config.rank, zero=True)

    def forward(self, y_BTD: Tensor) -> Tensor:
        return y_BTD + self.up(nn.functional.gelu(self.down(y_BTD)))


def places(config: Config) -> list[str]:
    return list(config.places)


def apply(upstream: Upstream, config: Config) -> None:
    """Set an adapter after each place of each chosen block; all share one rule A."""
    n = config.products
    rule_nnn = nn.Parameter(torch.randn(n, n, n) / n**0.5)
    if config.train_norms:
        for block in upstream.blocks():
            graft.train_norms(block)
    for block in graft.choose_blocks(upstream, config.layers):
        dim = graft.width(block)
        if dim % n:
            raise UserError(f"tune.products: {n} does not divide {dim}, the width of {upstream.name}")
        for place in config.places:
            graft.after(block, place, Compact(rule_nnn, dim, config))
