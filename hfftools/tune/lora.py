"""LoRA (Hu et al., arXiv:2106.09685), DoRA and PiSSA: a trainable low-rank change of the weights of linear layers.

With s = alpha / rank, W frozen, and an output y = W' x + b:

    lora    W' = W + s B A                                         B starts at zero
    dora    W' = g (W + s B A), g = m / |W + s B A|                Liu et al., arXiv:2402.09353
    pissa   W' = W - s B0 A0 + s B A, B = B0, A = A0 at first      Meng et al., arXiv:2404.02948

In DoRA the trained m [out] starts as |W|, the norm of the weights of each output, as in the authors' code; gradients take
the norm in the denominator for a constant (section 4.3). In PiSSA s B0 A0 is the part of W with the `rank` largest singular
values, shared evenly by both factors. B0 and A0 are buffers, saved with what is trained: W itself stays as it is, and
another machine, whose singular vectors may differ, loads the same model.

Our attention calls its projections as modules, so that what is grafted there takes effect. Where attention reads the weights
of the projections instead, it would change nothing and get no gradient (see upstream/transformer.py).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfftools.config import above, at_least, one_of, share_below_one
from hfftools.log import require
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "lora"
    variant: str = (
        "lora"  # lora, dora (trains the weights' norms too), or pissa (starts from the largest singular values)
    )
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    projections: list[str] = field(default_factory=lambda: ["q", "k"])  # of q, k, v, out, up, down
    rank: int = 8
    alpha: float = 8.0  # the change is scaled by alpha / rank
    dropout: float = 0.0  # on what enters A

    def __post_init__(self):
        one_of(self, VARIANTS, "variant")
        at_least(self, 1, "rank")
        above(self, 0, "alpha")
        share_below_one(self, "dropout")
        require(len(self.projections) > 0, "tune.projections: names no layer; such as [q,v]")


class LowRank(nn.Module):
    """Add s B A x to what a linear layer puts out."""

    def __init__(self, base: nn.Linear, config: Config):
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, config.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale, self.dropout = config.alpha / config.rank, nn.Dropout(config.dropout)

    def change(self, x_BTD: Tensor) -> Tensor:
        return self.scale * F.linear(F.linear(self.dropout(x_BTD), self.a), self.b)

    def forward(self, x_BTD: Tensor, base: nn.Linear) -> Tensor:
        return base(x_BTD) + self.change(x_BTD)

    def merged(self, weight: Tensor) -> Tensor:
        """Return W' [out, in] for the weight W of the linear layer."""
        return weight + self.scale * self.b @ self.a


class MagnitudeDirection(LowRank):
    """DoRA: train the norm of each output's weights, and by B A their direction."""

    def __init__(self, base: nn.Linear, config: Config):
        super().__init__(base, config)
        self.m = nn.Parameter(base.weight.detach().norm(dim=1))

    def gain(self, weight: Tensor) -> Tensor:
        return self.m / super().merged(weight).norm(dim=1).detach()

    def forward(self, x_BTD: Tensor, base: nn.Linear) -> Tensor:
        y_BTD = self.gain(base.weight) * (F.linear(x_BTD, base.weight) + self.change(x_BTD))
        return y_BTD if base.bias is None else y_BTD + base.bias

    def merged(self, weight: Tensor) -> Tensor:
        return self.gain(weight)[:, None] * super().merged(weight)


class Principal(LowRank):
    """PiSSA: train the principal part of the weight, which is first taken from it."""

    a0: Tensor
    b0: Tensor

    def __init__(self, base: nn.Linear, config: Config):
        super().__init__(base, config)
        weight = base.weight.detach()
        most = min(weight.shape)
        require(config.rank <= most, f"tune.rank: {config.rank} is above the {most} singular values of a projection")
        u, values, vh = torch.linalg.svd(weight.float(), full_matrices=False)
        root_R = (values[: config.rank] / self.scale).sqrt()
        self.register_buffer("a0", (root_R[:, None] * vh[: config.rank]).to(weight.dtype))
        self.register_buffer("b0", (u[:, : config.rank] * root_R).to(weight.dtype))
        self.a, self.b = nn.Parameter(self.a0.clone()), nn.Parameter(self.b0.clone())

    def change(self, x_BTD: Tensor) -> Tensor:
        start_BTD = self.scale * F.linear(F.linear(x_BTD, self.a0), self.b0)
        return super().change(x_BTD) - start_BTD

    def merged(self, weight: Tensor) -> Tensor:
        return super().merged(weight) - self.scale * self.b0 @ self.a0


VARIANTS = {"lora": LowRank, "dora": MagnitudeDirection, "pissa": Principal}


def places(config: Config) -> list[str]:
    return list(config.projections)


def apply(upstream: Upstream, config: Config) -> None:
    """Put a low-rank change around each chosen linear layer of each chosen block; each place once."""
    for block in graft.choose_blocks(upstream, config.layers):
        for place in dict.fromkeys(config.projections):
            base = graft.at(block, place)
            require(isinstance(base, nn.Linear), f"tune.projections: '{place}' is no linear layer; such as [q,v]")
            graft.around(block, place, VARIANTS[config.variant](base, config))
