"""A softmax-weighted sum over layers: {layer: h [B, T, D]} in, x [B, T, D] out."""

import torch
from torch import Tensor, nn


class LayerSum(nn.Module):
    """sum over l of softmax(w)_l h_l, with w zero at birth, which makes it the mean."""

    def __init__(self, layers: list[int], normalize: bool = False):
        super().__init__()
        self.layers, self.normalize = list(layers), normalize
        self.logits_L = nn.Parameter(torch.zeros(len(layers)))

    def forward(self, hidden: dict[int, Tensor]) -> Tensor:
        weights_L = self.logits_L.softmax(0)
        total = None
        for weight, layer in zip(weights_L, self.layers, strict=True):
            h_BTD = hidden[layer]
            if self.normalize:
                h_BTD = nn.functional.layer_norm(h_BTD, h_BTD.shape[-1:])
            total = weight * h_BTD if total is None else total + weight * h_BTD
        return total

    def layer_weights(self) -> dict[int, float]:
        return dict(zip(self.layers, self.logits_L.detach().softmax(0).tolist(), strict=True))
