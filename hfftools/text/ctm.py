"""Kaldi's time-marked conversation files, `utterance channel start duration label` a line, in; spans out, and back again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hfftools.expdir import write_text
from hfftools.log import UserError


@dataclass(frozen=True, order=True)
class Span:
    """What is heard from `start_s` to `end_s`, in seconds from the start of the utterance."""

    start_s: float
    end_s: float
    label: str


def write(path: Path | str, spans: Mapping[str, list[Span]]) -> None:
    """Write {utterance: its spans}, to the millisecond, sorted by utterance as in the C locale and by time, channel 1.

    An utterance without spans leaves no line. Written whole or not at all.
    """
    lines = [
        f"{utt} 1 {span.start_s:.3f} {span.end_s - span.start_s:.3f} {span.label}\n"
        for utt in sorted(spans)
        for span in sorted(spans[utt])
    ]
    write_text(Path(path), "".join(lines))


def read(path: Path | str) -> dict[str, list[Span]]:
    """{utterance: its spans in order of time}; channels and confidences, the sixth field, are passed over.

    UserError names the file, and the line that is not one.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    spans: dict[str, list[Span]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            utt, _, start, duration, label = line.split()[:5]
            start_s, duration_s = float(start), float(duration)
        except ValueError:
            raise UserError(f"{path}:{number}: '{line}' is not `utterance channel start duration label`") from None
        if not (0 <= start_s < math.inf and 0 <= duration_s < math.inf):
            raise UserError(f"{path}:{number}: '{line}' does not end after it starts")
        # rounded, so that an end and the start of what follows are one number again
        spans.setdefault(utt, []).append(Span(start_s, round(start_s + duration_s, 6), label))
    return {utt: sorted(found) for utt, found in spans.items()}
