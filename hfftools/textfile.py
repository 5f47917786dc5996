"""Read files that users hand in: text in UTF-8, with or without a byte-order mark, LF or CRLF, gzipped or not."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from hfftools.log import UserError

GZIP = b"\x1f\x8b"  # the first bytes of a gzipped file
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file's bytes, unpacked if it is gzipped; raise UserError if it cannot be read, or turns out to be damaged."""
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    with file:
        packed = file.peek(2)[:2] == GZIP
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path} is damaged, it cannot be unpacked ({reason}); download or compress it again"
            ) from None


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without their ends; raise UserError if the file cannot be read, or is not UTF-8.

    A byte-order mark is removed from any line that it begins: files that were joined have several.
    """
    with unpacked(path) as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8)
            _check_encoding(path, number, line)
            yield line.decode("utf-8").rstrip("\r\n")


def _check_encoding(path: Path, number: int, line: bytes) -> None:
    """Raise UserError that says how to convert the file, unless the line is UTF-8."""
    if line.startswith(UTF16) or b"\0" in line:
        raise UserError(f"{path}:{number} is not UTF-8 but UTF-16 or no text; convert it with iconv -f UTF-16 -t UTF-8")
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start + 1} of the line is 0x{line[error.start]:02X}"
        raise UserError(
            f"{path}:{number} is not UTF-8 ({wrong}); convert it, as with iconv -f LATIN1 -t UTF-8"
        ) from None
