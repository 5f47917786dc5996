"""BitFit (Ben Zaken et al., arXiv:2106.10199): train the biases of the upstream only.

Every parameter named `bias`, as in Chen et al., arXiv:2210.06175. Those of the keys shift all scores of a query alike, which
the softmax cancels: they count as trained, and never move.
"""

from dataclasses import dataclass
from typing import Any

from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "bitfit"
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    outside: bool = True  # the biases outside the blocks too: front end, projection, norms


def places(config: Config) -> list[str]:
    return [graft.ANY]


def apply(upstream: Upstream, config: Config) -> None:
    """Make the chosen biases trainable."""
    blocks = {id(p) for p in upstream.blocks().parameters()}
    chosen = {id(p) for block in graft.choose_blocks(upstream, config.layers) for p in block.parameters()}
    for name, parameter in upstream.named_parameters():
        if name.rpartition(".")[2] == "bias":
            parameter.requires_grad_(id(parameter) in chosen or config.outside and id(parameter) not in blocks)
