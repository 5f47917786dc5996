"""Kill commands at random moments, run each again, and compare what they leave with an uninterrupted run; by hand.

    python tests/kills.py [--kills 50] [--minutes 30] [--seed 1] [--limit 24] [--keep FOLDER]

The commands are the stages of egs/mini on a few utterances, one at a time, then hff-sweep and hff-pretrain. Each is killed
(SIGKILL to it and to all that it started) at a random moment of the time that it took without; then the same command is
run again, twice killed in a round, and at last to its end. Rounds are repeated until there were so many kills, or minutes.
After each round every file must be equal to that of the uninterrupted run, apart from times, memory and logs, and nothing
temporary may be left. The exit status is 0 where that holds.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ("second", "peak", "ledger")  # in the names of keys of what differs from run to run
UNLIKE = ("log.txt", "tensorboard", ".lock", "RESULTS.md", "error_vs_cost_test.png", "log")  # files with times in them


def commands(limit: int) -> dict[str, list[str]]:
    """Return {name: command} in the order of the recipe, to be run in its folder."""
    recipe = ["./run.sh", "--limit", str(limit), "--epochs", "2", "--methods", "hff"]
    stages = {f"stage {n}": [*recipe, "--stage", str(n), "--stop-stage", str(n)] for n in range(1, 7)}
    data = ["upstream=hff_tiny", "data.train=data/train", "data.dev=data/dev", "data.units=data/units", "device=cpu"]
    small = ["task.head_layers=1", "task.head_dim=16", "train.epochs=1"]
    encoder = [
        "encoder.dim=32",
        "encoder.layers=2",
        "encoder.heads=2",
        "targets.clusters=12",
        "steps=12",
        "save_steps=3",
    ]
    sweep = [
        "hff-sweep",
        "exp/rates",
        "--keys",
        "optim.head.lr",
        "--values",
        "1e-3",
        "4e-3",
        "--options",
        *data,
        *small,
    ]
    return stages | {"sweep": sweep, "pretrain": ["hff-pretrain", "exp/pretrain", "data=[data/train]", *encoder]}


@dataclass
class Run:
    """Hold a copy of the recipe's folder, in which commands are run."""

    folder: Path
    log: Path
    kills: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Copy the recipe, without what it made."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        shutil.copytree(
            ROOT / "egs" / "mini",
            self.folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("data", "exp*", "downloads"),
        )
        (self.folder.parents[1] / "utils").unlink(missing_ok=True)  # the recipe's own utils is a link to it
        (self.folder.parents[1] / "utils").symlink_to(ROOT / "utils")

    def start(self, command: list[str]) -> subprocess.Popen:
        with open(self.log, "ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)

    def finish(self, command: list[str]) -> float:
        """Run a command to its end, which must be a success; return its seconds."""
        began = time.monotonic()
        if self.start(command).wait():
            sys.exit(f"{' '.join(command)} failed:\n{self.log.read_text()[-2000:]}")
        return time.monotonic() - began

    def kill(self, name: str, command: list[str], after_s: float) -> None:
        """Run a command, and kill it and all its children if it is not done by then."""
        process = self.start(command)
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            self.kills[name] = self.kills.get(name, 0) + 1
        process.wait()
        if process.returncode > 0:
            sys.exit(f"{' '.join(command)} failed after a kill:\n{self.log.read_text()[-2000:]}")


def unmeasured(value: object) -> object:
    """Return the value of a record without what differs from run to run."""
    if isinstance(value, list):
        return [unmeasured(item) for item in value]
    if isinstance(value, dict):
        return {k: unmeasured(v) for k, v in value.items() if not any(word in str(k) for word in MEASURED)}
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def content(path: Path) -> object:
    """Return what must be the same in two runs."""
    if path.suffix == ".json":
        return unmeasured(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [unmeasured(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".pt":
        return unmeasured(torch.load(path, weights_only=True))
    if path.suffix == ".safetensors":  # its metadata may have times
        return unmeasured(load_file(path))
    return path.read_bytes()


def contents(folder: Path) -> dict[str, object]:
    """Return {file: what must be the same} of all files that a run made."""
    files = [p for part in ("data", "exp") for p in sorted((folder / part).rglob("*")) if p.is_file()]
    kept = [p for p in files if not set(p.relative_to(folder).parts) & set(UNLIKE)]
    return {str(p.relative_to(folder)): content(p) for p in kept}


def differences(wanted: dict[str, object], found: dict[str, object]) -> list[str]:
    """Return a line for each file that is missing, left over, or another one."""
    lines = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    lines += [f"{name} is left over" for name in found.keys() - wanted.keys()]
    return sorted(lines + [f"{name} differs" for name in wanted.keys() & found.keys() if wanted[name] != found[name]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills after which no round begins")
    parser.add_argument("--minutes", type=float, default=30.0, help="minutes after which no round begins")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--limit", type=int, default=24, help="utterances a set")
    parser.add_argument("--keep", type=Path, help="work in this folder, and keep it")
    args = parser.parse_args()
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    began, rng, faults = time.monotonic(), random.Random(args.seed), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        top = args.keep or Path(temporary)
        run = Run(top.resolve() / "egs" / "mini", top.resolve() / "log.txt")
        run.log.parent.mkdir(parents=True, exist_ok=True)
        run.begin()
        took_s = {name: run.finish(command) for name, command in commands(args.limit).items()}
        print("without kills: " + ", ".join(f"{name} {s:.1f} s" for name, s in took_s.items()), flush=True)
        wanted = contents(run.folder)
        while sum(run.kills.values()) < args.kills and time.monotonic() - began < 60 * args.minutes:
            run.begin()
            for name, command in commands(args.limit).items():
                for _ in range(2):
                    run.kill(name, command, rng.uniform(0.1, 1.0) * took_s[name])
                run.finish(command)
            wrong = differences(wanted, contents(run.folder))
            faults += len(wrong)
            print(f"{sum(run.kills.values())} kills, {time.monotonic() - began:.0f} s", *wrong, sep="\n  ", flush=True)
    print("kills: " + ", ".join(f"{name} {count}" for name, count in run.kills.items()))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
