"""Transcribe hours of audio in hundreds of files, some of them broken, and watch the memory; by hand.

    python tests/soak.py EXP DATA … [--hours 10] [--files 500] [--broken 20] [--seed 1] [--growth 1.1]

EXP is a trained experiment; DATA are data directories, whose utterances, drawn at random, are joined to files of equal
length in four formats. Some are then broken: emptied, cut in half, with a header of zeros, or with text in place of audio.
One hff-transcribe reads all. Every good file must have a text, every broken one must be named in an error and have none,
and the memory of the last fifth of the time must be at most `growth` times that of the second fifth. The exit status is 0
where all of that holds.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from hfftools.audio import waveform
from hfftools.data import datadir

FORMATS = ("wav", "flac", "mp3", "opus")


def make(folder: Path, data: list[str], count: int, file_s: float, rng: random.Random) -> list[Path]:
    """Write `count` recordings of at least `file_s` seconds each; return their paths."""
    utterances = [utterance for directory in data for utterance in datadir.read(directory, need_text=False)]
    paths = []
    for number in range(count):
        parts, length = [], 0
        while length < file_s * waveform.RATE_HZ:
            chosen = rng.choice(utterances)
            parts += [
                waveform.load(chosen.source, chosen.start_s, chosen.end_s),
                np.zeros(waveform.RATE_HZ, np.float32),
            ]
            length += sum(map(len, parts[-2:]))
        paths.append(folder / f"{number:04d}.{FORMATS[number % len(FORMATS)]}")
        form = {"opus": {"format": "OGG", "subtype": "OPUS"}}.get(paths[-1].suffix[1:], {})
        soundfile.write(paths[-1], np.concatenate(parts), waveform.RATE_HZ, **form)
    return paths


def damage(path: Path, number: int) -> None:
    """Break a recording in the way that follows from the number."""
    content = path.read_bytes()
    ways = (b"", content[: len(content) // 2], bytes(64) + content[64:], b"This is no audio.\n" * 100)
    path.write_bytes(ways[number % len(ways)])


def transcribe(exp: str, folder: Path, out: Path, log: Path) -> list[int]:
    """Transcribe a folder; return the bytes of memory, in one sample a second."""
    command = [sys.executable, "-m", "hfftools.bin.transcribe", exp, str(folder), "--out", str(out)]
    samples: list[int] = []
    with open(log, "wb") as to:
        process = subprocess.Popen(command, stdout=to, stderr=to)
        while process.poll() is None:
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            except OSError:
                break
            samples.append(pages * os.sysconf("SC_PAGESIZE"))
            time.sleep(1)
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", help="a trained experiment")
    parser.add_argument("data", nargs="+", help="data directories with audio")
    parser.add_argument("--hours", type=float, default=10.0, help="of audio, all files together")
    parser.add_argument("--files", type=int, default=500, help="number of files, the broken ones included")
    parser.add_argument("--broken", type=int, default=20, help="number of broken files")
    parser.add_argument("--seed", type=int, default=1, help="of what is joined, and which files are broken")
    parser.add_argument("--growth", type=float, default=1.1, help="largest ratio of late to early memory")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder, out, log = (Path(temporary) / name for name in ("audio", "text", "log.txt"))
        folder.mkdir()
        paths = make(folder, args.data, args.files, 3600 * args.hours / args.files, rng)
        broken = rng.sample(paths, args.broken)
        for number, path in enumerate(broken):
            damage(path, number)
        began = time.monotonic()
        samples = transcribe(args.exp, folder, out, log)
        took_s, said = time.monotonic() - began, log.read_text()
        wrong = ["a traceback" for _ in re.finditer("Traceback", said)]
        for path in paths:
            text = out / f"{path.stem}.txt"
            has_text = text.is_file() and text.read_text().strip() != ""
            if path in broken and (has_text or path.name not in said):
                wrong.append(f"{path.name} is broken, but " + ("has a text" if has_text else "is not named"))
            elif path not in broken and not has_text:
                wrong.append(f"{path.name} is whole, but has no text")
    fifth = max(1, len(samples) // 5)
    early, late = median(samples[fifth : 2 * fifth] or samples), median(samples[-fifth:])
    if late > args.growth * early:
        wrong.append("the memory grows")
    print(f"{args.hours:g} h in {args.files} files, {args.broken} broken: {took_s:.0f} s")
    print(
        f"memory: {early / 1e6:.0f} MB early, {late / 1e6:.0f} MB late, {max(samples) / 1e6:.0f} MB at most",
        *wrong,
        sep="\n",
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
