"""Damage the content of a file as disks, transfers, programs, editors and people do; each damage has a number."""

import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

TEXTS = (".yaml", ".json", ".jsonl", ".tsv", ".txt", ".arpa", ".scp", ".ctm", ".csv", ".fileids", ".transcription", "")
ODD_WORDS = (
    "1e308 99999999999999999999 nan inf -1 0 -0.5 null true [] {} '' \" é \u00a0 \u200d ../.. / a|b % = : ,".split(" ")
)
ODD_VALUES = [
    None,
    -1,
    0,
    1e308,
    10**30,
    float("nan"),
    True,
    "",
    "x",
    "é",
    "\ud800",
    "9" * 400,
    [],
    {},
    [None],
    {"a": 1},
]
BOM = b"\xef\xbb\xbf"


def by_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one damage such as disks, transfers and programs do."""
    # headers are short, and most of what can go wrong is in them
    at = rng.randrange(min(len(content), rng.choice((16, 512, len(content)))) or 1)
    size = rng.choice((1, 2, 4, 16, 512))
    new = rng.choice((rng.randbytes(size), b"\0" * size, b"\xff" * size, b"\n" * size))
    return rng.choice(
        (
            lambda: content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
            lambda: content[:at] + new + content[at + size :],
            lambda: content[:at] + new + content[at:],
            lambda: content[:at],
            lambda: content[:at] + content[at + size :],
            lambda: content[: at + size] + content[at:],
            lambda: content + content,
            lambda: content[len(content) // 2 :],
        )
    )()


def by_lines(content: bytes, rng: random.Random) -> bytes:
    """Return the text with one mistake such as people, editors and spreadsheets make."""
    lines = content.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    line = lines[at]
    words = list(re.finditer(rb"[^\s,:\[\]{}\"]+", line))
    if words and rng.random() < 0.5:
        word = rng.choice(words)
        odd = rng.choice([*(word.encode() for word in ODD_WORDS), b"\xe9", b"x" * 300, b"\t", b""])
        lines[at] = line[: word.start()] + odd + line[word.end() :]
        return b"\n".join(lines)
    changed = rng.choice(
        (
            lambda: lines[:at] + lines[at + 1 :],
            lambda: [*lines[: at + 1], *lines[at:]],
            lambda: [*lines[:at], lines[other], *lines[at:]],
            lambda: [*lines[:at], b"", *lines[at:]],
            lambda: [*lines[:at], b"  \t" + line, *lines[at + 1 :]],
            lambda: [*lines[:at], line + rng.choice((b" more", b"\tmore", b" |", b"\0")), *lines[at + 1 :]],
            lambda: [*lines[:at], *line.rsplit(None, 1)[:1], *lines[at + 1 :]],
            lambda: [BOM + lines[0], *lines[1:]],
            lambda: [line + b"\r" for line in lines],
            lambda: [content.decode("utf-8", "replace").encode("utf-16")],
            lambda: lines[::-1],
        )
    )()
    return b"\n".join(changed)


def by_values(content: bytes, rng: random.Random) -> bytes:
    """Return JSON in which one value is another, has another name, or is not there."""
    value = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def collect(part: Any) -> None:
        for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            places.append((part, key))
            collect(part[key])

    collect(value)
    if not places:
        return json.dumps(rng.choice(ODD_VALUES)).encode()
    part, key = rng.choice(places)
    old = part[key]
    odd = [*ODD_VALUES, [old], {"a": old}, str(old)]
    odd += [old + 1, -old, old * 10**9, float(old)] if isinstance(old, (int, float)) else []
    if rng.random() < 0.25:
        del part[key]
    else:
        part[key] = rng.choice(odd)
    return json.dumps(value).encode()


def damage(path: Path, content: bytes, number: int) -> bytes:
    """Return the content of a file after its damage of this number."""
    rng = random.Random(f"{path.name} {number}")
    if path.suffix == ".gz" and rng.random() < 0.3:
        return gzip.compress(by_lines(gzip.decompress(content), rng))
    if path.suffix in (".jsonl", ".json") and rng.random() < 0.5:
        lines = content.rstrip(b"\n").split(b"\n") if path.suffix == ".jsonl" else [content]
        at = rng.randrange(len(lines))
        lines[at] = by_values(lines[at], rng)
        return b"\n".join(lines)
    ways = [by_bytes, by_lines, by_lines] if path.suffix in TEXTS else [by_bytes]
    return b"" if number == 0 else rng.choice(ways)(content, rng)
