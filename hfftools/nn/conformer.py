"""Build Conformer blocks (Gulati et al., arXiv:2005.08100), which map x [B, T, D] to the same shape.

Padding never changes a valid frame: attention masks padded keys, and the depthwise convolution reads zeros there.
LayerNorm replaces the paper's BatchNorm, whose running statistics suit neither small batches nor frozen encoders.
There is no positional encoding: as in torchaudio's Conformer, the convolutions tell the positions apart.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hfftools.nn.attention import Prefix, attend, split_heads

MOST_LAYERS = 1000  # layers too many fill the memory one by one, until the system kills the process


class FeedForward(nn.Module):
    """Apply a pre-norm feed-forward of width `expansion * dim`; the block adds half of its output."""

    def __init__(self, dim: int, expansion: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, expansion * dim)
        self.down = nn.Linear(expansion * dim, dim)
        # at the end only: on the wide middle, drawing its random numbers cost a CPU a quarter of the step
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.dropout(self.down(F.silu(self.up(self.norm(x_BTD)))))


class SelfAttention(nn.Module):
    """Apply pre-norm multi-head self-attention; `valid_BT` is True where a key may be attended to."""

    TAKES_PREFIX = True  # see upstream/graft.py

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.prefix: Prefix | None = None  # set by tune/prefix.py
        self.norm = nn.LayerNorm(dim)
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        y_BTD = self.norm(x_BTD)
        q_BHTd, k_BHTd, v_BHTd = (split_heads(p(y_BTD), self.heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        y_BTD = attend(q_BHTd, k_BHTd, v_BHTd, valid_BT[:, None, None, :], self.prefix)
        return self.dropout(self.out_proj(y_BTD))


class ConvModule(nn.Module):
    """Apply pointwise GLU, depthwise convolution over time, LayerNorm, SiLU and a pointwise layer."""

    def __init__(self, dim: int, kernel: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.pointwise_in = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm_mid = nn.LayerNorm(dim)
        self.pointwise_out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        y_BTD = F.glu(self.pointwise_in(self.norm(x_BTD)), dim=-1)
        y_BTD = y_BTD.masked_fill(~valid_BT[:, :, None], 0.0)  # what the convolution reads past the end of an utterance
        y_BTD = self.depthwise(y_BTD.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.pointwise_out(F.silu(self.norm_mid(y_BTD))))


class ConformerBlock(nn.Module):
    """Apply half a feed-forward, self-attention, convolution, half a feed-forward and a LayerNorm (equation 1)."""

    PLACES = {  # where a part can be inserted: see upstream/graft.py
        "q": "attention.q_proj",
        "k": "attention.k_proj",
        "v": "attention.v_proj",
        "out": "attention.out_proj",
        "attention": "attention",
        "feed_forward": "feed_forward_out",
        "up": "feed_forward_out.up",
        "down": "feed_forward_out.down",
        "up_in": "feed_forward_in.up",
        "down_in": "feed_forward_in.down",
    }

    def __init__(self, dim: int, heads: int, expansion: int = 4, kernel: int = 15, dropout: float = 0.1):
        super().__init__()
        self.feed_forward_in = FeedForward(dim, expansion, dropout)
        self.attention = SelfAttention(dim, heads, dropout)
        self.conv = ConvModule(dim, kernel, dropout)
        self.feed_forward_out = FeedForward(dim, expansion, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        x_BTD = x_BTD + 0.5 * self.feed_forward_in(x_BTD)
        x_BTD = x_BTD + self.attention(x_BTD, valid_BT)
        x_BTD = x_BTD + self.conv(x_BTD, valid_BT)
        x_BTD = x_BTD + 0.5 * self.feed_forward_out(x_BTD)
        return self.norm(x_BTD)
