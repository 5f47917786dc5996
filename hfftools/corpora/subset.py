"""Choose a part of a corpus: some clips of every speaker, or all clips of some speakers; the same part each time.

A clip is anything with `speaker` and `name`. The order comes from digests of these two, not from that of the list.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol, TypeVar

from hfftools.log import UserError


class Clip(Protocol):
    """Define what this module reads of a clip."""

    @property
    def speaker(self) -> str: ...

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Clip)


def _rank(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def round_robin(clips: Sequence[C]) -> list[C]:
    """Return the clips in turns, one of every speaker in each turn, so that any first part is balanced by speaker."""
    taken: Counter[str] = Counter()
    turns = []
    for clip in sorted(clips, key=lambda clip: _rank(clip.name)):
        turns.append((taken[clip.speaker], _rank(clip.speaker), clip))
        taken[clip.speaker] += 1
    return [clip for _, _, clip in sorted(turns, key=lambda turn: turn[:2])]


def hold_out(clips: Sequence[C], share: float, what: str) -> tuple[list[C], list[C]]:
    """Return (the other clips, about `share` of the clips), with no speaker in both.

    A speaker who would make the part more than twice as large as asked is left in place. Raise UserError, in the words of
    `what`, if there is only one speaker.
    """
    counts = Counter(clip.speaker for clip in clips)
    if len(counts) < 2:
        raise UserError(f"{what}: no speaker can be held back, as there is only {len(counts)}")
    held: set[str] = set()
    target, size = share * len(clips), 0
    for speaker in sorted(counts, key=_rank):
        if size < target and size + counts[speaker] <= 2 * target and len(held) < len(counts) - 1:
            held.add(speaker)
            size += counts[speaker]
    # every speaker is too large: the smallest, and the first by name among equals
    held = held or {min(counts, key=lambda speaker: (counts[speaker], speaker))}
    return [c for c in clips if c.speaker not in held], [c for c in clips if c.speaker in held]
