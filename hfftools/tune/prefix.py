"""Prefix tuning (Li and Liang, arXiv:2101.00190): prepend learned rows to keys and values.

The rows stand before the projected keys and values, open to every frame and without a position; relative position biases
are zero there. As the softmax shares its weight with them, a prefix is never the identity at initialisation. Chen et al.,
arXiv:2210.06175, give 0.10 M for HuBERT base with 10 rows, which neither form has: separate rows for keys and values, built
here by default, have 184,320, rows shared by both 92,160.
"""

from dataclasses import dataclass
from typing import Any

from hfftools.config import at_least
from hfftools.nn.attention import Prefix
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "prefix"
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    length: int = 10  # number of learned rows
    shared: bool = False  # one set of rows for keys and values

    def __post_init__(self):
        at_least(self, 1, "length")


def places(config: Config) -> list[str]:
    return ["attention"]


def apply(upstream: Upstream, config: Config) -> None:
    """Put rows before the keys and values of each chosen block."""
    for block in graft.choose_blocks(upstream, config.layers):
        graft.prefix(block, Prefix(config.length, graft.at(block, "k").out_features, config.shared))
