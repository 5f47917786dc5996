"""Compute scaled dot-product attention over H heads of width d, with optional learned rows before keys and values."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """Reshape [B, T, H·d] to [B, H, T, d]."""
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


class Prefix(nn.Module):
    """Put `length` learned rows before the keys and values of every utterance (Li and Liang, arXiv:2101.00190).

    With `shared`, keys and values have the same rows.
    """

    def __init__(self, length: int, dim: int, shared: bool):
        super().__init__()
        # 0.02 is the usual deviation of a Transformer's embeddings (BERT, wav2vec 2.0), which such rows resemble
        self.k_PD = nn.Parameter(0.02 * torch.randn(length, dim))
        self.v_PD = self.k_PD if shared else nn.Parameter(0.02 * torch.randn(length, dim))

    def forward(self, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, values and mask with the rows before them; every query may attend to the rows."""
        rows = [self.spread(split_heads(r_PD[None], k_BHTd.shape[1]), k_BHTd) for r_PD in (self.k_PD, self.v_PD)]
        free = True if mask.dtype == torch.bool else 0.0  # a boolean mask selects, a float mask is added to the scores
        mask = F.pad(mask, (len(self.k_PD), 0), value=free)
        return torch.cat([rows[0], k_BHTd], 2), torch.cat([rows[1], v_BHTd], 2), mask

    def spread(self, row_1HPd: Tensor, like_BHTd: Tensor) -> Tensor:
        """Return the rows [B, H, P, d], the same for each of the B utterances of `like_BHTd`."""
        return row_1HPd.expand(like_BHTd.shape[0], -1, -1, -1).to(like_BHTd.dtype)


def attend(
    q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor, prefix: Prefix | None, dropout: float = 0.0
) -> Tensor:
    """Return softmax(QKᵀ / √d + mask) V as [B, T, H·d] (Vaswani et al., arXiv:1706.03762, equation 1).

    `mask` is broadcast to [B, H, T, T]. A boolean mask is False where a key may not be attended to; a mask of floats is
    added to the scores, which is how relative positions enter.
    """
    if prefix is not None:
        k_BHTd, v_BHTd, mask = prefix(k_BHTd, v_BHTd, mask)
    if mask.is_floating_point():  # torch refuses a mask of another type than the queries, which autocast may change
        mask = mask.to(q_BHTd.dtype)
    y_BHTd = F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=mask, dropout_p=dropout)
    return y_BHTd.transpose(1, 2).flatten(-2)
