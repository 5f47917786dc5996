"""Format the recognised segments of a recording as plain text, JSON or SRT subtitles."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

FORMATS = ("text", "json", "srt")


@dataclass(frozen=True)
class Segment:
    """Describe a part of a recording and its recognised text, which is not empty."""

    start_s: float
    end_s: float
    text: str


def render(name: str, segments: Sequence[Segment], form: str) -> str:
    """Return one recording in one of FORMATS, ending in a line break (SRT without segments is empty).

    text: one line `name<TAB>text`. json: one line, an object with `name` and `segments` (`start_s`, `end_s`, `text`).
    """
    if form == "text":
        return f"{name}\t{' '.join(segment.text for segment in segments)}\n"
    if form == "json":
        rounded = [{**asdict(s), "start_s": round(s.start_s, 3), "end_s": round(s.end_s, 3)} for s in segments]
        return json.dumps({"name": name, "segments": rounded}, ensure_ascii=False) + "\n"
    captions = (
        f"{number}\n{_clock(s.start_s)} --> {_clock(s.end_s)}\n{s.text}\n" for number, s in enumerate(segments, 1)
    )
    return "\n".join(captions)


def _clock(seconds: float) -> str:
    """Format a time as SRT does: 01:02:03,456."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"
