"""Text, JSON and SRT."""

import json

from hfftools.text.transcript import Segment, render

SEGMENTS = [Segment(0.0, 1.2344, "ONE TWO"), Segment(3599.9996, 3725.5, "ÜÑ")]


def test_text_is_one_line():
    assert render("a b.wav", SEGMENTS, "text") == "a b.wav\tONE TWO ÜÑ\n"
    assert render("a.wav", [], "text") == "a.wav\t\n"


def test_json_is_one_line_that_reads_back():
    line = render("a.wav", SEGMENTS, "json")
    assert line.count("\n") == 1 and "ÜÑ" in line
    found = json.loads(line)
    assert found["name"] == "a.wav" and found["segments"][0] == {"start_s": 0.0, "end_s": 1.234, "text": "ONE TWO"}


def test_srt_is_numbered_and_timed():
    assert render("a.wav", SEGMENTS, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,234\nONE TWO\n\n2\n01:00:00,000 --> 01:02:05,500\nÜÑ\n"
    )
    assert render("a.wav", [], "srt") == ""
