"""Replace the few parts of an upstream that an ONNX graph cannot hold by others that give the same output.

What a trace of the real parts would lose: the STFT's complex numbers, statistics over the valid steps of one row at a
time, slices and windows as wide as there are frames, the number of rows. These forms cost more where there is no graph,
so only an export takes them. F is the number of frequencies, R of their real and imaginary parts, G of groups of c channels.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from hfftools.nn.attention import Prefix
from hfftools.nn.mask import valid_mask
from hfftools.upstream.front_end import ConvLayer
from hfftools.upstream.registry import modules_with
from hfftools.upstream.transformer import DistanceBias
from hfftools.upstream.w2v_conformer import RelativeAttention


class DftMel(nn.Module):
    """Mel energies by one convolution with windowed cosines and sines: [B, N] -> [B, M, T], as torchaudio's by its STFT."""

    basis_R1N: Tensor
    bank_FM: Tensor

    def __init__(self, theirs: Any):
        super().__init__()
        spectrogram, size = theirs.spectrogram, theirs.n_fft
        angles = torch.outer(torch.arange(size // 2 + 1).double(), torch.arange(size).double()) * (2 * math.pi / size)
        basis = torch.cat([angles.cos(), -angles.sin()]) * spectrogram.window.double()
        self.register_buffer("basis_R1N", basis.float()[:, None])
        self.register_buffer("bank_FM", theirs.mel_scale.fb)
        self.hop_samples = spectrogram.hop_length

    def forward(self, wav_BN: Tensor) -> Tensor:
        real_BFT, imaginary_BFT = F.conv1d(wav_BN[:, None], self.basis_R1N, stride=self.hop_samples).chunk(2, 1)
        power_BTF = (real_BFT.square() + imaginary_BFT.square()).transpose(1, 2)
        return (power_BTF @ self.bank_FM).transpose(1, 2)


class GroupedLayer(ConvLayer):
    """A layer whose group norm takes its statistics over the valid steps of each row, by a mask instead of row by row."""

    def forward(self, x_BCT: Tensor, lens_B: Tensor) -> Tensor:
        if not isinstance(self.norm, nn.GroupNorm):
            return super().forward(x_BCT, lens_B)
        x_BCT, norm = self.before(self.conv(x_BCT)), self.norm
        steps_B = lens_B.clamp(min=2)
        valid_B11T = valid_mask(steps_B, x_BCT.shape[2])[:, None, None]
        x_BGcT = x_BCT.unflatten(1, (norm.num_groups, -1))
        count_B111 = (steps_B * (norm.num_channels // norm.num_groups))[:, None, None, None]
        mean_BG11 = x_BGcT.masked_fill(~valid_B11T, 0.0).sum((2, 3), keepdim=True) / count_B111
        centred_BGcT = (x_BGcT - mean_BG11).masked_fill(~valid_B11T, 0.0)
        var_BG11 = centred_BGcT.square().sum((2, 3), keepdim=True) / count_B111
        x_BCT = (centred_BGcT / (var_BG11 + norm.eps).sqrt()).flatten(1, 2)
        x_BCT = x_BCT * norm.weight[:, None] + norm.bias[:, None]
        return self.activation(x_BCT.masked_fill(~valid_B11T[:, 0], 0.0))


class IndexedBias(DistanceBias):
    """The bias by a table of the distance of each key from each query, instead of a window that slides over distances."""

    def forward(self, frames: int) -> Tensor:
        at_T = torch.arange(frames, device=self.embedding.weight.device)
        return self.embedding(self.bucket(at_T[None] - at_T[:, None])).permute(2, 0, 1)


class IndexedAttention(RelativeAttention):
    """Scores by distance looked up for each pair of query and key, instead of read from a longer row."""

    def by_key(self, scores_BHTK: Tensor, x_BTD: Tensor) -> Tensor:
        at_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)  # a trace takes the sizes of the scores for constants
        column_TT = at_T[None] - at_T[:, None] + (x_BTD.shape[1] - 1)
        every_BH11 = torch.zeros_like(x_BTD[:, None, :1, :1], dtype=torch.long).expand(-1, self.heads, -1, -1)
        return scores_BHTK.gather(-1, column_TT + every_BH11)


class AddedPrefix(Prefix):
    """Rows made as many as the utterances by adding nothing to them, since a trace takes the number for a constant."""

    def spread(self, row_1HPd: Tensor, like_BHTd: Tensor) -> Tensor:
        return row_1HPd + 0.0 * like_BHTd[:, :, :1, :1]


# class: the subclass that its instances become. A module of this folder that brings other parts may have a table of its own.
STAND_INS: dict[type[nn.Module], type[nn.Module]] = {
    ConvLayer: GroupedLayer,
    DistanceBias: IndexedBias,
    RelativeAttention: IndexedAttention,
    Prefix: AddedPrefix,
}


def simplify(upstream: nn.Module) -> None:
    """Replace those parts in place: the tensors stay the same ones, and the output is the same but for rounding."""
    stand_ins: dict[type[nn.Module], type[nn.Module]] = {}
    for room in modules_with("STAND_INS"):
        stand_ins |= room.STAND_INS
    for module in list(upstream.modules()):
        for name, child in list(module.named_children()):
            if type(child) is MelSpectrogram:
                setattr(module, name, DftMel(child))
        if type(module) in stand_ins:
            module.__class__ = stand_ins[type(module)]  # in place, since others hold the module itself
