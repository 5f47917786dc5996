"""Unit ids and the frames they are said in, in; a hypothesis with its words and their times, out."""

from collections.abc import Sequence
from dataclasses import dataclass

from hfftools.text.units import Units


@dataclass(frozen=True)
class Hypothesis:
    """One reading of an utterance: its text, its log score, and when each word is said, in frames of the fused stream."""

    text: str
    score: float
    words: tuple[tuple[str, int, int], ...]  # (word, first frame, end frame); empty where times are not known


def read(units: Units, ids: Sequence[int], spans: Sequence[tuple[int, int]], score: float) -> Hypothesis:
    """The hypothesis of units `ids`, each said in frames [first, end) of `spans`."""
    words: list[tuple[list[int], int, int]] = []
    for unit, (first, end) in zip(ids, spans, strict=True):
        if not words or units.starts_word(unit):
            words.append(([unit], first, end))
        else:
            said, begin, _ = words[-1]
            heard = bool(units.decode(said))  # a bare space is no part of the word it opens
            words[-1] = ([*said, unit], begin if heard else first, end)
    timed = tuple((text, first, end) for said, first, end in words if (text := units.decode(said)))
    return Hypothesis(units.decode(ids), score, timed)


def runs(path: Sequence[int], blank: int = 0) -> tuple[list[int], list[tuple[int, int]]]:
    """The units of a path of one unit a frame, repeats merged and blanks dropped, and the frames of each."""
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    before = blank
    for frame, unit in enumerate(path):
        if unit != blank and unit == before:
            spans[-1] = (spans[-1][0], frame + 1)
        elif unit != blank:
            ids.append(unit)
            spans.append((frame, frame + 1))
        before = unit
    return ids, spans
