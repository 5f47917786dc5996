"""Recordings of noise, or none, in; as much noise as is asked for, and speech with it at a given ratio, out."""

from pathlib import Path

import numpy as np

from hfftools.audio import waveform
from hfftools.data import datadir
from hfftools.data.datadir import Utterance
from hfftools.log import UserError


def coloured(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise [N] whose spectrum falls with frequency by a random slope."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum *= (1 + np.arange(len(spectrum))) ** -rng.uniform(0.0, 1.0)
    return np.fft.irfft(spectrum, num_samples)


def mix(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Both [N] as one, with so many dB between their mean powers; silence, on either side, leaves `samples` as they are."""
    powers = np.mean(samples**2), np.mean(noise**2)
    if min(powers) == 0:
        return samples
    gain = np.sqrt(powers[0] / powers[1]) * 10 ** (-snr_db / 20)
    return (samples + gain * noise).astype(np.float32)


def recordings(place: str) -> list[Utterance]:
    """Those of a data directory, or the audio files of a folder and all below it; UserError where one cannot be read."""
    folder = Path(place)
    try:
        if (folder / "wav.scp").exists():
            return datadir.read(folder, need_text=False)
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in waveform.SUFFIXES and p.is_file())
        paths = [str(path) for path in files]
        if not paths:
            what = "neither a data directory nor a folder of recordings"
            raise UserError(f"{place} is {what}; their names end in {', '.join(waveform.SUFFIXES)}")
        lengths = waveform.durations_s(paths, f"noise of {folder.name}")
        for broken in (length for length in lengths if isinstance(length, UserError)):
            raise broken
    except UserError as error:
        raise UserError(f"perturb.noise: {error}") from None
    return [Utterance(path, path, path, duration_s=length) for path, length in zip(paths, lengths, strict=True)]


def excerpt(recording: Utterance, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """[N] from anywhere in a recording; one that is shorter is repeated, begun anywhere too."""
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
