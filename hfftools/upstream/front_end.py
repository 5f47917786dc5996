"""Compute features [B, T, D] from waveforms [B, N] with the convolutional front end of wav2vec 2.0 and its kin.

C is the number of channels of a convolution; lengths come from the convolutions themselves.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfftools.nn.mask import conv_out_len, valid_mask


class ConvLayer(nn.Module):
    """Unpadded convolution, no norm, layer norm over channels or group norm over time, activation.

    `before` is an activation between convolution and norm, where there is one.
    """

    def __init__(self, conv: nn.Conv1d, norm: nn.Module | None, activation: nn.Module, before: nn.Module | None = None):
        super().__init__()
        self.conv, self.norm, self.activation, self.before = conv, norm, activation, before or nn.Identity()
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]

    def out_lens(self, lens_B: Tensor) -> Tensor:
        return conv_out_len(lens_B, self.kernel, self.stride)

    def forward(self, x_BCT: Tensor, lens_B: Tensor) -> Tensor:
        """Return the output [B, C', T']; `lens_B` counts its valid steps."""
        x_BCT = self.before(self.conv(x_BCT))
        if isinstance(self.norm, nn.GroupNorm):  # statistics over time, so over the valid steps of each; one has none
            steps = x_BCT.shape[2]
            rows = [self.norm(row[None, :, : max(n, 2)]) for row, n in zip(x_BCT, lens_B.tolist())]
            x_BCT = torch.cat([F.pad(row, (0, steps - row.shape[2])) for row in rows])
        elif self.norm is not None:
            x_BCT = self.norm(x_BCT.transpose(1, 2)).transpose(1, 2)
        return self.activation(x_BCT)


class FrontEnd(nn.Module):
    """Waveforms [B, N] -> convolutions, layer norm, projection [B, T, D].

    `wav_eps`: None, or the model wants waveforms of zero mean and unit variance, and this is added to the variance.
    """

    def __init__(
        self,
        layers: Sequence[ConvLayer],
        norm: nn.Module | None,
        project: nn.Module | None,
        dropout: nn.Module,
        wav_eps: float | None,
    ):
        super().__init__()
        self.layers: Sequence[ConvLayer] = nn.ModuleList(layers)  # type: ignore[assignment]  # a list of only these
        self.norm, self.project, self.dropout = norm or nn.Identity(), project or nn.Identity(), dropout
        self.wav_eps = wav_eps
        self.stride_samples, self.field_samples = 1, 1  # the field: samples that one frame sees
        for layer in layers:
            self.field_samples += (layer.kernel - 1) * self.stride_samples
            self.stride_samples *= layer.stride

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        for layer in self.layers:
            num_samples_B = layer.out_lens(num_samples_B)
        return num_samples_B

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        """Return each convolution as (owner, name in it)."""
        return [(layer, "conv") for layer in self.layers]

    def forward(self, wav_BN: Tensor, num_samples_B: Tensor) -> Tensor:
        if self.wav_eps is not None:
            wav_BN = _normalise(wav_BN, num_samples_B, self.wav_eps)
        x_BCT = F.pad(wav_BN, (0, max(0, self.field_samples - wav_BN.shape[1])))[:, None]
        lens_B = num_samples_B
        for layer in self.layers:
            lens_B = layer.out_lens(lens_B)
            x_BCT = layer(x_BCT, lens_B)
        return self.dropout(self.project(self.norm(x_BCT.transpose(1, 2))))


def _normalise(wav_BN: Tensor, num_samples_B: Tensor, eps: float) -> Tensor:
    """Return waveforms of zero mean and unit variance over the valid samples of each waveform; zero beyond them."""
    valid_BN = valid_mask(num_samples_B, wav_BN.shape[1])
    num_B1 = num_samples_B.clamp(min=1)[:, None]
    mean_B1 = wav_BN.masked_fill(~valid_BN, 0.0).sum(1, keepdim=True) / num_B1
    centred_BN = (wav_BN - mean_B1).masked_fill(~valid_BN, 0.0)
    return centred_BN / (centred_BN.square().sum(1, keepdim=True) / num_B1 + eps).sqrt()
