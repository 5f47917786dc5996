"""Damage each kind of file that a user can hand in, and report where that ends in anything but a result or one clear line.

    python tests/fuzz.py [KIND …] [--cases 200] [--seconds 20] [--one KIND READER NUMBER] [--list]

tests/fuzz_kinds.py lists the files and what reads them. A case is one damage to one file, which follows from the file's
name and the case's number; each reader of the file then runs in a process of its own. It passes with a result without NaN,
or with one line of a UserError that names the file, and all other files as they were. The exit status is 0 where all pass.
"""

import argparse
import json
import math
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import damage

from hfftools.log import UserError

LOGS = re.compile(r"log\.txt$|events\.out|\.lock$")  # may grow though a reader refuses its file
MEMORY = 4 << 30  # bytes that a reader may take beyond what the process has already


@dataclass(frozen=True)
class Kind:
    """Describe a file and what reads it: functions by name."""

    path: Path
    readers: dict[str, Callable[[], Any]]
    also: str = r"\A\Z"  # what may stand in a message in place of the file's name, as a regular expression


@dataclass
class Tally:
    """Count what became of the cases of one kind."""

    counts: Counter = field(default_factory=Counter)
    faults: list[tuple[str, str]] = field(default_factory=list)  # (where, case)


class Tree:
    """Keep the content of all files of a folder, so that it can be checked and restored."""

    def __init__(self, root: Path):
        self.root = root
        self.kept = {path: (path.read_bytes(), _stamp(path)) for path in self._files()}

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.root):
            yield from (Path(folder) / name for name in names)

    def changed(self) -> list[Path]:
        """Return the files that are gone or have another content than at first; new files do not count."""
        touched = [path for path, (_, stamp) in self.kept.items() if not path.is_file() or _stamp(path) != stamp]
        return [path for path in touched if not path.is_file() or path.read_bytes() != self.kept[path][0]]

    def restore(self) -> None:
        for path in set(self._files()) - self.kept.keys():
            path.unlink()
        for path, (content, stamp) in self.kept.items():
            if not path.is_file() or _stamp(path) != stamp:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                os.utime(path, ns=(stamp[0], stamp[0]))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def odd_number(value: Any) -> bool:
    """Return whether a result has a number in it that is not finite."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        array = torch.as_tensor(value)
        return array.is_floating_point() and not bool(array.isfinite().all())
    if isinstance(value, dict):
        return any(odd_number(part) for part in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(odd_number(part) for part in value)
    return (
        isinstance(value, float) and not math.isfinite(value) or hasattr(value, "__dict__") and odd_number(vars(value))
    )


def _refused(message: str, kind: Kind) -> str:
    """Return what is wrong with an error message; nothing if it is one line that names the file."""
    if "\n" in message or "\r" in message:
        return "more than one line"
    if any(ord(c) < 32 and c != "\t" for c in message):
        return "control characters"
    if len(message) > 1000 + message.count(str(kind.path)) * len(str(kind.path)):
        return f"{len(message)} characters"
    try:
        message.encode()
    except UnicodeEncodeError:
        return "not to be printed"
    named = kind.path.name in message or re.search(kind.also, message)
    return "" if named else "does not name the file"


def _run(kind: Kind, reader: Callable[[], Any]) -> tuple[str, str]:
    """Return (outcome, words on it) of one reader: passed, refused, or a fault and where it is."""
    try:
        result = reader()
    except (UserError, OSError) as error:
        message = str(error) if isinstance(error, UserError) else f"{error.filename}: {error.strerror}"
        wrong = _refused(message, kind)
        return ("message: " + wrong, message) if wrong else ("refused", message)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/hfftools/" in frame.filename] or frames
        where = f"{ours[-1].filename.rpartition('hfftools/')[2]}:{ours[-1].lineno} {type(error).__name__}"
        return where, f"{error!r:.300}"
    return ("not finite", f"{result!r:.300}") if odd_number(result) else ("passed", "")


def _no_network(*_: Any) -> None:
    raise AssertionError("the network was used")


def try_case(kind: Kind, name: str, number: int, tree: Tree) -> tuple[str, str]:
    """Return (outcome, words on it) of one reader on one damage; afterwards all files are as they were."""
    kind.path.write_bytes(given := damage(kind.path, tree.kept[kind.path][0], number))
    outcome, words = _run(kind, kind.readers[name])
    if outcome == "refused":
        harmed = [path for path in tree.changed() if path != kind.path and not LOGS.search(str(path))]
        harmed += [kind.path] * (not kind.path.exists() or kind.path.read_bytes() != given)
        if harmed:
            outcome = f"{harmed[0].name} was changed"
    tree.restore()
    return outcome, words


def _child(kind: Kind, cases: list[tuple[int, str]], tree: Tree, seconds: int, answers: int) -> None:
    """Try cases in this process, each of which the alarm ends after so many seconds, and write a line for each."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    socket.socket.connect = _no_network  # type: ignore[method-assign]
    with open(answers, "w") as pipe:
        for number, name in cases:
            signal.alarm(seconds)
            print(json.dumps(try_case(kind, name, number, tree)), file=pipe, flush=True)


def _outcomes(kind: Kind, cases: list[tuple[int, str]], tree: Tree, seconds: int) -> Iterator[tuple[str, str]]:
    """Yield (outcome, words on it) of each case; they run in processes of their own, one until it dies."""
    while cases:
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(here)
            _child(kind, cases, tree, seconds, there)
            os._exit(0)
        os.close(there)
        done = 0
        with open(here) as pipe:
            for line in pipe:
                yield tuple(json.loads(line))
                done += 1
        _, status = os.waitpid(child, 0)
        if done < len(cases):
            number = os.WTERMSIG(status)
            yield ("hangs" if number == signal.SIGALRM else f"the process ends with signal {number}"), ""
            tree.restore()
        cases = cases[done + 1 :]


def try_kind(kind: Kind, numbers: range, tree: Tree, seconds: int = 20) -> Tally:
    """Try all readers of a kind on damages of these numbers."""
    tally = Tally()
    cases = list(product(numbers, kind.readers))
    for (number, name), (outcome, words) in zip(cases, _outcomes(kind, cases, tree, seconds), strict=True):
        good = outcome in ("passed", "refused")
        tally.counts[outcome if good else "fault"] += 1
        if not good:
            tally.faults.append((outcome, f"{name} {number}: {words}"))
    return tally


def check_whole(kinds: dict[str, Kind], tree: Tree) -> None:
    """Run each reader on whole files: what is refused there shows nothing."""
    for name, kind in kinds.items():
        for reader, read in kind.readers.items():
            try:
                read()
            except UserError as error:
                raise ValueError(f"{name}, {reader}: {error}") from None
            tree.restore()


def main() -> int:
    from fuzz_kinds import make_kinds

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", help="kinds; all where none is named")
    parser.add_argument("--cases", type=int, default=200, help="damages to each file")
    parser.add_argument("--seconds", type=int, default=20, help="after which a reader hangs")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "READER", "NUMBER"), help="show one case and its traceback")
    parser.add_argument("--list", action="store_true", help="print the kinds and stop")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(folder).resolve()
        kinds = make_kinds(root)
        os.chdir(root)
        tree = Tree(root)
        if args.list:
            print("\n".join(f"{name}: {', '.join(kind.readers)}" for name, kind in kinds.items()))
            return 0
        if args.one:
            kind = kinds[args.one[0]]
            kind.path.write_bytes(damage(kind.path, tree.kept[kind.path][0], int(args.one[2])))
            print(f"{kind.path.read_bytes()[:2000]!r}", file=sys.stderr)
            return print(kind.readers[args.one[1]]()) or 0
        check_whole(kinds, tree)
        total: Counter = Counter()
        faults = 0
        for name, kind in kinds.items():
            if args.which and name not in args.which:
                continue
            tally = try_kind(kind, range(args.cases), tree, args.seconds)
            total += tally.counts
            print(f"{name}: {', '.join(f'{n} {what}' for what, n in sorted(tally.counts.items()))}", flush=True)
            for where, count in Counter(where for where, _ in tally.faults).most_common():
                first = next(case for outcome, case in tally.faults if outcome == where)
                print(f"    {count} × {where}, first {first}", flush=True)
                faults += 1
    print(f"{sum(total.values())} cases: {dict(total)}; {faults} different faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
