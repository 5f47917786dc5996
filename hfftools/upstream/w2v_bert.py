"""Convert w2v-BERT 2.0 (SeamlessM4T's speech encoder, arXiv:2308.11596) as transformers builds it: a family of `hf:FOLDER`.

Its input is Kaldi's log-mel in place of a waveform; its blocks are Conformers that look at frames behind them only, but for
the attention. K is the number of distances that the attention tells apart, S of samples in a window of the log-mel.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfftools.log import require
from hfftools.nn.mask import conv_out_len, valid_mask
from hfftools.nn.rate import RATE_HZ
from hfftools.upstream import hf_wav2vec2
from hfftools.upstream.hf_wav2vec2 import feed_forward
from hfftools.upstream.transformer import Attention, Position, TransformerUpstream
from hfftools.upstream.w2v_conformer import MacaronBlock, espnet_attention

MODELS = {"wav2vec2-bert": "Wav2Vec2BertModel"}  # model_type in config.json: class in transformers
OPTIONS, OPTIONAL = hf_wav2vec2.OPTIONS, hf_wav2vec2.OPTIONAL  # about the mask embedding
WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512
FLOOR = 1.192092955078125e-07  # of the energy of a bin: the precision of a float, as in Kaldi
STACK = 2  # frames of log-mel side by side, where preprocessor_config.json does not say


class KaldiMel(nn.Module):
    """Kaldi's log-mel bins [B, T, M] of waveforms [B, N], each bin normalised over the valid frames of its utterance.

    Computed in 64 bits: rounded to 32, the bins of quiet high frequencies next to loud low ones would be off by 1e-3.
    """

    bank_FM: Tensor

    def __init__(self, num_mels: int):
        super().__init__()
        self.register_buffer("bank_FM", _bank(num_mels).float(), persistent=False)

    def forward(self, wav_BN: Tensor, lens_B: Tensor) -> Tensor:
        """Return the bins; `lens_B` counts the valid frames."""
        with torch.autocast(wav_BN.device.type, enabled=False):
            frames_BTS = self.frames(wav_BN).double() * 2**15  # Kaldi reads samples of 16 bits
            frames_BTS = frames_BTS - frames_BTS.mean(2, keepdim=True)
            before_BTS = torch.cat([frames_BTS[..., :1], frames_BTS[..., :-1]], 2)
            window_S = torch.hann_window(WINDOW_SAMPLES, False, dtype=torch.float64, device=wav_BN.device) ** 0.85
            power_BTF = self.power((frames_BTS - 0.97 * before_BTS) * window_S)
            log_BTM = (power_BTF @ self.bank_FM.double()).clamp(min=FLOOR).log().float()
            centred_BTM, var_B1M = centre(log_BTM, lens_B)
            return centred_BTM / (var_B1M + 1e-7).sqrt()

    def frames(self, wav_BN: Tensor) -> Tensor:
        """Return the samples of each window, [B, T, S]."""
        return wav_BN.float().unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)

    def power(self, frames_BTS: Tensor) -> Tensor:
        """Return the energy at each frequency, [B, T, F]."""
        return torch.fft.rfft(frames_BTS, FFT_SAMPLES).abs().square()


class TracedMel(KaldiMel):
    """The same without the window as wide as there are frames and without complex numbers, which no graph can hold."""

    def frames(self, wav_BN: Tensor) -> Tensor:
        eye_S1S = torch.eye(WINDOW_SAMPLES, device=wav_BN.device)[:, None]
        return F.conv1d(wav_BN[:, None], eye_S1S, stride=HOP_SAMPLES).transpose(1, 2)

    def power(self, frames_BTS: Tensor) -> Tensor:
        at_S, at_F = (torch.arange(n).double() for n in (WINDOW_SAMPLES, FFT_SAMPLES // 2 + 1))
        angles_SF = torch.outer(at_S, at_F) * (2 * math.pi / FFT_SAMPLES)
        return (frames_BTS @ angles_SF.cos()).square() + (frames_BTS @ angles_SF.sin()).square()


def _bank(num_mels: int) -> Tensor:
    """Return Kaldi's filters [F, M] in 64 bits, triangles between points that are equally far apart in mel from 20 Hz on."""
    hz_F = torch.arange(FFT_SAMPLES // 2 + 1, dtype=torch.float64) * RATE_HZ / FFT_SAMPLES
    mel_F1 = 1127 * (1 + hz_F[:, None] / 700).log()
    lowest, highest = (1127 * math.log(1 + hz / 700) for hz in (20, RATE_HZ / 2))
    points = torch.linspace(lowest, highest, num_mels + 2, dtype=torch.float64)
    rising, falling = mel_F1 - points[:-2], points[2:] - mel_F1
    return torch.minimum(rising, falling).clamp(min=0) / (points[1] - points[0])


def centre(log_BTM: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return bins of zero mean over valid frames, zero beyond them, and their variances (divided by T - 1) [B, 1, M]."""
    valid_BT1 = valid_mask(lens_B, log_BTM.shape[1])[:, :, None]
    lens_B11 = lens_B[:, None, None]
    mean_B1M = log_BTM.masked_fill(~valid_BT1, 0.0).sum(1, keepdim=True) / lens_B11.clamp(min=1)
    centred_BTM = (log_BTM - mean_B1M).masked_fill(~valid_BT1, 0.0)
    var_B1M = centred_BTM.square().sum(1, keepdim=True) / (lens_B11 - 1).clamp(min=1)
    return centred_BTM, var_B1M


class FrontEnd(nn.Module):
    """Waveforms [B, N] -> log-mel, `stack` frames side by side, layer norm, projection [B, T, D]."""

    layers = ()  # no convolutions

    def __init__(self, mel: KaldiMel, stack: int, theirs: Any):
        super().__init__()
        self.mel, self.stack = mel, stack
        self.norm, self.project, self.dropout = theirs.layer_norm, theirs.projection, theirs.dropout
        self.stride_samples = stack * HOP_SAMPLES
        self.field_samples = WINDOW_SAMPLES + (stack - 1) * HOP_SAMPLES

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        return []

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        return conv_out_len(num_samples_B, self.field_samples, self.stride_samples)

    def forward(self, wav_BN: Tensor, num_samples_B: Tensor) -> Tensor:
        wav_BN = F.pad(wav_BN, (0, max(0, self.field_samples - wav_BN.shape[1])))
        mel_BTM = self.mel(wav_BN, conv_out_len(num_samples_B, WINDOW_SAMPLES, HOP_SAMPLES))
        last = mel_BTM.shape[1] - self.stack + 1  # a frame beyond the last full stack is left out
        x_BTD = torch.cat([mel_BTM[:, n : last + n : self.stack] for n in range(self.stack)], 2)
        return self.dropout(self.project(self.norm(x_BTD)))


class ShawAttention(Attention):
    """Self-attention with a learned key for each distance, the same beyond `left` and `right` (Shaw, arXiv:1803.02155)."""

    TAKES_PREFIX = True

    def __init__(self, projections, heads: int, dropout: float, keys: nn.Embedding, left: int, right: int):
        super().__init__(projections, heads, dropout)
        self.keys, self.left, self.right = keys, left, right

    def by_distance(self, q_BHTd: Tensor, x_BTD: Tensor) -> Tensor:
        """Return the score of each query at the distance of each key, [B, H, T, T]."""
        all_K = torch.arange(self.keys.num_embeddings, device=x_BTD.device)
        scores_BHTK = q_BHTd @ self.keys(all_K).T.to(q_BHTd.dtype)
        at_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)  # a trace takes the sizes of the scores for constants
        away_TT = (at_T[None] - at_T[:, None]).clamp(-self.left, self.right) + self.left
        every_BH11 = torch.zeros_like(x_BTD[:, None, :1, :1], dtype=torch.long).expand(-1, self.heads, -1, -1)
        return scores_BHTK.gather(-1, away_TT + every_BH11)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        q_BHTd, k_BHTd, v_BHTd = self.project(x_BTD)
        bias_BHTT = self.by_distance(q_BHTd, x_BTD) / math.sqrt(q_BHTd.shape[-1])
        mask_BHTT = bias_BHTT.masked_fill(~valid_BT[:, None, None, :], -torch.inf)
        return self.mix(q_BHTd, k_BHTd, v_BHTd, mask_BHTT)


class CausalConvModule(nn.Module):
    """Norm, pointwise GLU, depthwise convolution over a frame and those before it, layer norm, activation, pointwise."""

    def __init__(self, theirs: Any):
        super().__init__()
        self.norm, self.pointwise_in, self.depthwise = theirs.layer_norm, theirs.pointwise_conv1, theirs.depthwise_conv
        self.norm_mid, self.activation = theirs.depthwise_layer_norm, theirs.activation
        self.pointwise_out, self.dropout = theirs.pointwise_conv2, theirs.dropout

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        y_BDT = F.glu(self.pointwise_in(self.norm(x_BTD).transpose(1, 2)), dim=1)
        y_BDT = self.depthwise(F.pad(y_BDT, (self.depthwise.kernel_size[0] - 1, 0)))
        y_BDT = self.activation(self.norm_mid(y_BDT.transpose(1, 2)).transpose(1, 2))
        return self.dropout(self.pointwise_out(y_BDT)).transpose(1, 2)


STAND_INS: dict[type[nn.Module], type[nn.Module]] = {KaldiMel: TracedMel}  # see graph.py


def block_class(config: dict) -> type[nn.Module]:
    """Return the class of the blocks, which has PLACES; `config` is config.json."""
    return MacaronBlock


def convert(model: Any, extractor: dict | None, name: str, digest: str) -> TransformerUpstream:
    """Return the encoder of transformers' model; `extractor` is preprocessor_config.json, None for random weights.

    Raise UserError where the log-mel that the extractor describes is not as wide as what the model takes in.
    """
    width, described = model.config.feature_projection_input_dim, extractor or {}
    stack = described.get("stride", STACK)
    num_mels = described.get("num_mel_bins", width // stack)
    require(
        num_mels * stack == width,
        f"upstream {name}: preprocessor_config.json describes {stack} frames of {num_mels} bins, and the model takes "
        f"{width} numbers; copy the file from where the model comes from",
    )
    encoder = model.encoder
    return TransformerUpstream(
        name,
        digest,
        FrontEnd(KaldiMel(num_mels), stack, model.feature_projection),
        Position([], None, encoder.dropout.p),
        [_block(layer, getattr(encoder.embed_positions, "inv_freq", None)) for layer in encoder.layers],
        None,
        getattr(model, "masked_spec_embed", None),
    )


def _block(layer: Any, rates: Tensor | None) -> MacaronBlock:
    return MacaronBlock(
        [feed_forward(layer.ffn1), feed_forward(layer.ffn2)],
        [layer.ffn1_layer_norm, layer.ffn2_layer_norm],
        _attention(layer.self_attn, rates),
        layer.self_attn_layer_norm,
        layer.self_attn_dropout,
        CausalConvModule(layer.conv_module),
        layer.final_layer_norm,
    )


def _attention(theirs: Any, rates: Tensor | None) -> Attention:
    if theirs.position_embeddings_type != "relative_key":
        return espnet_attention(theirs, theirs.num_heads, rates)
    projections = (theirs.linear_q, theirs.linear_k, theirs.linear_v, theirs.linear_out)
    sides = theirs.left_max_position_embeddings, theirs.right_max_position_embeddings
    return ShawAttention(projections, theirs.num_heads, theirs.dropout.p, theirs.distance_embedding, *sides)
