"""Compute log-mel filter banks [B, T, M], one frame per 10 ms, of waveforms [B, N] at 16 kHz, normalised by utterance."""

import torch
import torchaudio
from torch import Tensor, nn

from hfftools.nn.mask import conv_out_len, valid_mask
from hfftools.nn.rate import RATE_HZ

WINDOW_SAMPLES = 512  # 32 ms: a power of two, which is the fastest length for the FFT
HOP_SAMPLES = 160  # 10 ms
RANGE_NATS = 18.4  # 80 dB of power: 8 ln 10; lower values are raised to this, so that a change of gain changes nothing


class LogMel(nn.Module):
    """Return log-mel bins that do not depend on the gain of the recording.

    Values are floored 80 dB below the peak of the utterance; then the mean of each bin is subtracted, and all bins are
    divided by one standard deviation per utterance.
    """

    def __init__(self, num_mels: int = 80):
        super().__init__()
        self.num_mels = num_mels
        self.mel = torchaudio.transforms.MelSpectrogram(
            RATE_HZ, WINDOW_SAMPLES, hop_length=HOP_SAMPLES, center=False, n_mels=num_mels, mel_scale="slaney"
        )

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        """Return the frames of each utterance, floor((n - 512) / 160) + 1, from its samples n."""
        return conv_out_len(num_samples_B, WINDOW_SAMPLES, HOP_SAMPLES)

    @torch.no_grad()
    def forward(self, wav_BN: Tensor, num_samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-mel bins [B, T, M], zero in the padding, and the number of valid frames [B]."""
        with torch.autocast(wav_BN.device.type, enabled=False):  # power spectra exceed the precision of bfloat16
            # an utterance shorter than one window counts 0 frames, but the transform needs a window to work on
            if wav_BN.shape[1] < WINDOW_SAMPLES:
                wav_BN = nn.functional.pad(wav_BN, (0, WINDOW_SAMPLES - wav_BN.shape[1]))
            lens_B = self.out_lens(num_samples_B)
            log_BTM = self.mel(wav_BN.float()).clamp(min=1e-10).log().transpose(1, 2)
            valid_BT1 = valid_mask(lens_B, log_BTM.shape[1])[:, :, None]
            peak_B11 = log_BTM.masked_fill(~valid_BT1, -torch.inf).amax((1, 2), keepdim=True)
            # -30 is below the logarithm of the clamp, 1e-10, and replaces the peak of -inf where no frame is valid
            log_BTM = log_BTM.maximum((peak_B11 - RANGE_NATS).clamp(min=-30.0)).masked_fill(~valid_BT1, 0.0)
            frames_B11 = lens_B.clamp(min=1)[:, None, None]
            mean_B1M = log_BTM.sum(1, keepdim=True) / frames_B11
            centred_BTM = (log_BTM - mean_B1M).masked_fill(~valid_BT1, 0.0)
            var_B11 = centred_BTM.square().sum((1, 2), keepdim=True) / (frames_B11 * self.num_mels)
            # 1e-3 only keeps digital silence, whose deviation is 0, from a division by zero
            return centred_BTM / (var_B11.sqrt() + 1e-3), lens_B
