"""Read and write CTM files (time-marked conversation): one line `utterance channel start duration label` per span."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hfftools.expdir import write_text
from hfftools.log import UserError
from hfftools.textfile import read_lines


@dataclass(frozen=True, order=True)
class Span:
    """Describe a labelled span, with times in seconds from the start of the utterance."""

    start_s: float
    end_s: float
    label: str


def write(path: Path | str, spans: Mapping[str, list[Span]]) -> None:
    """Write {utterance: spans} atomically, sorted by id in the C locale and by time; seconds with three decimals, channel 1.

    An utterance without spans has no line.
    """
    lines = []
    for utt in sorted(spans):  # by code points, which is the C locale's order of UTF-8
        for span in sorted(spans[utt]):
            lines.append(f"{utt} 1 {span.start_s:.3f} {span.end_s - span.start_s:.3f} {span.label}\n")
    write_text(Path(path), "".join(lines))


def read(path: Path | str) -> dict[str, list[Span]]:
    """Return {utterance: spans sorted by time}; channels and confidences (the sixth field) are ignored.

    Raise UserError with the file and line number if a line is malformed.
    """
    path = Path(path)
    spans: dict[str, list[Span]] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            utt, _, start, duration, label = line.split()[:5]
            start_s, duration_s = float(start), float(duration)
        except ValueError:
            raise UserError(f"{path}:{number}: '{line}' is not `utterance channel start duration label`") from None
        if not (0 <= start_s < math.inf and 0 <= duration_s < math.inf):  # also false for NaN, which float() accepts
            raise UserError(f"{path}:{number}: '{line}' does not end after it starts")
        # rounded, so that the end of a span equals the start of an adjacent one despite floating-point error
        spans.setdefault(utt, []).append(Span(start_s, round(start_s + duration_s, 6), label))
    return {utt: sorted(unsorted) for utt, unsorted in spans.items()}
