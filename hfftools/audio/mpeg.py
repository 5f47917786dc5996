"""Find the streams of MP3 files (MPEG 1, 2 and 2.5, layer III), joined or without a count of their frames."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hfftools.audio.stream import SPARE_S, Content, Cut, Stream

_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of MPEG 1
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # of MPEG 2 and 2.5
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the version's two bits
_START = 56  # bytes of a frame: its header, and the count of frames if it is an Info, Xing or VBRI frame


def after_id3(content: Content, at: int) -> int:
    """Return where the ID3v2 tag at `at` ends, `at` if there is none; its size has seven bits in each of four bytes."""
    while content[at : at + 3] == b"ID3" and at + 10 <= len(content):
        a, b, c, d = content[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d)
    return at


@dataclass
class _Run:
    """Count the frames of a stream; `promised` is the count of its Info frame, None without one."""

    begin: int
    header: bytes
    promised: int | None
    frames: int = 0

    def stream(self, end: int) -> Stream:
        if self.promised is None:  # without a count the decoder estimates one by the bit rate of the first frame
            return Stream(self.begin, end, _info(self.header, self.frames))
        if self.promised - self.frames > _spare(self.header):
            raise Cut(f"its header promises {self.promised} MP3 frames, {self.frames} are there")
        return Stream(self.begin, end)


def streams(content: Content, at: int) -> Iterator[Stream]:
    """Yield the streams of a file whose first frame is at `at`; none if that is no layer III. Raise Cut if one is cut."""
    run = None
    for pos, start in _frames(content, at):
        promised = _promised(start)
        if run is None:
            run = _Run(pos, start[:4], promised)
        elif promised is not None or _kind(start) != _kind(run.header) or run.frames == run.promised:
            if _counts(run, at):
                yield run.stream(pos)
            run = _Run(pos, start[:4], promised)
        run.frames += promised is None
    if run is not None and _counts(run, at):
        yield run.stream(len(content))


def _counts(run: _Run, begin: int) -> bool:
    """Return whether a run is a stream; a few frames after those that an Info frame promised are the encoder's own."""
    return run.begin == begin or run.promised is not None or run.frames > _spare(run.header)


def _frames(content: Content, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield the place and the first bytes of each complete frame."""
    if _length(content[at : at + 4]) == 0:
        return
    while at < len(content):
        start = content[at : at + _START]
        after = at + _length(start)
        if after == at or after > len(content):
            tagged = after_id3(content, at)
            at = tagged if tagged > at else _next(content, at + 1)
            continue
        if not _length(
            content[after : after + 4]
        ):  # the end, a tag, or the frame is incomplete and the next one nearer
            nearer = _next(content, at + 1)
            if nearer < after:
                at = nearer
                continue
        yield at, start
        at = after


def _next(content: Content, at: int) -> int:
    """Return where the next frame is that another one follows; the end if there is none."""
    for found in _SYNC.finditer(content, at):
        at = found.start()
        length = _length(content[at : at + 4])
        if length and _length(content[at + length : at + length + 4]):
            return at
    return len(content)


def _kind(start: bytes) -> tuple[int, int]:
    """Return what all frames of a stream share: the version and the rate."""
    return start[1] & 0x18, start[2] & 0x0C


def _length(start: bytes) -> int:
    """Return the bytes of the frame that begins so; 0 if it is no frame of layer III with a stated bit rate."""
    if len(start) < 4 or start[0] != 0xFF or start[1] & 0xE6 != 0xE2 or start[1] & 0x18 == 0x08:
        return 0
    rate, kbps = start[2] >> 2 & 3, start[2] >> 4
    if rate == 3 or kbps in (0, 15):
        return 0
    mpeg1 = start[1] & 0x18 == 0x18
    bits = (144000 * _KBPS_1[kbps]) if mpeg1 else (72000 * _KBPS_2[kbps])
    return bits // _RATES_HZ[start[1] >> 3 & 3][rate] + (start[2] >> 1 & 1)


def _spare(header: bytes) -> float:
    """Return how many frames a header may be off without being wrong."""
    samples = 1152 if header[1] & 0x18 == 0x18 else 576
    return SPARE_S * _RATES_HZ[header[1] >> 3 & 3][header[2] >> 2 & 3] / samples


def _promised(start: bytes) -> int | None:
    """Return the count in an Info, Xing or VBRI frame; None if it is another frame or has no count."""
    at = max(start.find(mark, 13, 40) for mark in (b"Xing", b"Info"))
    if at > 0 and start[at + 7] & 1:
        return int.from_bytes(start[at + 8 : at + 12], "big") or None
    if start[36:40] == b"VBRI":
        return int.from_bytes(start[50:54], "big") or None
    return None


def _info(header: bytes, frames: int) -> bytes:
    """Return an Info frame that promises `frames` frames like the one with this header."""
    # 128 or 64 kbit/s, without padding and checksum, have room for it at every rate
    header = bytes([0xFF, header[1] | 1, header[2] & 0x0C | (0x90 if header[1] & 0x18 == 0x18 else 0x80), header[3]])
    mono, mpeg1 = header[3] >> 6 == 3, header[1] & 0x18 == 0x18
    side = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    frame = header + bytes(side) + b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return frame.ljust(_length(header), b"\0")
