"""Make a hypothesis, a text with the times of its words, from unit ids and the frames of each unit."""

from collections.abc import Sequence
from dataclasses import dataclass

from hfftools.text.units import Units


@dataclass(frozen=True)
class Hypothesis:
    """Describe one reading of an utterance: its text, its log score, and its words with their frames in the fused stream."""

    text: str
    score: float
    words: tuple[tuple[str, int, int], ...]  # (word, first frame, end frame); empty where times are not known


def read(units: Units, ids: Sequence[int], spans: Sequence[tuple[int, int]], score: float) -> Hypothesis:
    """Return the hypothesis of the units `ids`, each of which lasts over the frames [first, end) of `spans`."""
    words: list[tuple[list[int], int, int]] = []
    for unit, (first, end) in zip(ids, spans, strict=True):
        if not words or units.starts_word(unit):
            words.append(([unit], first, end))
        else:
            spelled, begin, _ = words[-1]
            # a bare space opens a word, but the time between words is not part of the word
            has_letters = bool(units.decode(spelled))
            words[-1] = ([*spelled, unit], begin if has_letters else first, end)
    timed = [(units.decode(spelled), first, end) for spelled, first, end in words]
    return Hypothesis(units.decode(ids), score, tuple(word for word in timed if word[0]))


def runs(path: Sequence[int], blank: int = 0) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the units of a path, which has one unit per frame, without repeats and blanks; and the frames of each."""
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
