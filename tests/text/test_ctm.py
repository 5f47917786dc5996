"""CTM files: what is written comes back, in order; a line that is not one is named."""

import pytest

from hfftools.log import UserError
from hfftools.text import ctm
from hfftools.text.ctm import Span


def test_what_is_written_comes_back_in_order(tmp_path):
    spans = {"b-1": [Span(0.111, 0.171, "æ"), Span(0.011, 0.111, "k")], "a-1": [Span(0.0, 12.345, "<unk>")], "c-1": []}
    ctm.write(tmp_path / "set" / "phones.ctm", spans)
    lines = (tmp_path / "set" / "phones.ctm").read_text(encoding="utf-8").splitlines()
    assert lines == ["a-1 1 0.000 12.345 <unk>", "b-1 1 0.011 0.100 k", "b-1 1 0.111 0.060 æ"]
    back = ctm.read(tmp_path / "set" / "phones.ctm")
    assert back == {"a-1": spans["a-1"], "b-1": sorted(spans["b-1"])}
    assert back["b-1"][0].end_s == back["b-1"][1].start_s


def test_channels_confidences_and_any_order_are_read(tmp_path):
    (tmp_path / "x.ctm").write_text("u A 1.5 0.25 there 0.98\n\nu A 1 0.5 hi 1.0\n")
    assert ctm.read(tmp_path / "x.ctm") == {"u": [Span(1.0, 1.5, "hi"), Span(1.5, 1.75, "there")]}


@pytest.mark.parametrize("line", ["u 1 0.5 0.1", "u 1 now 0.1 a", "u 1 -1 0.1 a", "u 1 0.5 -0.1 a", "u 1 nan 0.1 a"])
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "x.ctm").write_text(f"u 1 0 0.5 a\n{line}\n")
    with pytest.raises(UserError, match=rf"x\.ctm:2: '{line}' "):
        ctm.read(tmp_path / "x.ctm")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.ctm is missing"):
        ctm.read(tmp_path / "x.ctm")
