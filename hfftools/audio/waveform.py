"""Read audio files and the output of commands as mono waveforms [N] at 16 kHz; the one door to soundfile."""

import io
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from hfftools.expdir import write_aside
from hfftools.log import UserError, progress
from hfftools.nn.rate import RATE_HZ

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")  # of the files that are looked for in a folder
LEAD_S = 1.0  # decoded before a segment and dropped: MP3 and Opus need what came before, or they begin with silence
SHORTFALL_S = 0.25  # how far samples may fall short of a header or a segment: MP3 headers are some frames off


def _command(source: str) -> str | None:
    """Return the command of a wav.scp entry `command |`; None where the entry is a path."""
    source = source.rstrip()
    return source[:-1].strip() if source.endswith("|") else None


def exists(source: str) -> bool:
    """Return whether there is a file at `source`; a command counts as there, since only running it could tell."""
    return _command(source) is not None or Path(source).is_file()


def _open(source: str) -> soundfile.SoundFile:
    """Open a path, or the standard output of `command |`: a WAV, FLAC, MP3 or OGG file; raise UserError if it is none."""
    command = _command(source)
    if command is None and not Path(source).is_file():
        raise UserError(f"audio file {source} does not exist, seen from {Path.cwd()}; correct its line in wav.scp")
    if command is None and Path(source).stat().st_size == 0:
        raise UserError(f"audio {source}: the file is empty; replace it or drop the utterance")
    return _decoder(source if command is None else io.BytesIO(_run(command)), source)


def _decoder(given: str | BinaryIO, source: str) -> soundfile.SoundFile:
    """Return the decoder of a path or of an open file that can seek; errors name it `source`."""
    try:
        return soundfile.SoundFile(given)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a .raw file, which has no header
        reason = str(getattr(error, "error_string", "no header says how"))
        raise _broken(
            source, "no audio found in it" if "does not exist" in reason else reason
        ) from None  # a broken MP3


@lru_cache(maxsize=1)  # segments of a recording come one after another: its command runs once for all of them
def _run(command: str) -> bytes:
    done = subprocess.run(command, shell=True, capture_output=True)
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise UserError(f"audio command `{command} |` failed with exit code {done.returncode}: {lines[-1]}")
    return done.stdout


def duration_s(source: str) -> float:
    """Return the seconds of a recording by its header; raise UserError if it cannot be read or has no samples."""
    with _open(source) as file:
        if file.frames == 0:
            raise UserError(f"audio {source}: holds no samples; replace it or drop the utterance")
        return file.frames / file.samplerate


def durations_s(sources: Sequence[str], what: str) -> list[float | UserError]:
    """Return `duration_s` of many recordings, read in parallel; one that cannot be read has its UserError in its place."""

    def one(source: str) -> float | UserError:
        try:
            return duration_s(source)
        except UserError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(progress(pool.map(one, sources), len(sources), what, "file"))


def _read(file: soundfile.SoundFile, source: str, start: int, frames: int) -> np.ndarray:
    """Return samples [N, C] from frame `start` on, N at most `frames`, for C channels."""
    if start >= file.frames:
        return np.zeros((0, file.channels), np.float32)
    lead = min(start, round(LEAD_S * file.samplerate))
    try:
        if start:
            file.seek(start - lead)
        return file.read(lead + frames, dtype="float32", always_2d=True)[lead:]
    except soundfile.LibsndfileError as error:
        raise _broken(source, error.error_string) from None


def _broken(source: str, reason: str) -> UserError:
    reason = reason.strip().rstrip(".")
    return UserError(f"audio {source}: cannot be decoded ({reason}); replace it or drop the utterance")


def load(source: str, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray:
    """Return samples of [start_s, end_s) as float32 [N], channels averaged, resampled to 16 kHz; no `end_s`: to the end.

    Raise UserError if the file is missing, empty, cut short, cannot be decoded, ends before the segment does, or
    holds values that are not finite.
    """
    with _open(source) as file:
        rate_hz = file.samplerate
        start = round(start_s * rate_hz)
        wanted = (round(end_s * rate_hz) if end_s is not None else file.frames) - start
        samples = _read(file, source, start, wanted).mean(axis=1)
    if len(samples) == 0:
        raise UserError(f"audio {source}: no samples between {start_s} s and {end_s or 'the end'}; drop the utterance")
    if wanted - len(samples) > SHORTFALL_S * rate_hz:
        raise UserError(
            f"audio {source}: {wanted / rate_hz:.2f} s wanted from {start_s} s on, only "
            f"{len(samples) / rate_hz:.2f} s there; the file is cut short, or its segment is too long"
        )
    if not np.isfinite(samples).all():
        raise UserError(f"audio {source}: holds samples that are not finite numbers; replace it or drop the utterance")
    return samples if rate_hz == RATE_HZ else _resample(samples, rate_hz)


def blocks(given: Path | BinaryIO, source: str, block_s: int = 30) -> Iterator[np.ndarray]:
    """Yield a whole recording as float32 blocks [N] at 16 kHz, channels averaged; `source` names it in errors.

    The blocks put together equal the recording resampled at once. A path is never taken for a command. Raise
    UserError if it cannot be opened or decoded, or holds values that are not finite.
    """
    with _decoder(str(given) if isinstance(given, Path) else given, source) as file:
        rate_hz = file.samplerate
        before = ahead = np.zeros(0, np.float32)  # the second before the block, which resampling looks at; the block
        while True:
            try:
                read = file.read(block_s * rate_hz, dtype="float32", always_2d=True).mean(axis=1)
            except soundfile.LibsndfileError as error:
                raise _broken(source, error.error_string) from None
            if not np.isfinite(read).all():
                raise UserError(f"audio {source}: holds samples that are not finite numbers; replace it")
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
        soundfile.write(str(aside), samples, rate_hz, subtype="PCM_16", format=Path(path).suffix[1:].upper())
