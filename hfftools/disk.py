"""Deal with the disk: wait until files are on it, where they survive a loss of power; notice that it is full."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfftools.log import UserError

_PROBE_BYTES = 1 << 20


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of names of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Wait until all that was written to the file system of `folder` is on the disk.

    After thousands of small files this takes a fraction of a second, where `sync` of each takes 4 ms or more.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path | str, aside: Path | None = None) -> Iterator[None]:
    """Give the system's error of writing `path` its name; `aside` is a temporary file that is written in its place.

    The writers of torch, safetensors, soundfile and others raise errors of their own where the disk is full, and say
    nothing of it. What the system says when some more bytes are written to `aside` is then raised in their place.
    """
    try:
        try:
            yield
        except Exception as error:  # of any writer
            if aside is not None and not isinstance(error, UserError) and getattr(error, "errno", None) is None:
                _fill(aside)
            raise
    except OSError as error:
        read = error.filename is not None and str(error.filename) not in (str(path), str(aside)) and not error.filename2
        if error.errno is None or read:  # the error is of a file that is read meanwhile
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _fill(file: Path) -> None:
    """Write some more bytes to a file, to see whether the system refuses them."""
    with open(file, "ab") as probed:
        probed.write(bytes(_PROBE_BYTES))
        probed.flush()
        os.fsync(probed.fileno())


def check_room(folder: Path, size_bytes: float, what: str) -> None:
    """Raise UserError unless the disk of `folder`, which exists, has room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise UserError(
            f"{folder}: {what} takes about {size_bytes / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free; make room, or name "
            "a folder on another disk"
        )
