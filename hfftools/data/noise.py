"""Generate noise or read it from recordings, and add it to speech at a given signal-to-noise ratio."""

from pathlib import Path

import numpy as np

from hfftools.audio import waveform
from hfftools.data import datadir
from hfftools.data.datadir import Utterance
from hfftools.log import UserError


def coloured(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise [N] whose amplitude spectrum is (1 + bin)^-a, a drawn from [0, 1]: white (0) to brownish (1)."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum *= (1 + np.arange(len(spectrum))) ** -rng.uniform(0.0, 1.0)
    return np.fft.irfft(spectrum, num_samples)


def mix(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise [N] to samples [N] at `snr_db`, the ratio of mean powers; return `samples` if either is silent."""
    powers = np.mean(samples**2), np.mean(noise**2)
    if min(powers) == 0:
        return samples
    # power ratio after the gain: P_speech / (gain^2 P_noise) = 10^(snr_db / 10)
    gain = np.sqrt(powers[0] / powers[1]) * 10 ** (-snr_db / 20)
    return (samples + gain * noise).astype(np.float32)


def recordings(place: str) -> list[Utterance]:
    """Return the recordings of a data directory, or of a folder searched recursively; raise UserError if unreadable."""
    folder = Path(place)
    try:
        if (folder / "wav.scp").exists():
            return datadir.read(folder, need_text=False)
        paths = [str(path) for path in waveform.find_files(folder)]
        if not paths:
            what = "neither a data directory nor a folder of recordings"
            raise UserError(f"{place} is {what}; their names end in {', '.join(waveform.SUFFIXES)}")
        lengths_s = []
        for length_s in waveform.durations_s(paths, f"noise of {folder.name}"):
            if isinstance(length_s, UserError):
                raise length_s
            lengths_s.append(length_s)
    except UserError as error:
        raise UserError(f"perturb.noise: {error}") from None
    return [Utterance(path, path, path, duration_s=length_s) for path, length_s in zip(paths, lengths_s, strict=True)]


def excerpt(recording: Utterance, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return [N] samples from a random position of a recording; a shorter one is rotated randomly and repeated."""
    spare_s = recording.duration_s - num_samples / waveform.RATE_HZ
    start_s, end_s, place = recording.start_s, recording.end_s, rng.random()
    if spare_s > 0:
        start_s += place * spare_s
        end_s = start_s + num_samples / waveform.RATE_HZ
    try:
        samples = waveform.load(recording.source, start_s, end_s)
    except UserError as error:
        raise UserError(f"perturb.noise: {error}") from None
    if spare_s <= 0:
        samples = np.roll(samples, int(place * len(samples)))
    return np.resize(samples, num_samples)
