"""Decode audio files of any number of streams by libsndfile, and write them; the one door to soundfile."""

import io
import os
import re
import shlex
from collections.abc import Sequence
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from hfftools.audio import command, container
from hfftools.audio.stream import SPARE_S, Content, Cut, Stream, StreamFile
from hfftools.log import UserError

LEAD_S = 1.0  # decoded before a segment and dropped: MP3 and Opus need what came before, or they begin with silence
LONG_S = 3600.0  # from this length on, the end is decoded first
MOST_FRAMES = 2**48
RATES_HZ = 1000, 768_000  # beyond these a header is damaged
_CONTROL = re.compile("[\0-\x1f\x7f]")
END_S = 0.05  # decoded at the end of each stream, to see whether the header's length is there
# of recordings that libsndfile does not read
OTHER_SUFFIXES = (
    ".m4a", ".mp4", ".m4b", ".aac", ".mov", ".mkv", ".webm", ".avi", ".3gp", ".amr", ".wma", ".wmv", ".ac3", ".mpg", ".ts",
)  # fmt: skip


class Sound:
    """Decode the streams of a recording one after another, as if they were one; use it in a `with` statement."""

    def __init__(self, content: Content, found: Sequence[Stream], source: str, note: str = ""):
        self.source, self.note = source, note
        self.files: list[soundfile.SoundFile] = []
        for stream in found:
            self.files.append(self._decoder(StreamFile(content, stream)))
        forms = {(file.samplerate, file.channels) for file in self.files}
        if len(forms) > 1:
            rates = " and ".join(f"{rate} Hz with {channels} channels" for rate, channels in sorted(forms))
            raise self.broken(f"it consists of joined files of different forms: {rates}")
        ((self.rate_hz, self.channels),) = forms
        if not RATES_HZ[0] <= self.rate_hz <= RATES_HZ[1]:  # to resample from a rate of millions takes hours
            raise self.broken(f"its header says {self.rate_hz} samples per second")
        self.frames = sum(file.frames for file in self.files)

    def __enter__(self) -> "Sound":
        return self

    def __exit__(self, *_) -> None:
        for file in self.files:
            file.close()

    def broken(self, reason: str) -> UserError:
        note = f"; its command says: {self.note}" if self.note else ""
        return _broken(self.source, reason.strip().rstrip(".") + note)

    def _decoder(self, given: StreamFile) -> soundfile.SoundFile:
        try:
            file = soundfile.SoundFile(given)
            if not 0 <= file.frames < MOST_FRAMES:  # libsndfile passes on what a damaged header says
                raise self.broken(f"its header promises {file.frames} samples")
            return file
        except soundfile.LibsndfileError as error:
            if Path(self.source).suffix.lower() in OTHER_SUFFIXES:
                raise UserError(f"audio {display(self.source)}: {how_to_convert(Path(self.source))}") from None
            # of a broken MP3 libsndfile says that the file does not exist
            reason = str(error.error_string)
            raise self.broken("no audio found in it" if "does not exist" in reason else reason) from None

    def read(self, start: int, frames: int) -> np.ndarray:
        """Return samples [N, C] from frame `start` on, N at most `frames`, for C channels.

        Raise UserError if they cannot be decoded or a stream is cut short.
        """
        parts, begin = [np.zeros((0, self.channels), np.float32)], 0
        for file in self.files:
            first, end = max(start - begin, 0), min(start + frames - begin, file.frames)
            if first < end:
                parts.append(self._decode(file, first, end))
            begin += file.frames
        return np.concatenate(parts)

    def _decode(self, file: soundfile.SoundFile, first: int, end: int) -> np.ndarray:
        """Return samples [N, C] of one stream, from frame `first` to before `end`."""
        lead = min(first, round(LEAD_S * self.rate_hz))
        if end - first > LONG_S * self.rate_hz:  # memory for it is taken before decoding: do not believe the header
            self.check_ends()
        try:
            if first:
                file.seek(first - lead)
            samples = file.read(lead + end - first, dtype="float32", always_2d=True)[lead:]
        except soundfile.LibsndfileError as error:
            self.check_ends()  # in a file that is cut short, the decoder finds an error before it finds the end
            raise self.broken(error.error_string) from None
        if end - first - len(samples) > SPARE_S * self.rate_hz:
            promised_s, there_s = file.frames / self.rate_hz, (first + len(samples)) / self.rate_hz
            raise _cut(self.source, f"its header promises {promised_s:.2f} s, {there_s:.2f} s are there")
        return samples

    def check_ends(self) -> None:
        """Raise UserError unless the end of each stream can be decoded; it is far cheaper than decoding all of it."""
        for file in self.files:
            start, samples = max(0, file.frames - round(END_S * self.rate_hz)), 0
            try:
                file.seek(start)
                samples = len(file.read(dtype="float32", always_2d=True))
            except (soundfile.LibsndfileError, ValueError):  # ValueError: it came to a place behind the header's end
                pass
            if file.frames > start and samples == 0:
                promised_s = file.frames / self.rate_hz
                raise _cut(self.source, f"its header promises {promised_s:.2f} s, the end of which cannot be decoded")


def display(path: Path | str) -> str:
    """Return a path as text of one line; bytes of its name that are not UTF-8 are shown as \\xe9, a line break as \\n."""
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], name)


def how_to_convert(path: Path) -> str:
    """Return a clause that says how to make a file readable."""
    old, new = (shlex.quote(display(name)) for name in (path, path.with_suffix(".wav")))
    return f"{path.suffix} files are not read; convert it by: ffmpeg -i {old} {new}"


def _broken(source: str, reason: str) -> UserError:
    return UserError(f"audio {source}: cannot be decoded ({reason}); replace it or drop the utterance")


def _cut(source: str, reason: str) -> UserError:
    return UserError(f"audio {source}: is cut short ({reason}); replace it or drop the utterance")


def open_source(source: str) -> Sound:
    """Open a path, or the standard output of `command |`: a WAV, FLAC, MP3 or OGG file; raise UserError if it is none."""
    words = command.parse(source)
    if words is None:
        return open_file(Path(source), source)
    content, note = command.output(words)
    return Sound(content, _streams(content, source), source, note)


def open_file(given: Path | BinaryIO, source: str) -> Sound:
    """Open a path, which is never taken for a command, or an open file; errors name it `source`."""
    if not isinstance(given, Path):
        content = _content(given)
        return Sound(content, _streams(content, source), source)
    if not given.is_file():
        raise UserError(f"audio file {source} does not exist, seen from {Path.cwd()}; correct its line in wav.scp")
    with given.open("rb") as file:
        state = os.fstat(file.fileno())
        if state.st_size == 0:
            raise UserError(f"audio {source}: the file is empty; replace it or drop the utterance")
        content = _content(file)
    try:
        return Sound(content, _streams_of_file(given, state.st_size, state.st_mtime_ns), source)
    except Cut as error:
        raise _cut(source, str(error)) from None


@lru_cache(maxsize=4096)  # a recording may be opened for each of its segments; it is searched once
def _streams_of_file(path: Path, size: int, mtime_ns: int) -> list[Stream]:
    with path.open("rb") as file:
        return container.streams(_content(file))


def _streams(content: Content, source: str) -> list[Stream]:
    try:
        return container.streams(content)
    except Cut as error:
        raise _cut(source, str(error)) from None


def _content(file: BinaryIO) -> Content:
    """Return what a file holds, without reading it all where the system can map it into memory."""
    try:
        return mmap(file.fileno(), 0, access=ACCESS_READ)
    except (io.UnsupportedOperation, ValueError, OSError):
        return file.read()


def write(path: Path, samples: np.ndarray, rate_hz: int, form: str) -> None:
    """Write mono float samples as 16-bit WAV or FLAC; samples beyond [-1, 1] are clipped."""
    soundfile.write(str(path), samples, rate_hz, subtype="PCM_16", format=form)
