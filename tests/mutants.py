"""Plant faults in formulas, one at a time in a copy of the tree, and report which of them the tests catch; run by hand.

    python tests/mutants.py [ROOM | NUMBER | FIRST-LAST …] [--jobs 2] [--timeout 240] [--unplanted] [--list]

The faults are listed in tests/faults/<room>.txt, and numbered in the order of these files and of their lines:

    = what is wrong
    @ file: the tests that must fail, as pytest names them
    - source text that occurs once in the file (one such line for each line of it)
    + what stands there instead

A fault is caught where a test fails. It survives where all pass, hangs where they are not done by the timeout, and is
broken where no test came to run, as after a SyntaxError. The exit status is 0 where every fault chosen was caught.
"""

import argparse
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("hfftools", "conf", "egs", "tests", "utils", "setup.cfg", "pyproject.toml", "README.md", "CONTRIBUTING.md")
# Outside packages are loaded once, in the process from which each run is forked: loading them takes longer than most tests.
PRELOADED = (
    "torch torchaudio transformers sklearn.cluster jiwer omegaconf sentencepiece soundfile kaldiio pytest scipy.stats"
)
OUTCOMES = {0: "SURVIVED", 1: "caught"}  # by pytest's exit status; anything else did not get as far as a test


@dataclass(frozen=True)
class Fault:
    """Describe a fault: what is wrong, where, and which tests must notice."""

    number: int
    room: str
    says: str
    file: str
    tests: tuple[str, ...]
    old: str
    new: str

    def planted(self, root: Path) -> str | None:
        """Return the file's text with the fault in it; None where the old text does not occur exactly once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 else None


def read_faults() -> list[Fault]:
    """Return the faults of tests/faults/*.txt; raise ValueError for a line that is not of the form above."""
    faults: list[Fault] = []
    for path in sorted((ROOT / "tests" / "faults").glob("*.txt")):
        for block in path.read_text(encoding="utf-8").split("\n= ")[1:]:
            says, where, *lines = block.strip("\n").split("\n")
            file, _, tests = where.removeprefix("@ ").partition(": ")
            texts = {"-": [], "+": []}
            for line in filter(None, lines):
                if line[:2] not in ("- ", "+ "):
                    raise ValueError(f"{path}: '{line}' begins with neither '- ' nor '+ '")
                texts[line[0]].append(line[2:])
            old, new = ("\n".join(texts[sign]) for sign in "-+")
            faults.append(Fault(len(faults) + 1, path.stem, says, file, tuple(tests.split()), old, new))
    return faults


def _run_tests(tree: str, tests: tuple[str, ...], log: str) -> None:
    """Leave the process with the exit status of pytest on these tests of the tree, which stop at the first failure."""
    os.setsid()  # a group, so that whatever the tests start is ended with them
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = tree
    sys.path.insert(0, tree)
    import pytest

    # without cached bytecode, which takes two texts of one length and second for the same
    sys.dont_write_bytecode = True
    os._exit(int(pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", "--tb=short"])))


@contextmanager
def _with_fault(fault: Fault, tree: Path):
    """Have the fault in the tree's file for as long as the block runs; a fault that does not apply changes nothing."""
    path = tree / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(fault.planted(tree) or text, encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def try_one(fault: Fault, trees: queue.Queue, timeout: float, unplanted: bool) -> tuple[str, float]:
    """Return what became of a fault, and the seconds that it took."""
    tree, start = trees.get(), time.monotonic()
    if fault.planted(tree) is None:
        trees.put(tree)
        return "does not apply", 0.0
    clean = Fault(0, "", "", fault.file, (), fault.old, fault.old)
    with _with_fault(clean if unplanted else fault, tree):
        process = get_context("forkserver").Process(
            target=_run_tests, args=(str(tree), fault.tests, str(tree.parent / f"{fault.number}.log"))
        )
        process.start()
        process.join(timeout)
        hangs = process.is_alive()
        if hangs:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
    trees.put(tree)
    return "hangs" if hangs else OUTCOMES.get(process.exitcode, "BROKEN"), time.monotonic() - start


def chosen(faults: list[Fault], words: list[str]) -> list[Fault]:
    """Return the faults that words name: rooms, numbers, or first and last numbers; all without words."""
    rooms = {fault.room for fault in faults}
    numbers: set[int] = set()
    for word in words:
        if word not in rooms:
            first, _, last = word.partition("-")
            numbers |= set(range(int(first), int(last or first) + 1))
    return [fault for fault in faults if not words or fault.room in words or fault.number in numbers]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", help="rooms, numbers, or first-last; all where none is named")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds after which a fault hangs")
    parser.add_argument(
        "--unplanted", action="store_true", help="run the same tests without the faults: all must survive"
    )
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    args = parser.parse_args()
    faults = chosen(read_faults(), args.which)
    if args.list:
        print("\n".join(f"{f.number:4d} {f.room:10s} {f.says}" for f in faults))
        return 0
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    get_context("forkserver").set_forkserver_preload(PRELOADED.split())
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(args.jobs) as pool:
        trees: queue.Queue = queue.Queue()
        for job in range(args.jobs):
            tree = Path(folder) / str(job) / "tree"
            for part in PARTS:
                copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
                (tree / part).parent.mkdir(parents=True, exist_ok=True)
                copy(ROOT / part, tree / part)
            trees.put(tree)
        runs = [pool.submit(try_one, fault, trees, args.timeout, args.unplanted) for fault in faults]
        for fault, run in zip(faults, runs, strict=True):
            outcome, seconds = run.result()
            counts.setdefault(outcome, []).append(fault.number)
            print(f"{fault.number:4d} {outcome:14s} {seconds:6.1f} s  {fault.room:9s} {fault.says}", flush=True)
            if outcome == "BROKEN":
                logs = Path(folder).glob(f"*/{fault.number}.log")
                print("".join(log.read_text()[-2000:] for log in logs))
    for outcome, numbers in counts.items():
        print(f"{outcome}: {len(numbers)} of {len(faults)}" + ("" if outcome == "caught" else f": {numbers}"))
    return int(set(counts) != {"SURVIVED" if args.unplanted else "caught"})


if __name__ == "__main__":
    sys.exit(main())
