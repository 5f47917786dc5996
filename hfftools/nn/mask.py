"""Compute padding masks and the lengths of convolved sequences.

Shapes everywhere in hff: B batch, N samples, M mel bins, T frames, D width of a layer, F width of the fused stream.
"""

import torch
from torch import Tensor


def valid_mask(lens_B: Tensor, max_len: int) -> Tensor:
    """Return a mask [B, max_len] that is True where a frame is valid, from lengths [B]."""
    return torch.arange(max_len, device=lens_B.device)[None, :] < lens_B[:, None]


def conv_out_len(num_B: Tensor, kernel: int, stride: int) -> Tensor:
    """Return the length after an unpadded convolution, floor((n - kernel) / stride) + 1, or 0 where that is negative."""
    return torch.div(num_B - kernel, stride, rounding_mode="floor").add(1).clamp(min=0)
