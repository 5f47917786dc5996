"""What was heard of a recording, segment by segment, in; plain text, JSON or SRT subtitles out."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

FORMATS = ("text", "json", "srt")


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and its text, which is not empty."""

    start_s: float
    end_s: float
    text: str


def render(name: str, segments: Sequence[Segment], form: str) -> str:
    """One recording in one of FORMATS, ending in a line break: a line `name<TAB>text`, a JSON object in one line, or SRT.

    JSON has `name` and `segments`, each with `start_s`, `end_s` and `text`. SRT of no segments is empty.
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
    """As SRT spells a time: 01:02:03,456."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"
