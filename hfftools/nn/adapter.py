"""Adapt the output y [B, T, D] of a sublayer by a bottleneck: y + A(y) (Houlsby et al., arXiv:1902.00751)."""

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """Return y + up(GELU(down(y))), or y + LayerNorm(up(GELU(down(y)))); the identity at initialisation.

    `dim` is the width D of y, `width` that of the bottleneck.
    """

    def __init__(self, dim: int, width: int, norm: bool = False):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim) if norm else None
        # The last factor starts at zero, so that y passes unchanged. With a norm this is the norm's gain: a norm would
        # rescale the output of a small or zero W_up to unit variance, and the adapter would not start as the identity.
        last = self.up if self.norm is None else self.norm
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, y_BTD: Tensor) -> Tensor:
        a_BTD = self.up(nn.functional.gelu(self.down(y_BTD)))
        return y_BTD + (a_BTD if self.norm is None else self.norm(a_BTD))
