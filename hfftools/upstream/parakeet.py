"""Run the encoder of Parakeet, a Fast Conformer (Rekesh et al., arXiv:2305.05084), as transformers builds it.

A family of `hf:FOLDER`. Its input is log-mel every 10 ms, which three convolutions over time and bins reduce to a frame
every 80 ms. C is the number of their channels; recognisers with a CTC head or a transducer have the same encoder inside.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from hfftools.log import require
from hfftools.nn.mask import conv_out_len, valid_mask
from hfftools.nn.rate import RATE_HZ
from hfftools.upstream.transformer import Position, TransformerUpstream
from hfftools.upstream.w2v_bert import centre
from hfftools.upstream.w2v_conformer import ConvModule, MacaronBlock, RelativeAttention

# model_type in config.json: class in transformers, which takes the encoder out of a recogniser
MODELS = dict.fromkeys(("parakeet_encoder", "parakeet_ctc", "parakeet_tdt"), "ParakeetEncoder")
WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512
PREEMPHASIS = 0.97
GUARD = 2**-24  # added to the energy of a bin before its logarithm
EXTRACTOR = {"win_length": WINDOW_SAMPLES, "hop_length": HOP_SAMPLES, "n_fft": FFT_SAMPLES, "preemphasis": PREEMPHASIS}


class FrontEnd(nn.Module):
    """Compute log-mel, then convolutions and a projection: waveforms [B, N] -> [B, T, D]."""

    field_samples = 0  # frame t lies around the sample at t strides, where the middle of what it sees is

    def __init__(self, theirs: Any, num_mels: int, scale: float):
        super().__init__()
        self.layers, self.project, self.scale, self.num_mels = theirs.layers, theirs.linear, scale, num_mels
        self.strided: dict[int, tuple[int, int, int]] = {}  # number of a layer: its kernel, stride and padding in time
        self.stride_samples = HOP_SAMPLES
        for number, layer in enumerate(self.layers):
            if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1:
                self.strided[number] = (layer.kernel_size[0], layer.stride[0], int(layer.padding[0]))
                self.stride_samples *= layer.stride[0]
        self.mel = torchaudio.transforms.MelSpectrogram(
            RATE_HZ,
            FFT_SAMPLES,
            hop_length=HOP_SAMPLES,
            n_mels=num_mels,
            window_fn=_window,
            center=False,
        )
        self.mel.mel_scale.fb = _bank(num_mels).float()

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        return [(self.layers, str(number)) for number in self.strided]

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        lens_B = num_samples_B // HOP_SAMPLES
        for number in self.strided:
            lens_B = self._reduced(lens_B, number)
        return lens_B

    def _reduced(self, lens_B: Tensor, number: int) -> Tensor:
        kernel, stride, padding = self.strided[number]
        return conv_out_len(lens_B + 2 * padding, kernel, stride)

    def forward(self, wav_BN: Tensor, num_samples_B: Tensor) -> Tensor:
        lens_B = num_samples_B // HOP_SAMPLES
        x_BCTM = self.log_mel(wav_BN, num_samples_B)[:, None]
        for number, layer in enumerate(self.layers):
            if number in self.strided:  # beyond the end it has to see zeros, as it would without padding
                x_BCTM = x_BCTM.masked_fill(~valid_mask(lens_B, x_BCTM.shape[2])[:, None, :, None], 0.0)
                lens_B = self._reduced(lens_B, number)
            x_BCTM = layer(x_BCTM)
        return self.scale * self.project(x_BCTM.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def log_mel(self, wav_BN: Tensor, num_samples_B: Tensor) -> Tensor:
        """Return the logarithm of mel energies [B, T, M], each bin normalised over the valid frames of its utterance."""
        with torch.autocast(wav_BN.device.type, enabled=False):  # power spectra exceed the precision of bfloat16
            wav_BN = F.pad(wav_BN.float(), (0, max(0, HOP_SAMPLES - wav_BN.shape[1])))
            wav_BN = torch.cat([wav_BN[:, :1], wav_BN[:, 1:] - PREEMPHASIS * wav_BN[:, :-1]], 1)
            wav_BN = wav_BN.masked_fill(~valid_mask(num_samples_B, wav_BN.shape[1]), 0.0)
            side = FFT_SAMPLES // 2
            energy_BTM = self.mel(F.pad(wav_BN, (side, side))).transpose(1, 2)[:, :-1]  # the last counts as padding
            centred_BTM, var_B1M = centre((energy_BTM + GUARD).log(), num_samples_B // HOP_SAMPLES)
            return centred_BTM / (var_B1M.sqrt() + 1e-5)


def _window(samples: int) -> Tensor:
    """Return a symmetric Hann window in the middle of a transform of so many samples."""
    side = (samples - WINDOW_SAMPLES) // 2
    return F.pad(torch.hann_window(WINDOW_SAMPLES, periodic=False), (side, side))


def _bank(num_mels: int) -> Tensor:
    """Return Slaney's filters [F, M], triangles in Hz of equal area; torchaudio's, made in 32 bits, are off by 1e-4."""
    highest = 15 + 27 * math.log(RATE_HZ / 2 / 1000) / math.log(6.4)  # in mel, logarithmic from 1000 Hz on, which is 15
    mel = torch.linspace(0, highest, num_mels + 2, dtype=torch.float64)
    hz = torch.where(mel < 15, mel * 200 / 3, 1000 * ((mel - 15) * math.log(6.4) / 27).exp())
    hz_F1 = torch.arange(FFT_SAMPLES // 2 + 1, dtype=torch.float64)[:, None] * RATE_HZ / FFT_SAMPLES
    low, middle, high = hz[:-2], hz[1:-1], hz[2:]
    rising, falling = (hz_F1 - low) / (middle - low), (high - hz_F1) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0) * 2 / (high - low)


def block_class(config: dict) -> type[nn.Module]:
    """Return the class of the blocks, which has PLACES; `config` is config.json."""
    return MacaronBlock


def convert(model: Any, extractor: dict | None, name: str, digest: str) -> TransformerUpstream:
    """Return transformers' encoder as an upstream; `extractor` is preprocessor_config.json, None for random weights.

    Raise UserError where the extractor describes another log-mel than the one that is computed here.
    """
    num_mels = model.config.num_mel_bins
    for key, ours in {**EXTRACTOR, "feature_size": num_mels}.items():
        theirs = (extractor or {}).get(key, ours)
        require(
            theirs == ours,
            f"upstream {name}: preprocessor_config.json has {key} {theirs}, and this family needs {ours}; "
            "copy the file from where the model comes from",
        )
    return TransformerUpstream(
        name,
        digest,
        FrontEnd(model.subsampling, num_mels, model.input_scale),
        Position([], None, model.dropout),
        [_block(layer) for layer in model.layers],
        None,
    )


def _block(layer: Any) -> MacaronBlock:
    attention, conv = layer.self_attn, layer.conv
    projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    positions = attention.relative_k_proj, attention.bias_u, attention.bias_v
    heads = attention.config.num_attention_heads
    ends = conv.depthwise_conv, conv.norm, conv.activation, conv.pointwise_conv2, nn.Identity()
    return MacaronBlock(
        [_feed_forward(layer.feed_forward1), _feed_forward(layer.feed_forward2)],
        [layer.norm_feed_forward1, layer.norm_feed_forward2],
        RelativeAttention(projections, heads, attention.attention_dropout, *positions),
        layer.norm_self_att,
        nn.Identity(),
        ConvModule(layer.norm_conv, conv.pointwise_conv1, *ends),
        layer.norm_out,
    )


def _feed_forward(theirs: Any) -> nn.Sequential:
    inner = nn.Dropout(theirs.activation_dropout)
    return nn.Sequential(theirs.linear1, theirs.activation, inner, theirs.linear2, nn.Identity())
