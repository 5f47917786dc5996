"""Clips with their speakers in, part of them out: a few from every speaker, or a few speakers whole. The same each time.

A clip is anything with `speaker` and `name`. Their order comes from digests of these, not from that of the list.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol, TypeVar

from hfftools.log import UserError


class Clip(Protocol):
    speaker: str
    name: str


C = TypeVar("C", bound=Clip)


def _rank(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def round_robin(clips: Sequence[C]) -> list[C]:
    """One clip of every speaker, then a second of each that has one, and so on: the beginning is balanced by speaker."""
    taken: Counter[str] = Counter()
    turns = []
    for clip in sorted(clips, key=lambda clip: _rank(clip.name)):
        turns.append((taken[clip.speaker], _rank(clip.speaker), clip))
        taken[clip.speaker] += 1
    return [clip for _, _, clip in sorted(turns, key=lambda turn: turn[:2])]


def hold_out(clips: Sequence[C], share: float, what: str) -> tuple[list[C], list[C]]:
    """(what is left, about `share` of the clips), with no speaker in both; UserError for a single speaker.

    A speaker who would make the part twice as large as asked is passed over.
    """
    counts = Counter(clip.speaker for clip in clips)
    if len(counts) < 2:
        raise UserError(f"{what}: no speaker can be held back, as there is only {len(counts)}")
    target, held, size = share * len(clips), set(), 0
    for speaker in sorted(counts, key=_rank):
        if size < target and size + counts[speaker] <= 2 * target and len(held) < len(counts) - 1:
            held.add(speaker)
            size += counts[speaker]
    held = held or {min(counts, key=lambda speaker: (counts[speaker], speaker))}
    return [c for c in clips if c.speaker not in held], [c for c in clips if c.speaker in held]
