"""Add adapters in parallel to the front end's convolutions (CHAPTER, arXiv:2212.01282).

Each convolution becomes conv(x) + 0.01 adapter(x); the adapter has the convolution's kernel and stride, so that lengths stay
as they are, GELU, and a second convolution of kernel 1 initialised to zero. Its narrow width is our reconstruction. The
paper has Houlsby adapters in the Transformer as well: `block_width`, in the form of Chen et al., arXiv:2210.06175.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hfftools.config import at_least
from hfftools.log import UserError
from hfftools.nn.adapter import Bottleneck
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream


@dataclass(frozen=True)
class Config:
    name: str = "conv_adapter"
    width: int = 32  # channels between the adapter's two convolutions
    scale: float = 0.01  # factor on the adapter's output
    layers: Any = "all"  # blocks that get Houlsby adapters: all, all_but_top, topN, or a list of numbers from 1
    block_width: int = 32  # bottleneck width of the Houlsby adapters in the blocks; 0: none

    def __post_init__(self):
        at_least(self, 1, "width")
        at_least(self, 0, "block_width")


class ConvAdapter(nn.Module):
    """Compute scale * up(GELU(down(x))) over x [B, C, T], or [B, C, T, M] where the convolution goes over the bins too."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d, width: int, scale: float):
        super().__init__()
        self.down = type(conv)(conv.in_channels, width, conv.kernel_size, conv.stride, conv.padding)  # type: ignore
        self.up, self.scale = type(conv)(width, conv.out_channels, 1), scale
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(nn.functional.gelu(self.down(x)))


def places(config: Config) -> list[str]:
    return [graft.ANY, *(["feed_forward"] if config.block_width else [])]


def apply(upstream: Upstream, config: Config) -> None:
    """Add an adapter in parallel to each front-end convolution, and adapters to the chosen blocks."""
    for owner, name in upstream.convolutions():
        conv = getattr(owner, name)
        if type(conv) not in (nn.Conv1d, nn.Conv2d):
            raise UserError(f"tune 'conv_adapter': {type(conv).__name__} is no convolution that it knows")
        setattr(owner, name, graft.Beside(conv, ConvAdapter(conv, config.width, config.scale)))
    if config.block_width:
        for block in graft.choose_blocks(upstream, config.layers):
            graft.after(block, "feed_forward", Bottleneck(graft.width(block), config.block_width))
