"""Run the encoder of Whisper (Radford et al., arXiv:2212.04356) as transformers builds it: a family of `hf:FOLDER`.

Whisper was trained on windows of 30 s, padded with zeros, and attends to the padding like to the rest. Two forms of it:

- `hf:FOLDER` computes the padded window up to what enters the first block, and then leaves out the padding: the blocks see
  the frames of the utterance alone. State 0 is the published one; the others are near it.
- `hf_padded:FOLDER` runs the blocks over all 1500 frames, exactly as published, and leaves out the padding after them.

A longer recording is cut into windows that overlap by 10 s; each frame is taken from the window whose middle is nearest.
"""

from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from hfftools.nn.mask import valid_mask
from hfftools.nn.rate import RATE_HZ
from hfftools.upstream.transformer import Attention, Block, Position, TransformerUpstream

MODELS = {"whisper": "WhisperModel"}  # model_type in config.json: class in transformers
OPTIONS = {"decoder_layers": 0}  # only the encoder is used
OPTIONAL = ("decoder",)  # a checkpoint may hold the encoder alone
PADS = True  # the family has the form `hf_padded:FOLDER`

HOP_SAMPLES, FFT_SAMPLES = 160, 400
WINDOW_SAMPLES = 30 * RATE_HZ  # what Whisper was trained on
STEP_SAMPLES = 20 * RATE_HZ  # from the beginning of a window to that of the next, in longer recordings
TAIL_SAMPLES = 640  # silence after an utterance that its last frame may see, and more than any of its log-mel frames


class FrontEnd(nn.Module):
    """Compute log-mel every 10 ms, then two convolutions: waveforms [B, N] of at most 30 s -> [B, T, D] every 20 ms."""

    stride_samples = 2 * HOP_SAMPLES
    field_samples = 0  # frame t lies around sample 320 t, where the middle of what it sees is

    def __init__(self, convs: list[nn.Module], num_mels: int):
        super().__init__()
        self.layers = nn.ModuleList(convs)
        self.mel = torchaudio.transforms.MelSpectrogram(
            RATE_HZ,
            FFT_SAMPLES,
            hop_length=HOP_SAMPLES,
            n_mels=num_mels,
            center=False,
            norm="slaney",
            mel_scale="slaney",
        )

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        return [(self.layers, str(number)) for number in range(len(self.layers))]

    def out_lens(self, num_samples: Any) -> Any:
        """Return the frames of an utterance of so many samples, half of its log-mel frames rounded up; [B] or one number."""
        return (num_samples // HOP_SAMPLES + 1) // 2

    def forward(self, wav_BN: Tensor, num_samples_B: Tensor, padded_samples: int | None = None) -> Tensor:
        """Return frames of the utterances and of silence after them, up to `padded_samples` (None: as few as needed)."""
        num_samples = wav_BN.shape[1]
        if padded_samples is None:
            padded_samples = min(num_samples + TAIL_SAMPLES, WINDOW_SAMPLES)
        wav_BN = wav_BN.masked_fill(~valid_mask(num_samples_B, num_samples), 0.0)
        x_BCT = self.log_mel(F.pad(wav_BN, (0, padded_samples - num_samples)))
        for conv in self.layers:
            x_BCT = F.gelu(conv(x_BCT))
        return x_BCT.transpose(1, 2)

    @torch.no_grad()
    def log_mel(self, wav_BN: Tensor) -> Tensor:
        """Return log10 of the mel energies [B, M, T], not below the peak less 8, plus 4, over 4."""
        with torch.autocast(wav_BN.device.type, enabled=False):  # power spectra exceed the precision of bfloat16
            side = FFT_SAMPLES // 2
            energy_BMT = self.mel(F.pad(wav_BN.float()[:, None], (side, side), mode="reflect")[:, 0])[:, :, :-1]
            log_BMT = energy_BMT.clamp(min=1e-10).log10()
            return (log_BMT.maximum(log_BMT.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class Places(nn.Module):
    """Return the embedding of each place in time, for x [B, D, T]."""

    embedding_PD: Tensor

    def __init__(self, embedding_PD: Tensor):
        super().__init__()
        self.register_buffer("embedding_PD", embedding_PD.detach().clone(), persistent=False)  # frozen, as in Whisper

    def forward(self, x_BDT: Tensor) -> Tensor:
        return self.embedding_PD[: x_BDT.shape[2]].T.expand_as(x_BDT).to(x_BDT.dtype)


class WhisperUpstream(TransformerUpstream):
    """The encoder, cropped to the utterances, or `padded` to 30 s."""

    padded = False

    def forward(self, wav_BN, num_samples_B, layers, augment=None):
        num_samples_B = num_samples_B.to(wav_BN.device)
        if wav_BN.shape[1] <= WINDOW_SAMPLES:
            return self._one_window(wav_BN, num_samples_B, layers, augment), self.out_lens(num_samples_B)
        rows = [_windows(wav_N[:num]) for wav_N, num in zip(wav_BN, num_samples_B.tolist(), strict=True)]
        windows = sum(rows, [])
        num_W = torch.tensor([len(window) for window in windows], device=wav_BN.device)
        states = self._one_window(nn.utils.rnn.pad_sequence(windows, batch_first=True), num_W, layers, augment)
        frames_W, counts = self.out_lens(num_W).tolist(), [len(row) for row in rows]
        return {n: self._join(h_WTD, frames_W, counts) for n, h_WTD in states.items()}, self.out_lens(num_samples_B)

    def _one_window(self, wav_BN, num_samples_B, layers, augment):
        """Return {layer: h [B, T, D]} for waveforms of at most 30 s."""
        frames = max(1, self.front.out_lens(wav_BN.shape[1]))
        lens_B = self.out_lens(num_samples_B)
        x_BTD = self.front(wav_BN, num_samples_B, WINDOW_SAMPLES if self.padded else None)
        if not self.padded:
            x_BTD = x_BTD[:, :frames]
        if augment is not None:
            x_BTD = torch.cat([augment(x_BTD[:, :frames], lens_B, self), x_BTD[:, frames:]], 1)
        seen_B = lens_B.new_full(lens_B.shape, x_BTD.shape[1]) if self.padded else lens_B
        return {layer: h_BTD[:, :frames] for layer, h_BTD in self.states(x_BTD, seen_B, layers).items()}

    def _join(self, h_WTD: Tensor, frames_W: list[int], counts: list[int]) -> Tensor:
        """Return [B, T, D] from the states of windows, of which each utterance has so many, in order."""
        step = STEP_SAMPLES // self.stride_samples
        half = (WINDOW_SAMPLES - STEP_SAMPLES) // self.stride_samples // 2  # of what two windows have in common
        utterances, first = [], 0
        for count in counts:
            parts = []
            for k in range(count):
                begin = half if k else 0
                end = frames_W[first + k] if k == count - 1 else step + half
                parts.append(h_WTD[first + k, begin:end])
            utterances.append(torch.cat(parts))
            first += count
        return nn.utils.rnn.pad_sequence(utterances, batch_first=True)


def _windows(wav_N: Tensor) -> list[Tensor]:
    """Return an utterance in windows of 30 s, one every 20 s; the last ends with it, and is shorter."""
    ends_before = max(1, len(wav_N) - (WINDOW_SAMPLES - STEP_SAMPLES))
    return [wav_N[begin : begin + WINDOW_SAMPLES] for begin in range(0, ends_before, STEP_SAMPLES)]


def block_class(config: dict) -> type[nn.Module]:
    """Return the class of the blocks of a model with this config.json."""
    return Block


def convert(model: Any, extractor: dict | None, name: str, digest: str) -> WhisperUpstream:
    """Return the encoder of transformers' model as an upstream, in its cropped form."""
    encoder = model.encoder
    front = FrontEnd([encoder.conv1, encoder.conv2], encoder.num_mel_bins)
    position = Position([Places(encoder.embed_positions.weight)], None, encoder.dropout)
    blocks = [_block(layer) for layer in encoder.layers]
    return WhisperUpstream(name, digest, front, position, blocks, encoder.layer_norm)


def _block(theirs: Any) -> Block:
    attention = theirs.self_attn
    projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj
    inner, dropout = nn.Dropout(theirs.activation_dropout), nn.Dropout(theirs.dropout)
    feed_forward = nn.Sequential(theirs.fc1, theirs.activation_fn, inner, theirs.fc2, dropout)
    ours = Attention(projections, attention.num_heads, attention.dropout)
    return Block(ours, theirs.self_attn_layer_norm, feed_forward, theirs.final_layer_norm, dropout, norm_first=True)
