"""What decoding gives: one reading of an utterance, with its score and the times of its words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One reading of an utterance: its text, its log score, and when each word is said, in frames of the fused stream."""

    text: str
    score: float
    words: tuple[tuple[str, int, int], ...]  # (word, first frame, end frame); empty where times are not known
