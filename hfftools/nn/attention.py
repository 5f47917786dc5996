"""Scaled dot-product attention over heads: queries, keys and values [B, H, T, d] and a mask in, [B, T, H·d] out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """[B, T, H·d] -> [B, H, T, d]."""
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


class Prefix(nn.Module):
    """`length` learned rows before the keys and the values of every utterance (Li and Liang, arXiv:2101.00190)."""

    def __init__(self, length: int, dim: int, shared: bool):
        super().__init__()
        self.k_PD = nn.Parameter(0.02 * torch.randn(length, dim))
        self.v_PD = self.k_PD if shared else nn.Parameter(0.02 * torch.randn(length, dim))

    def forward(self, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask with the rows before them; the rows are open to every query, without a position."""
        rows = [self.spread(split_heads(r_PD[None], k_BHTd.shape[1]), k_BHTd) for r_PD in (self.k_PD, self.v_PD)]
        free = True if mask.dtype == torch.bool else 0.0
        mask = F.pad(mask, (len(self.k_PD), 0), value=free)
        return torch.cat([rows[0], k_BHTd], 2), torch.cat([rows[1], v_BHTd], 2), mask

    def spread(self, row_1HPd: Tensor, like_BHTd: Tensor) -> Tensor:
        """The same rows for each utterance, [B, H, P, d]."""
        return row_1HPd.expand(like_BHTd.shape[0], -1, -1, -1).to(like_BHTd.dtype)


def attend(
    q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor, prefix: Prefix | None, dropout: float = 0.0
) -> Tensor:
    """`mask`, broadcast to [B, H, T, T], is False where a key may not be attended to, or is added to the scores."""
    if prefix is not None:
        k_BHTd, v_BHTd, mask = prefix(k_BHTd, v_BHTd, mask)
    if mask.is_floating_point():
        mask = mask.to(q_BHTd.dtype)
    y_BHTd = F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=mask, dropout_p=dropout)
    return y_BHTd.transpose(1, 2).flatten(-2)
