"""Files of users: with or without byte-order marks, CRLF or LF, gzipped or not; what cannot be read is named in one line."""

import gzip
import re
from dataclasses import dataclass

import pytest

from hfftools.config import resolve
from hfftools.corpora import unpacking
from hfftools.data.table import read_loosely, read_table
from hfftools.decode.ngram import make, read_texts
from hfftools.log import UserError
from hfftools.text import ctm
from hfftools.text.phones import Phones
from hfftools.textfile import read_lines


@dataclass(frozen=True)
class Options:
    one: int = 1
    two: str = ""


def words(path):
    pytest.importorskip("kenlm", reason="kenlm is not there: pip install 'hff[lm]'")
    from hfftools.decode.lm import words

    return words(path)


ARPA = "\\data\\\nngram 1=4\n\n\\1-grams:\n-99\t<s>\n-1\t</s>\n-1\t<unk>\n-1\téa\u00a0b\n\n\\end\\\n"
FILES = {  # {kind: (content, what reads it)}
    "table": ("a-1 ÉTÉ ICI\na-2\tDEUX\n", lambda path: read_table(path)),
    "table to repair": ("a-1 ÉTÉ ICI\na-2 \t DEUX\n", read_loosely),
    "text": ("ÉTÉ ICI\n\nDEUX  FOIS\n", read_texts),
    "list of words": ("ÉTÉ 3\nICI\n", words),
    "ARPA": (ARPA, words),
    "lexicon of phones": ("ÉTÉ e t e\nICI\ti s i\n", lambda path: Phones(str(path))("ÉTÉ ICI")),
    "CTM": ("a-1 1 0.5 0.25 ÉTÉ\n", ctm.read),
    "yaml": ("one: 3\ntwo: été\n", lambda path: resolve(Options, [path], [])),
    "TSV": ('client_id\tpath\tsentence\na\tb.mp3\tÉté "ici\n', lambda path: list(unpacking.rows(path))),
}
KINDS = pytest.mark.parametrize("kind", FILES)


@KINDS
def test_marks_and_line_ends_change_nothing(tmp_path, kind):
    content, read = FILES[kind]
    path = tmp_path / "clip_durations.tsv"
    path.write_bytes(content.encode())
    expected = read(path)
    assert "\ufeff" not in repr(expected) and "\\r" not in repr(expected)
    for form in ("\ufeff" + content, content.replace("\n", "\r\n"), "\ufeff" + content.replace("\n", "\r\n")):
        path.write_bytes(form.encode())
        assert read(path) == expected
        path.write_bytes(gzip.compress(form.encode()))
        assert read(path) == expected


@KINDS
def test_other_encodings_are_refused_with_the_line_and_the_command(tmp_path, kind):
    content, read = FILES[kind]
    line = next(number for number, line in enumerate(content.split("\n"), 1) if "É" in line.upper())
    path = tmp_path / "user.txt"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=rf"user.txt:{line} is not UTF-8 \(byte \d+ .*0x(C9|E9)\).*iconv -f LATIN1"):
        read(path)
    for encoding in ("utf-16", "utf-16-be"):
        path.write_bytes(content.encode(encoding))
        with pytest.raises(UserError, match="user.txt:1 is not UTF-8 but UTF-16 .*iconv -f UTF-16"):
            read(path)


@KINDS
def test_damaged_and_missing_files_are_named_in_one_line(tmp_path, kind):
    content, read = FILES[kind]
    path = tmp_path / "user.gz"
    whole = gzip.compress(content.encode())
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[: len(whole) // 2], bytes(flipped), whole[:3], whole[:-8] + bytes(8)):
        path.write_bytes(damaged)
        # what unpacks from a flipped byte may be refused for its encoding, before the sum at the end is reached
        with pytest.raises(UserError, match="user.gz(:1)? is (damaged|not UTF-8)") as caught:
            list(read_lines(path))
        assert "\n" not in str(caught.value)
        if kind != "ARPA":  # of which the first section is read alone
            with pytest.raises(UserError, match="user.gz"):
                read(path)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=f"{re.escape(str(missing))} (is missing|cannot be read: Is a directory)"):
            list(read_lines(missing))


def test_joined_files_have_several_marks(tmp_path):
    path = tmp_path / "joined"
    path.write_text("\ufeffONE\n\ufeffTWO\n", encoding="utf-8")
    assert list(read_lines(path)) == ["ONE", "TWO"]


def test_a_language_model_is_read_with_a_mark_and_damage_is_named(tmp_path):
    pytest.importorskip("kenlm", reason="kenlm is not there: pip install 'hff[lm]'")
    from hfftools.decode.lm import Ngram

    content = make(["été ici", "ici"], 2, None, tmp_path).read_bytes()
    path = tmp_path / "user.arpa"
    for form in (content, content.replace(b"\n", b"\r\n")):
        for pack in (bytes, gzip.compress):
            path.write_bytes(pack(b"\xef\xbb\xbf" + form))
            assert "été" in Ngram(path) and "\ufeff" not in Ngram(path)
    packed = bytearray(gzip.compress(content))
    packed[len(packed) // 2] ^= 0xFF
    for damaged in (bytes(packed), gzip.compress(content)[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="user.arpa is damaged, it cannot be unpacked"):
            Ngram(path)


@pytest.mark.parametrize("start", ["\n", "\t\t\n", "clip\tpath\n"])
def test_a_table_without_its_columns_is_no_table_of_common_voice(start, tmp_path):
    (tmp_path / "train.tsv").write_text(f"{start}client_id\tpath\tsentence\na\tb\tc\n")
    with pytest.raises(UserError, match=r"train\.tsv: no column client_id or"):
        list(unpacking.rows(tmp_path / "train.tsv"))
    (tmp_path / "train.tsv").write_text("")
    assert list(unpacking.rows(tmp_path / "train.tsv")) == []


def test_lengths_that_are_no_lengths_are_not_known(tmp_path):
    rows = ["clip\tduration[ms]", "a\t1500", "b\t²", "c\t0", f"d\t{'9' * 400}", "e\t-1"]
    (tmp_path / "clip_durations.tsv").write_text("\n".join(rows), encoding="utf-8")
    assert unpacking.seconds(tmp_path) == {"a": 1.5}


def test_an_error_is_one_line_without_characters_that_act_on_the_terminal(tmp_path):
    assert str(UserError("a\nb\x1b[2J \ud800 é 你\ufeff")) == r"a\nb\x1b[2J \ud800 é 你\ufeff"
    path = tmp_path / "wav.scp"
    path.write_bytes(b"a\x1b[2J\na\x1b[2J\n")
    with pytest.raises(UserError, match=r"wav\.scp:1: 'a\\x1b\[2J' has no value"):
        read_table(path)
