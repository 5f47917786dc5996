"""Data directories gone wrong: each fault is named by the check, and gone once it is fixed, with the originals kept."""

from pathlib import Path

import pytest

from hfftools.data import datadir, repair
from hfftools.data.datadir import Utterance
from hfftools.data.table import read_table, write_table
from hfftools.data.validation import validate
from hfftools.log import UserError


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def line_dropped(name, key):
    def harm(folder):
        table = read_table(folder / name)
        write_table(folder / name, {k: v for k, v in table.items() if k != key})

    return harm


def appended(name, line):
    def harm(folder):
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(line)

    return harm


def replaced(name, old, new):
    def harm(folder):
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return harm


def removed(name):
    return lambda folder: (folder / name).unlink()


def unsorted(folder):
    lines = (folder / "text").read_text(encoding="utf-8").splitlines()
    (folder / "text").write_text("".join(f"{line}\n" for line in reversed(lines)), encoding="utf-8")


def audio_removed(folder):
    Path(read_table(folder / "wav.scp")["ann-2"]).unlink()


def audio_halved(folder):
    path = Path(read_table(folder / "wav.scp")["ann-2"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def audio_doubled(folder):
    path = Path(read_table(folder / "wav.scp")["ann-2"])
    path.write_bytes(path.read_bytes() * 2)


# harm to a good directory, words of the error it must give, utterances left once it is fixed
HARMS = [
    (line_dropped("text", "ann-2"), r"wav.scp: 1 utterances missing from text, first ann-2", 4),
    (line_dropped("wav.scp", "bob-1"), r"text: 1 utterances missing from wav.scp, first bob-1", 4),
    (line_dropped("utt2dur", "bob-9"), r"wav.scp: 1 utterances missing from utt2dur, first bob-9", 4),
    (appended("text", "cat-1 hello\n"), r"text: 1 utterances missing from wav.scp, first cat-1", 5),
    (appended("text", "bob-9 again\n"), r"text:6: 'bob-9' is there twice", 5),
    (appended("text", "\n\n"), r"text:6 is an empty line", 5),
    (replaced("text", "bob-10 a", "bob-10 "), r"text: 1 empty transcripts, first bob-10", 4),
    (replaced("text", "bob-10 a", "bob-10 \u3000"), r"text: 1 empty transcripts, first bob-10", 4),
    (replaced("utt2spk", "ann-2 ann", "ann-2 "), r"utt2spk:2: 'ann-2' has no value", 4),
    (replaced("spk2utt", "ann-2", "ann-3"), r"spk2utt disagrees with utt2spk", 5),
    (removed("spk2utt"), r"spk2utt is missing", 5),
    (removed("utt2spk"), r"utt2spk is missing", 5),
    (unsorted, r"text is not sorted as in the C locale, first at 'bob-10'", 5),
    (replaced("utt2dur", "ann-1 0.9", "ann-1 -0.9"), r"utt2dur: 'ann-1 -0.9", 4),
    (replaced("utt2dur", "ann-1 0.9", "ann-1 nan"), r"utt2dur: 'ann-1 nan", 4),
    (audio_removed, r"wav.scp: 1 audio files do not exist, first .*ann-2.wav", 4),
    (audio_halved, r"wav.scp: 1 recordings cannot be used, first: audio .*ann-2.wav: is cut short", 4),
    (audio_doubled, r"utt2dur: 'ann-2' has 0.800000 s, but 1.60 s of audio are there", 5),
]


@pytest.mark.parametrize(("harm", "words", "left"), HARMS)
def test_harm_is_named_and_fixed(folder, harm, words, left):
    harm(folder)
    before = contents(folder)
    with pytest.raises(UserError, match=f"{folder}/{words}"):
        validate(folder)
    kept, total = repair.fix(folder)
    assert kept == left and total >= kept
    assert validate(folder) == left
    assert {u.speaker for u in datadir.read(folder)} == {"ann", "bob"}
    assert contents(folder / ".backup") == before


@pytest.mark.parametrize(("harm", "words", "left"), [*HARMS, (lambda folder: None, "", 5)])
def test_fixing_twice_changes_nothing_more(folder, harm, words, left):
    harm(folder)
    first = repair.fix(folder)
    after = contents(folder)
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert repair.fix(folder) == (first[0], first[0])
    assert contents(folder) == after
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == stamps


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rec 0.3 0.2", "does not end after it starts"),
        ("rec -0.3 0.2", "does not end after it starts"),
        ("rec -0.3 -1", "does not end after it starts"),
        ("rec nan 0.2", "does not end after it starts"),
        ("rec 0.3", "is not `utt recording start end`"),
        ("rec 0.3 end", "is not `utt recording start end`"),
        ("tape 0.1 0.2", "recording 'tape' of 'bob-1' is missing from wav.scp"),
        ("rec 0.1 1.6", "'bob-1' is from 0.1 s to 1.6 s, but recording 'rec' ends at 0.50 s"),
        ("rec 0.1 0.10001", "'bob-1' is from 0.1 s to 0.10001 s, which is less than a sample"),
        ("rec 1.6 -1", "'bob-1' is from 1.6 s to the end, but recording 'rec' ends at 0.50 s"),
    ],
)
def test_bad_segments_are_named_and_dropped(tmp_path, line, words, spoken):
    source = spoken[0].source
    folder = tmp_path / "set"
    datadir.write(folder, [Utterance(u, u[:3], source, "x", 0.0, 0.2, 0.2) for u in ("ann-1", "bob-1")])
    write_table(folder / "wav.scp", {"rec": source, "unused": source})
    write_table(folder / "segments", {"ann-1": "rec 0.1 0.2", "bob-1": line})
    # what a segment is measured by, its recording, is not opened each time a set is read
    for check in (validate,) if "ends at" in words or "less than" in words else (validate, datadir.read):
        with pytest.raises(UserError, match=f"{folder}/segments: .*{words}"):
            check(folder)
    assert repair.fix(folder) == (1, 2)
    assert validate(folder) == 1 and list(read_table(folder / "wav.scp")) == ["rec"]


def test_fix_leaves_files_of_other_names_alone(folder):
    (folder / "intent").write_text("ann-1 call\nann-2 call\n")
    line_dropped("text", "ann-2")(folder)
    repair.fix(folder)
    assert (folder / "intent").read_text() == "ann-1 call\nann-2 call\n"
    assert validate(folder) == 4


def test_fix_never_empties_a_directory(folder):
    write_table(folder / "text", {"other-1": "x"})
    before = contents(folder)
    with pytest.raises(UserError, match="nothing was changed"):
        repair.fix(folder)
    assert contents(folder) == before and not (folder / ".backup").exists()


def test_fix_and_read_refuse_what_is_not_utf_8(folder):
    (folder / "text").write_bytes("ann-1 caf\xe9\n".encode("latin-1"))
    for do in (datadir.read, validate, repair.fix):
        with pytest.raises(UserError, match="text:1 is not UTF-8"):
            do(folder)


def test_speakers_must_be_prefixes(folder, spoken):
    write_table(folder / "utt2spk", {u: "one" for u in (s.id for s in spoken)})
    write_table(folder / "spk2utt", {"one": " ".join(sorted(s.id for s in spoken))})
    with pytest.raises(UserError, match="speaker 'one' is not a prefix of utterance 'ann-1'"):
        validate(folder)
    (folder / "utt2spk").unlink()
    (folder / "spk2utt").unlink()
    repair.fix(folder)  # as the message says
    assert validate(folder) == len(spoken)
