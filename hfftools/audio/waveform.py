"""Read audio files and the output of commands as mono waveforms [N] at 16 kHz."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hfftools.audio import command, decoder
from hfftools.audio.stream import SPARE_S
from hfftools.expdir import write_aside
from hfftools.log import UserError, log, progress, require
from hfftools.nn.rate import RATE_HZ

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")  # of the files that are looked for in a folder
# the mean of the channels has this share of their power, or less, where they cancel each other; of unrelated channels
# it has one part in their number
CANCELLED, AUDIBLE = 0.02, 1e-7
LOUDEST = 1e10  # float files may hold 32-bit integers unscaled, up to 2e9; the squares of far larger values overflow


def is_command(source: str) -> bool:
    """Return whether a wav.scp entry is a command instead of a path."""
    return command.parse(source) is not None


def exists(source: str) -> bool:
    """Return whether there is a file at `source`; a command counts as there, since only running it could tell."""
    return is_command(source) or Path(source).is_file()


def find_files(folder: Path) -> list[Path]:
    """Return the audio files in a folder and those in it, sorted; log how to convert each that has another format."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        if path.suffix.lower() in decoder.OTHER_SUFFIXES:
            log.warning(f"{decoder.display(path)}: skipped; {decoder.how_to_convert(path)}")
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def duration_s(source: str) -> float:
    """Return the seconds of a recording that can be decoded; raise UserError if it is broken, cut short or empty."""
    with decoder.open_source(source) as sound:
        if sound.frames == 0:
            raise UserError(f"audio {source}: holds no samples; replace it or drop the utterance")
        sound.check_ends()
        return sound.frames / sound.rate_hz


def durations_s(sources: Sequence[str], what: str) -> list[float | UserError]:
    """Return `duration_s` of many recordings, read in parallel; one that cannot be read has its UserError in its place."""

    def one(source: str) -> float | UserError:
        try:
            return duration_s(source)
        except UserError as error:
            return error

    with command.threads(min(8, os.cpu_count() or 1)) as pool:
        return list(progress(pool.map(one, sources), len(sources), what, "file"))


def load(source: str, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray:
    """Return samples of [start_s, end_s) as float32 [N], channels averaged, resampled to 16 kHz; no `end_s`: to the end.

    Raise UserError if the file is missing, empty, cut short, cannot be decoded, ends before the segment does, or
    holds values that are no sound, or the segment holds no sample.
    """
    with decoder.open_source(source) as sound:
        rate_hz = sound.rate_hz
        start = round(start_s * rate_hz)
        wanted = (round(end_s * rate_hz) if end_s is not None else sound.frames) - start
        if start >= sound.frames or wanted < 1:
            end = "the end" if end_s is None else f"{end_s} s"
            raise UserError(f"audio {source}: no samples between {start_s} s and {end}; drop the utterance")
        samples = _mix(_finite(sound.read(start, wanted), source), source)
    if wanted - len(samples) > SPARE_S * rate_hz:
        raise UserError(
            f"audio {source}: {wanted / rate_hz:.2f} s wanted from {start_s} s on, only "
            f"{len(samples) / rate_hz:.2f} s there; its segment is too long"
        )
    return samples if rate_hz == RATE_HZ else _resample(samples, rate_hz)


def _finite(samples_NC: np.ndarray, source: str) -> np.ndarray:
    """Return the samples; raise UserError where some are NaN, infinite or far beyond any loudness."""
    if not (np.abs(samples_NC) <= LOUDEST).all():
        raise UserError(
            f"audio {source}: holds samples that are not finite numbers, or beyond {LOUDEST:g}; "
            "replace it or drop the utterance"
        )
    return samples_NC


def _mix(samples_NC: np.ndarray, source: str) -> np.ndarray:
    """Return the mean [N] of the channels; warn once of each source whose channels cancel each other."""
    mixed_N = samples_NC.mean(axis=1)
    power = np.mean(samples_NC**2, dtype=np.float64) if samples_NC.shape[1] > 1 and len(samples_NC) else 0.0
    if power > AUDIBLE and np.mean(mixed_N**2, dtype=np.float64) < CANCELLED * power:
        _warn_of_cancelled(source)
    return mixed_N


@cache
def _warn_of_cancelled(source: str) -> None:
    log.warning(
        f"audio {source}: its channels cancel each other, being in opposite phase, and their mean is nearly silent; "
        "use one of them: hff-transcribe --channel 1, or in wav.scp `ffmpeg -i FILE -af 'pan=mono|c0=c0' -f wav - |`"
    )


def blocks(given: Path | BinaryIO, source: str, block_s: int = 30, channel: int | None = None) -> Iterator[np.ndarray]:
    """Yield a whole recording as float32 blocks [N] at 16 kHz; `source` names it in errors.

    They are the mean of the channels, or the one of that number, counted from 1.

    The blocks put together equal the recording resampled at once. A path is never taken for a command. Raise
    UserError if it cannot be opened or decoded, or holds values that are no sound.
    """
    with decoder.open_file(given, source) as sound:
        rate_hz = sound.rate_hz
        there = channel is None or channel <= sound.channels
        require(there, f"--channel {channel}: audio {source} has {sound.channels}")
        before = ahead = np.zeros(0, np.float32)  # the second before the block, which resampling looks at; the block
        for start in count(0, block_s * rate_hz):
            read_NC = sound.read(start, block_s * rate_hz)
            chosen_NC = read_NC if channel is None else read_NC[:, channel - 1 : channel]
            read = _mix(_finite(chosen_NC, source), source)
            if len(ahead):
                yield _resample_between(before, ahead, read[:rate_hz], rate_hz)
            if len(read) == 0:
                return
            before, ahead = ahead[-rate_hz:], read


def _resample_between(before: np.ndarray, samples: np.ndarray, after: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return `samples` at 16 kHz, resampled between their neighbours, so that the filter sees no edge between blocks.

    `before` must be whole seconds long or empty: the output then has its samples where resampling the whole file has them.
    """
    if rate_hz == RATE_HZ:
        return samples
    whole = _resample(np.concatenate([before, samples, after]), rate_hz)
    start = len(before) * RATE_HZ // rate_hz
    return whole[start : start + -(-len(samples) * RATE_HZ // rate_hz)]


def _resample(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    # imported where it is needed, since loading torch takes seconds and checking a data directory does not need it
    import torch
    import torchaudio

    return torchaudio.functional.resample(torch.from_numpy(samples), rate_hz, RATE_HZ).numpy()


def save(path: Path | str, samples: np.ndarray, rate_hz: int = RATE_HZ) -> None:
    """Write mono float samples, clipped to [-1, 1], as 16-bit WAV or FLAC by the path's ending; whole or not at all."""
    with write_aside(path) as aside:
        decoder.write(aside, samples, rate_hz, Path(path).suffix[1:].upper())
