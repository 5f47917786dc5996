"""Find the streams of a WAV, FLAC, MP3 or Ogg file, and correct what their headers say about their length.

libsndfile believes headers. Of files joined by `cat` it reads the first stream alone, and where a program wrote into a
pipe or crashed, the header has no length. Nothing is decoded here: a file's content is searched for the places at which
streams begin. What no header can reveal, such as a FLAC file without its end, is left to the decoder.
"""

import re
from collections.abc import Iterator

from hfftools.audio import chunks, mpeg
from hfftools.audio.stream import PLACEHOLDER_SPAN, SPARE_S, Content, Cut, Stream

_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the mark, and the header of STREAMINFO, which has 34 bytes
_FLAC_FRAME = re.compile(rb"\xff[\xf8\xf9]")


def streams(content: Content) -> list[Stream]:
    """Return the streams of a file in their order; one that is the whole file where the format is another.

    Raise Cut if a file ends too early.
    """
    begin = mpeg.after_id3(content, 0)
    for mark, find in ((b"RIFF", _wav), (b"OggS", _ogg), (b"fLaC", _flac), (b"\xff", mpeg.streams)):
        if content[begin : begin + len(mark)] == mark:
            return list(find(content, begin)) or [Stream(0, len(content))]
    chunks.check(content)
    return [Stream(0, len(content))]


def _wav(content: Content, at: int) -> Iterator[Stream]:
    while content[at : at + 4] == b"RIFF" and content[at + 8 : at + 12] == b"WAVE":
        stream = _wav_stream(content, at)
        yield stream
        at = stream.end


def _wav_stream(content: Content, begin: int) -> Stream:
    """Return the stream at `begin`, with a header that says how much data there is."""
    byte_rate, at = 0, begin + 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"fmt ":
            byte_rate = int.from_bytes(content[at + 16 : at + 20], "little")
        if name == b"data":
            there = len(content) - at - 8
            unknown = size > there and min(abs(size - 2**31), 2**32 - size) <= PLACEHOLDER_SPAN
            if unknown or (size == 0 and _next_riff(content, at + 8) is None):
                head = content[begin : at + 4] + min(there, 2**32 - 1).to_bytes(4, "little")
                return Stream(at + 8, len(content), head)
            if size - there > SPARE_S * byte_rate:
                raise Cut(f"its header promises {size} bytes of samples, {there} are there")
            following = _next_riff(content, at + 8 + size + size % 2)
            return Stream(begin, len(content) if following is None else following)
        at += 8 + size + size % 2
    return Stream(begin, len(content))


def _next_riff(content: Content, at: int) -> int | None:
    """Return where the chunks from `at` on end: at another RIFF file or at the end; None if these are no chunks."""
    while at < len(content) - 1:
        name = content[at : at + 4]
        if name == b"RIFF":
            return at
        if len(name) < 4 or not (name.isascii() and name.decode("ascii").isprintable()):
            return None
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return len(content) if at <= len(content) + 1 else None


def _flac(content: Content, at: int) -> Iterator[Stream]:
    begins = [found.start() for found in _FLAC.finditer(content)]
    if not begins:  # the mark is there, but no header follows it: the decoder says so
        return
    for begin, end in zip(begins, [*begins[1:], len(content)], strict=True):
        info = content[begin : begin + 42]
        if len(info) < 42:
            raise Cut("it ends within its header")
        packed = int.from_bytes(info[18:26], "big")  # 20 bits of rate, 3 of channels, 5 of sample size, 36 of samples
        if packed % 2**36:
            yield Stream(begin if begin > at else 0, end)
        else:
            samples = _flac_samples(content, begin, end)
            yield Stream(begin + 42, end, info[:18] + (packed + samples).to_bytes(8, "big") + info[26:])


def _flac_samples(content: Content, begin: int, end: int) -> int:
    """Return the samples of a FLAC stream whose STREAMINFO does not know them: where its last frame ends."""
    info = content[begin : begin + 42]
    shortest, longest = (int.from_bytes(info[at : at + 2], "big") for at in (8, 10))
    channels, bits = (info[20] >> 1 & 7) + 1, ((info[20] & 1) << 4 | info[21] >> 4) + 1
    window = longest * channels * bits // 8 + 4096  # no frame is longer than its samples
    ends = [
        _flac_frame_end(content[found.start() : min(found.start() + 16, end)], shortest)
        for found in _FLAC_FRAME.finditer(content, max(begin + 42, end - window), end)
    ]
    known = [end for end in ends if end is not None]
    if not known:
        raise Cut("no complete frame is at its end")
    return known[-1]


def _flac_frame_end(header: bytes, block: int) -> int | None:
    """Return the number of the sample after a frame, by its header; None if these bytes are no header (RFC 9639, 9.1)."""
    header = header.ljust(16, b"\0")
    if header[2] >> 4 == 0 or header[3] & 1:  # reserved values
        return None
    ones = 8 - (header[4] ^ 0xFF).bit_length()  # as in UTF-8, leading ones tell how many bytes the number has
    at = 4 + max(1, ones)
    number = header[4] & 0xFF >> ones + 1
    for byte in header[5:at]:
        number = number << 6 | byte & 0x3F
    code, rate = header[2] >> 4, header[2] & 15
    size_bytes = {6: 1, 7: 2}.get(code, 0)
    if size_bytes:
        samples = 1 + int.from_bytes(header[at : at + size_bytes], "big")
    else:
        samples = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    at += size_bytes + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    return (number if header[1] & 1 else number * block) + samples


def _crc8(header: bytes) -> int:
    """Return the checksum of a frame's header: polynomial x^8 + x^2 + x + 1."""
    crc = 0
    for byte in header:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x107 if crc & 0x80 else 0)) & 0x1FF
    return crc


def _ogg(content: Content, at: int) -> Iterator[Stream]:
    begin, in_headers = 0, True
    while at >= 0:
        segments = content[at + 26] if at + 27 <= len(content) else 256
        end = at + 27 + segments + sum(content[at + 27 : at + 27 + segments])
        if end > len(content):
            raise Cut("it ends within a page")
        first = bool(content[at + 5] & 2)  # the flag of the first page of a stream
        if first and not in_headers:
            yield Stream(begin, at)
            begin = at
        in_headers = first
        at = end if content[end : end + 4] == b"OggS" else content.find(b"OggS", end)
    yield Stream(begin, len(content))
