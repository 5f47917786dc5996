"""Adapters in the blocks (Houlsby et al., arXiv:1902.00751): insert bottlenecks after sublayers.

Three published forms are one configuration each:
- houlsby.yaml, the first: after attention and feed-forward, W_up(GELU(W_down y)), the blocks' LayerNorms train too;
- houlsby_thomas.yaml (Thomas et al., arXiv:2202.03218): the same places, width 256, a LayerNorm inside;
- houlsby_chen.yaml (Chen et al., arXiv:2210.06175): after the feed-forward alone, width 32, nothing else trains.
"""

from dataclasses import dataclass, field
from typing import Any

from hfftools.config import at_least
from hfftools.log import require
from hfftools.nn.adapter import Bottleneck
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream

SHARE = 8  # the width 0 is the upstream's divided by this


@dataclass(frozen=True)
class Config:
    name: str = "houlsby"
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    width: int = 64  # of the bottleneck; 0: an eighth of the upstream's
    places: list[str] = field(
        default_factory=lambda: ["attention", "feed_forward"]
    )  # sublayers after which adapters are inserted: attention, feed_forward
    inner_norm: bool = False  # a LayerNorm after W_up
    train_norms: bool = True  # the LayerNorms of all blocks train too, adapters in them or not

    def __post_init__(self):
        known = ("attention", "feed_forward")
        at_least(self, 0, "width")
        require(
            0 < len(self.places) and set(self.places) <= {*known},
            f"tune.places: {self.places} is not of {', '.join(known)}",
        )


def places(config: Config) -> list[str]:
    return list(config.places)


def apply(upstream: Upstream, config: Config) -> None:
    """Insert an adapter after each place of each chosen block."""
    if config.train_norms:
        for block in upstream.blocks():
            graft.train_norms(block)
    for block in graft.choose_blocks(upstream, config.layers):
        dim = graft.width(block)
        for place in config.places:
            graft.after(block, place, Bottleneck(dim, config.width or max(1, dim // SHARE), config.inner_norm))
