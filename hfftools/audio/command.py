"""Run the commands of wav.scp entries `command |`, and make sure that none outlives the process that needs its output."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache

from hfftools.log import UserError

# The shell's input is a pipe whose other end this process holds: it closes however this process ends, even by SIGKILL,
# and then the watcher in the background kills the group. The command itself has no input.
_WATCHED = 'exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec 3<&-; exec /bin/sh -c "$1"'
_running: set[subprocess.Popen] = set()


def parse(source: str) -> str | None:
    """Return the command of a wav.scp entry `command |`; None where the entry is a path."""
    source = source.rstrip()
    return source[:-1].strip() if source.endswith("|") else None


@lru_cache(maxsize=1)  # segments of a recording come one after another: its command runs once for all of them
def output(command: str) -> tuple[bytes, str]:
    """Run a command and return (its standard output, the last line of its standard error).

    It has no standard input and no terminal, and runs in a session of its own, which is killed when this function ends in
    whatever way. Raise UserError with that last line if it fails or writes nothing.
    """
    held_by_child, held_here = os.pipe()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHED, "sh", command],
            stdin=held_by_child,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(held_by_child)
        _running.add(process)
        try:
            stdout, stderr = process.communicate()
        finally:
            _kill(process)
            process.wait()
            _running.discard(process)
    finally:
        os.close(held_here)
    lines = stderr.decode(errors="replace").strip().splitlines() or [""]
    if process.returncode != 0 or not stdout:
        reason = lines[-1].strip() or "no output"
        raise UserError(f"audio command `{command} |` failed with exit code {process.returncode}: {reason}")
    return stdout, lines[-1].strip()


def _kill(process: subprocess.Popen) -> None:
    """Kill a command with all processes of its session's group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads that may run commands; after an error or an interrupt no command runs and none is started."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(_running):  # a thread that waits for its command would keep this process from ending
            _kill(process)
        raise
    finally:
        pool.shutdown()
