"""Check that an RF64, BW64, Wave64, AIFF or CAF file has as many bytes of samples as its header promises.

libsndfile reads a file of these formats that was cut as if it were a shorter one, and reports no error.
"""

from dataclasses import dataclass
from typing import Literal

from hfftools.audio.stream import PLACEHOLDER_SPAN, Content, Cut

SPARE = 4096  # bytes that may be missing; a quarter of a second of 8 kHz has as many


@dataclass(frozen=True)
class Layout:
    """Describe how the chunks of a format follow each other: a name, the size of what follows it, and that."""

    samples: bytes  # name of the chunk with the samples
    first: int  # where the first chunk begins
    name: int = 4  # bytes of a chunk's name
    size: int = 4  # bytes of its size
    order: Literal["little", "big"] = "little"  # of the bytes of a size
    includes_head: bool = False  # whether a size counts the name and the size too
    align: int = 2  # chunks begin at multiples of this


# marks at the file's beginning; the sizes of RF64 (EBU Tech 3306) above 4 GiB are in its chunk ds64
LAYOUTS = {
    b"RF64": Layout(b"data", 12),
    b"BW64": Layout(b"data", 12),
    b"riff": Layout(b"data", 40, name=16, size=8, includes_head=True, align=8),
    b"FORM": Layout(b"SSND", 12, order="big"),
    b"caff": Layout(b"data", 8, size=8, order="big", align=1),
}


def check(content: Content) -> None:
    """Raise Cut if the file has one of these formats and ends before its samples do."""
    layout = LAYOUTS.get(content[:4])
    if layout is None:
        return
    at, long_size = layout.first, 0
    head = layout.name + layout.size
    while at + head <= len(content):
        name = content[at : at + 4]
        size = int.from_bytes(content[at + layout.name : at + head], layout.order)
        if name == b"ds64":
            long_size = int.from_bytes(content[at + 16 : at + 24], "little")
        if name == layout.samples:
            there = len(content) - at - head
            unknown = size == 256**layout.size - 1 or min(abs(size - 2**31), abs(size - 2**32)) <= PLACEHOLDER_SPAN
            promised = (long_size if unknown else size) - head * layout.includes_head
            if promised - there > SPARE:
                raise Cut(f"its header promises {promised} bytes of samples, {max(0, there)} are there")
            return
        size += 0 if layout.includes_head else head
        at += max(head, size + -size % layout.align)
    raise Cut("it ends before its samples")
