"""Deal with the disk: sync files to it, so that they survive a loss of power; notice that it is full; lock folders."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hfftools.log import UserError, log

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


def kept_for_user(folder: str) -> Path:
    """Return $HFF_CACHE or, where it is not set, a folder that begins with ~; raise UserError for a user without a home."""
    try:
        return Path(os.environ.get("HFF_CACHE") or folder).expanduser()
    except RuntimeError:  # as in a container, whose user may be a number without a name
        raise UserError(f"{folder}: this user has no home folder; set HOME or HFF_CACHE to a folder") from None


def check_room(folder: Path, size_bytes: float, what: str) -> None:
    """Raise UserError unless the disk of `folder`, which exists, has room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise UserError(
            f"{folder}: {what} takes about {size_bytes / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free; make room, or name "
            "a folder on another disk"
        )


@contextmanager
def alone(folder: Path, waits: bool = False) -> Iterator[None]:
    """Lock a folder against other processes, and remove temporary files that killed ones left in it.

    Where another process has it, wait if `waits` is true, and raise UserError otherwise. A folder that cannot be written
    to is not locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not waits:
            raise UserError(f"{folder}: another process is working in this folder; wait for it, or stop it") from None
        log.info(f"{folder}: another process is working in this folder; waiting for it")
        lock.acquire()
    try:
        remove_temporary(folder, deep=True)
        yield
    finally:
        lock.release()
        if [path.name for path in folder.iterdir()] == [".lock"]:  # nothing was written: leave no empty folder
            (folder / ".lock").unlink()
            folder.rmdir()


def remove_temporary(folder: Path, deep: bool = False) -> None:
    """Remove the temporary files of `write_aside` that processes which were killed left in a folder, or below it."""
    for left in folder.rglob(".*.*.tmp") if deep else folder.glob(".*.*.tmp"):
        number = left.name.split(".")[-2]
        if left.is_file() and number.isdecimal() and not _runs(int(number)):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Return whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True
