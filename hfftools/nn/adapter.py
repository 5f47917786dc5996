"""Bottleneck adapters (Houlsby et al., arXiv:1902.00751): a sublayer's output y [B, T, D] in, y + A(y) out."""

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """y + up(GELU(down(y))), or y + LayerNorm(up(GELU(down(y)))); the identity at initialisation.

    The last factor starts at zero: W_up, or the gain of the LayerNorm, which would undo a small W_up by rescaling it.
    """

    def __init__(self, dim: int, width: int, norm: bool = False):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim) if norm else None
        last = self.up if self.norm is None else self.norm
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, y_BTD: Tensor) -> Tensor:
        a_BTD = self.up(nn.functional.gelu(self.down(y_BTD)))
        return y_BTD + (a_BTD if self.norm is None else self.norm(a_BTD))
