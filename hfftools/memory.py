"""Say in one line that memory ran out: in which batch, at which utterance, and which option makes batches smaller.

Who computes on a batch announces it by `work_on`; hfftools/cli.py asks `explain` about the error that ended a command.
What is too large before there is a batch, the layers that options ask for, is named by `building`.
The batch is a global value, since the error may come from any depth: loading, forward, backward or a worker process.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hfftools.log import UserError

# What torch, numpy, oneDNN, the libraries of a GPU and the system say, as RuntimeError, MemoryError or OSError. "primitive
# descriptor" is left out: with it oneDNN says that the processor lacks an operation.
_FULL = re.compile(
    r"out of memory|not enough memory|can('t|not) allocate memory|Unable to allocate|MemoryError|bad_alloc|_ALLOC_FAILED"
    r"|could not create a primitive(?! descriptor)|can't start new thread|killed by signal: Killed",
    re.IGNORECASE,
)
# Worker processes hand over batches in shared memory, by default with an open file for each tensor.
_SHARED = re.compile(
    r"shared memory|signal: Bus error|worker .*exited unexpectedly|Too many open files|unable to .*/torch_|items of ancdata"
)
# What torch and Python say of sizes beyond 64 bits.
_OVERFLOW = re.compile(r"overflow|too large", re.IGNORECASE)
_SHORTER = "lower data.batch_seconds (hff-probe and hff-pretrain: batch_seconds, hff-extract: --batch-seconds)"
_NO_PROCESSES = "set data.workers=0 (hff-probe: workers=0, hff-extract: --workers 0)"

_in_use: tuple[int, str, float] | None = None  # utterances of the batch; the longest one and its seconds


def work_on(ids: Sequence[str], seconds: Sequence[float]) -> None:
    """Announce the utterances of the batch that is loaded and computed next; none: no batch is in use any more."""
    global _in_use
    longest = max(range(len(ids)), key=lambda row: seconds[row], default=None)
    _in_use = None if longest is None else (len(ids), ids[longest], seconds[longest])


def explain(error: BaseException) -> str | None:
    """Return the line that tells the user where memory ran out and what to do, or None if `error` is another one."""
    lines = str(error).strip().splitlines()
    shared = next((line for line in lines if _SHARED.search(line)), None)
    if shared is not None:
        reason = _short(shared)
        return (
            f"a process that loads audio ran out of shared memory, memory or open files ({reason}); {_NO_PROCESSES}, or "
            "give more: `--shm-size=1g` of docker run, `ulimit -n 4096`"
        )
    if not ran_out(error):
        return None
    reason = next((line for line in reversed(lines) if _FULL.search(line)), "")
    why = f" ({_short(reason)})" if reason else ""
    if _in_use is None:
        return f"out of memory{why}; {_SHORTER}, or free memory"
    count, utt, seconds = _in_use
    if count == 1:
        return (
            f"out of memory at {utt} of {seconds:.1f} s, alone in its batch{why}; divide it by the file segments, leave it "
            f"out, or {_SHORTER} if that is above {seconds:.0f}"
        )
    return f"out of memory in a batch of {count} utterances, the longest {utt} of {seconds:.1f} s{why}; {_SHORTER}"


@contextmanager
def building(options: Mapping[str, Any], prefix: str = "") -> Iterator[None]:
    """Raise UserError where what is built from `options` does not fit into memory; `prefix` begins their names.

    The option that is named is the largest whole number among them.
    """
    try:
        yield
    except (RuntimeError, MemoryError, TypeError, OverflowError, ValueError) as error:
        sizes = {name: value for name, value in options.items() if type(value) is int}
        if not sizes or not (ran_out(error) or _OVERFLOW.search(str(error))):
            raise
        name = max(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"{prefix}{name}: {sizes[name]} is too large, what is built of that size does not fit into memory; lower it"
        ) from None


def ran_out(error: BaseException) -> bool:
    """Return whether the error says that memory, of the processor or of a GPU, ran out."""
    return isinstance(error, MemoryError) or _FULL.search(str(error)) is not None


def _short(line: str) -> str:
    """Return a line of an error message without torch's place in its source, and cut to a length that can be read."""
    line = re.sub(r"^\s*\[enforce fail at [^]]*\]( err == 0\.)?", "", line).strip()
    return line if len(line) <= 150 else line[:149] + "…"
