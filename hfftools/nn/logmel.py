"""Log-mel filter banks: waveforms [B, N] at 16 kHz in, log-mel [B, T, M] at 10 ms out, each utterance normalised."""

import torch
import torchaudio
from torch import Tensor, nn

from hfftools.nn.mask import conv_out_len, valid_mask

RATE_HZ = 16000
WINDOW_SAMPLES = 512
HOP_SAMPLES = 160
RANGE_NATS = 18.4  # 80 dB: what lies further below the utterance's peak is floored, so that gain changes nothing


class LogMel(nn.Module):
    """80 log-mel bins of 32 ms windows every 10 ms, floored 80 dB below the peak, mean-normalised per bin and utterance.

    The scale is one standard deviation per utterance, so the output does not depend on the recording's gain.
    """

    def __init__(self, num_mels: int = 80):
        super().__init__()
        self.num_mels = num_mels
        self.mel = torchaudio.transforms.MelSpectrogram(
            RATE_HZ, WINDOW_SAMPLES, hop_length=HOP_SAMPLES, center=False, n_mels=num_mels, mel_scale="slaney"
        )

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        """Frames per utterance from samples: floor((n - 512) / 160) + 1."""
        return conv_out_len(num_samples_B, WINDOW_SAMPLES, HOP_SAMPLES)

    @torch.no_grad()
    def forward(self, wav_BN: Tensor, num_samples_B: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(wav_BN.device.type, enabled=False):
            if wav_BN.shape[1] < WINDOW_SAMPLES:
                wav_BN = nn.functional.pad(wav_BN, (0, WINDOW_SAMPLES - wav_BN.shape[1]))
            lens_B = self.out_lens(num_samples_B)
            log_BTM = self.mel(wav_BN.float()).clamp(min=1e-10).log().transpose(1, 2)
            valid_BT1 = valid_mask(lens_B, log_BTM.shape[1])[:, :, None]
            peak_B11 = log_BTM.masked_fill(~valid_BT1, -torch.inf).amax((1, 2), keepdim=True)
            log_BTM = log_BTM.maximum((peak_B11 - RANGE_NATS).clamp(min=-30.0)).masked_fill(~valid_BT1, 0.0)
            frames_B11 = lens_B.clamp(min=1)[:, None, None]
            mean_B1M = log_BTM.sum(1, keepdim=True) / frames_B11
            centred_BTM = (log_BTM - mean_B1M).masked_fill(~valid_BT1, 0.0)
            var_B11 = centred_BTM.square().sum((1, 2), keepdim=True) / (frames_B11 * self.num_mels)
            return centred_BTM / (var_B11.sqrt() + 1e-3), lens_B
