"""Hierarchical feature fusion (Huo et al., arXiv:2211.02712): {layer: h [B, T, D]} in, x [B, T, F] out.

The published body's sizes were not available to us: the tree below is our reconstruction. Level 0 gives each layer a
narrow node, every further level joins `group` neighbouring nodes into one, until one is left:

    node_l = Linear(D -> d)(LayerNorm(h_l))
    node   = LayerNorm(GELU(join(neighbours)))
    x      = weighted_sum(h) + Linear(d -> F)(node)        residual form; the Linear is initialised to zero
    x      = Linear(d -> F)(node)                          bare form

Where the layers' widths differ, as those of two fused upstreams may, each node projects from its own layer's width, and
the weighted sum runs over the layers that have the width of the first: HFF then starts as that of the first upstream.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import at_least, one_of
from hfftools.log import UserError, require
from hfftools.nn.layer_sum import LayerSum
from hfftools.nn.mask import valid_mask
from hfftools.nn.widths import first_width


@dataclass(frozen=True)
class Config:
    name: str = "hff"
    layers: Any = "all"  # all, last, blocks, or a list of layer numbers
    normalize: bool = False  # scale each frame of each layer to zero mean and unit variance first
    group: int = 2  # neighbours joined by a node
    width: int = 0  # d, the width of a node; 0: a quarter of the first layer's
    out_dim: int = 0  # F; 0: the first layer's width, which the residual form needs
    join: str = "concat"  # concat (then Linear), add, or weighted (softmax)
    time_kernel: int = 0  # odd number of frames of a depthwise convolution in each node; 0: none
    residual: bool = True  # add the weighted sum of the layers, which is the initial output

    def __post_init__(self):
        one_of(self, ("concat", "add", "weighted"), "join")
        at_least(self, 2, "group")
        at_least(self, 0, "width", "out_dim")
        require(
            self.time_kernel == 0 or self.time_kernel % 2 == 1 and self.time_kernel > 0, "fuse.time_kernel: odd, or 0"
        )


class Join(nn.Module):
    """`count` neighbouring nodes [B, T, d] -> one."""

    def __init__(self, count: int, width: int, config: Config):
        super().__init__()
        self.how = config.join
        if self.how == "concat":
            self.mix = nn.Linear(count * width, width)
        elif self.how == "weighted":
            self.logits_G = nn.Parameter(torch.zeros(count))
        kernel = config.time_kernel
        self.time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width) if kernel else None
        self.norm = nn.LayerNorm(width)

    def forward(self, nodes: list[Tensor], valid_BT1: Tensor) -> Tensor:
        if self.how == "concat":
            x_BTd = self.mix(torch.cat(nodes, -1))
        elif self.how == "weighted":
            x_BTd = sum(w * node for w, node in zip(self.logits_G.softmax(0), nodes, strict=True))
        else:
            x_BTd = sum(nodes)
        if self.time is not None:
            x_BTd = x_BTd.masked_fill(~valid_BT1, 0.0)
            x_BTd = x_BTd + self.time(x_BTd.transpose(1, 2)).transpose(1, 2)
        return self.norm(nn.functional.gelu(x_BTd))


class Fuse(nn.Module):
    """The tree over the tapped layers; a short last group is allowed."""

    any_width = True  # each layer is projected by itself

    def __init__(self, dims: dict[int, int], config: Config):
        super().__init__()
        self.layers, self.group = list(dims), config.group
        dim, alike = first_width(dims)
        self.out_dim = config.out_dim or dim
        if config.residual and self.out_dim != dim:
            raise UserError(f"fuse.out_dim: the residual form needs the first layer's width {dim}, not {self.out_dim}")
        width = config.width or dim // 4
        self.enter = nn.ModuleList(nn.Sequential(nn.LayerNorm(d), nn.Linear(d, width)) for d in dims.values())
        self.levels = nn.ModuleList()
        count = len(dims)
        while count > 1:
            sizes = [min(self.group, count - start) for start in range(0, count, self.group)]
            self.levels.append(nn.ModuleList(Join(size, width, config) for size in sizes))
            count = len(sizes)
        self.out = nn.Linear(width, self.out_dim)
        self.sum = LayerSum(alike) if config.residual else None
        if config.residual:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, hidden: dict[int, Tensor], lens_B: Tensor) -> Tensor:
        nodes = [enter(hidden[layer]) for enter, layer in zip(self.enter, self.layers, strict=True)]
        valid_BT1 = valid_mask(lens_B, nodes[0].shape[1])[:, :, None]
        for joins in self.levels:
            assert isinstance(joins, nn.ModuleList)
            groups = [nodes[start : start + self.group] for start in range(0, len(nodes), self.group)]
            nodes = [join(group, valid_BT1) for join, group in zip(joins, groups, strict=True)]
        x_BTF = self.out(nodes[0])
        return x_BTF if self.sum is None else self.sum(hidden) + x_BTF

    def layer_weights(self) -> dict[int, float]:
        """Return the share of each layer in the residual's weighted sum; empty in the bare form."""
        return {} if self.sum is None else self.sum.layer_weights()
