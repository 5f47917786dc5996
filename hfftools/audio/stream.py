"""Describe a stream inside an audio file, and offer it to a decoder as a file of its own."""

from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET
from mmap import mmap

Content = bytes | mmap  # of a whole file

PLACEHOLDER_SPAN = 1 << 16  # a header from a pipe says nearly 2 GiB or nearly 4 GiB: nobody knew the length
SPARE_S = 0.25  # how far a header may be off without being wrong; some encoders do not count their delay


class Cut(Exception):
    """Say that a file ends before its header says it does."""


@dataclass(frozen=True)
class Stream:
    """Describe one stream: bytes [start, end) of a file, after a corrected header `head`, where there is one."""

    start: int
    end: int
    head: bytes = b""


class StreamFile:
    """Offer a stream as a file that a decoder can read and seek in."""

    def __init__(self, content: Content, stream: Stream):
        self.content, self.stream, self.at = content, stream, 0
        self.size = len(stream.head) + stream.end - stream.start

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self.at = offset + {SEEK_SET: 0, SEEK_CUR: self.at, SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, count: int = -1) -> bytes:
        count = self.size - self.at if count < 0 else max(0, min(count, self.size - self.at))
        of_head = self.stream.head[self.at : self.at + count]
        start = self.stream.start + self.at + len(of_head) - len(self.stream.head)
        self.at += count
        return of_head + self.content[start : start + count - len(of_head)]

    def readinto(self, buffer) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
