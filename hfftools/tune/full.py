"""Fine-tune the upstream's own weights: all blocks or the top ones.

What trains: every parameter of the chosen blocks; with `input`, also all between the convolutional front end and the first
block, and norms around the blocks (feature projection, positional convolution); with `front_end`, the convolutions too.
The mask embedding never trains. The share of wav2vec 2.0 base: 95.6 % with all blocks and input, 65.5 % with the top
eight and input, 60.1 % with these blocks alone (Thomas et al., arXiv:2202.03218).
"""

from dataclasses import dataclass
from typing import Any

from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "full"
    layers: Any = "all"  # blocks: all, all_but_top, topN, or a list of numbers from 1
    input: bool = True  # feature projection, positional convolution, norms around the blocks
    front_end: bool = False  # the convolutions over the waveform or log-mel


def places(config: Config) -> list[str]:
    return [graft.ANY]


def apply(upstream: Upstream, config: Config) -> None:
    """Make the chosen parameters trainable."""
    upstream.requires_grad_(config.input)
    upstream.blocks().requires_grad_(False)
    for block in graft.choose_blocks(upstream, config.layers):
        block.requires_grad_(True)
    for name, parameter in upstream.named_parameters():
        if name.rpartition(".")[2] == "mask_D":
            parameter.requires_grad_(False)
    for module in upstream.front_end():
        module.requires_grad_(config.front_end)
