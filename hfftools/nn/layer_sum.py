"""Sum layers, {layer: h [B, T, D]}, by softmax weights to x [B, T, D] (SUPERB, arXiv:2105.01051)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def weighted_sum(states: Sequence[Tensor], weights_L: Tensor) -> Tensor:
    """Return the sum of the states [B, T, D], each times its weight."""
    # one at a time: torch.stack would hold all layers a second time
    total = weights_L[0] * states[0]
    for weight, h_BTD in zip(weights_L[1:], states[1:], strict=True):
        total = total + weight * h_BTD
    return total


def normed(h_BTD: Tensor) -> Tensor:
    """Return each frame with zero mean and unit variance over D: a LayerNorm without parameters."""
    h_BTD = h_BTD.float() if h_BTD.dtype != torch.float64 else h_BTD  # as torch's own layer norm does under autocast
    centred_BTD = h_BTD - h_BTD.mean(-1, keepdim=True)  # written out, since a trace cannot take D from the shape
    return centred_BTD * (centred_BTD.square().mean(-1, keepdim=True) + 1e-5).rsqrt()


def add_logits(module: nn.Module, count: int, trained: bool) -> None:
    """Give `module` logits_L, zeros [count] for a softmax, as a parameter or, where it has no effect, as a buffer.

    The share of one layer alone is always 1: as a parameter it would count as trained and never get a gradient.
    """
    if trained:
        module.logits_L = nn.Parameter(torch.zeros(count))
    else:
        module.register_buffer("logits_L", torch.zeros(count))


class LayerSum(nn.Module):
    """Return Σ_l softmax(w)_l h_l; w starts at zero, so that x starts as the mean of the layers."""

    logits_L: Tensor

    def __init__(self, layers: list[int]):
        super().__init__()
        self.layers = list(layers)
        add_logits(self, len(layers), trained=len(layers) > 1)

    def forward(self, hidden: dict[int, Tensor]) -> Tensor:
        return weighted_sum([hidden[layer] for layer in self.layers], self.logits_L.softmax(0))

    def layer_weights(self) -> dict[int, float]:
        """Return {layer: its weight}; the weights sum to one."""
        return dict(zip(self.layers, self.logits_L.detach().softmax(0).tolist(), strict=True))
