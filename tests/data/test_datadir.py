"""Data directories: what is written is read, in whatever form a user brings it, and what cannot be is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hfftools.audio import waveform
from hfftools.data import datadir, repair
from hfftools.data.datadir import Utterance
from hfftools.data.table import read_table, write_table
from hfftools.data.validation import validate
from hfftools.log import UserError


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_what_is_written_is_read_and_validates(tmp_path, folder, spoken):
    assert datadir.read(folder) == sorted(spoken, key=lambda u: u.id)
    assert validate(folder) == len(spoken)
    before = contents(folder)
    datadir.write(folder, datadir.read(folder))
    assert contents(folder) == before


def test_files_are_sorted_as_sort_does_in_the_c_locale(folder, tmp_path):
    made = [Utterance(f"{c}-1", c, str(tmp_path / "ann-1.wav"), c, duration_s=1.0) for c in "éaZ你𝄞_-\uffee"]
    datadir.write(folder, made)
    for name in ("wav.scp", "text", "utt2spk", "spk2utt"):
        done = subprocess.run(["sort", folder / name], capture_output=True, env={**os.environ, "LC_ALL": "C"})
        assert done.stdout == (folder / name).read_bytes()


def test_segments_come_back(tmp_path, spoken):
    source = spoken[4].source  # 0.9 s
    made = [
        Utterance("a-1", "a", source, "x", 0.0, 0.25, 0.25),
        Utterance("a-2", "a", source, "y", 0.25, None, 0.65),
        Utterance("b-1", "b", f"cat {source} |", "z", 0.5, 0.75, 0.25),
    ]
    datadir.write(tmp_path / "set", made)
    assert datadir.read(tmp_path / "set") == made
    assert validate(tmp_path / "set") == 3
    assert len(read_table(tmp_path / "set" / "wav.scp")) == 2


def test_a_new_set_leaves_nothing_of_an_old_one(tmp_path, folder, spoken):
    source = spoken[0].source
    datadir.write(folder, [Utterance("a-1", "a", source, "x", 0.1, 0.3, 0.2)])
    assert validate(folder) == 1
    datadir.write(folder, [Utterance("a-1", "a", source, None, duration_s=0.5)])
    assert validate(folder, need_text=False) == 1
    assert datadir.read(folder, need_text=False)[0].end_s is None
    assert not (folder / "text").exists() and not (folder / "segments").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"id": "ann-2"}], "'ann-2' is there twice"),
        ([{"id": "a b"}], "'a b'"),
        ([{"speaker": ""}], "cannot be an id"),
        ([{"text": None}], "no transcript"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, changes, words, spoken):
    made = sorted(spoken, key=lambda u: u.id)
    made[0] = Utterance(**{**vars(made[0]), **changes[0]})
    with pytest.raises(UserError, match=words):
        datadir.write(tmp_path / "set", made)
    assert not (tmp_path / "set").exists()


def test_text_is_one_line_however_it_was_given(tmp_path, spoken):
    made = [Utterance("a-1", "a", spoken[0].source, " the\u00a0cat\n\tsat ", duration_s=1.0)]
    datadir.write(tmp_path / "set", made)
    assert datadir.read(tmp_path / "set")[0].text == "the cat sat"


def test_windows_files_tabs_and_byte_order_marks_read_alike(folder):
    plain = datadir.read(folder)
    for path in folder.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "".join(line.replace(" ", " \t", 1) + "\r\n" for line in lines)
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert datadir.read(folder) == plain
    assert validate(folder) == len(plain)


def test_tables_are_written_sorted_and_only_blanks_part_a_key_from_its_value(tmp_path):
    table = {"b": "1  2", "a\u00a0c": "\u3000x", "a": ""}
    write_table(tmp_path / "t", table)
    assert (tmp_path / "t").read_text(encoding="utf-8") == "a\na\u00a0c \u3000x\nb 1  2\n"
    assert read_table(tmp_path / "t", value_required=False) == table


def test_spaces_in_a_path_and_odd_white_space_in_a_name_stay(tmp_path):
    path = tmp_path / "two  spaces\u00a0.wav"
    waveform.save(path, np.zeros(1600))
    datadir.write(tmp_path / "set", [Utterance("a-1", "a", str(path), "x", duration_s=0.1)])
    assert datadir.read(tmp_path / "set")[0].source == str(path)


def test_a_directory_of_wav_scp_and_text_alone_is_read_with_durations_from_the_audio(folder):
    expected = datadir.read(folder)
    for name in ("utt2dur", "utt2num_samples", "utt2spk", "spk2utt"):
        (folder / name).unlink()
    found = datadir.read(folder)
    assert [(u.id, u.text, round(u.duration_s, 4)) for u in found] == [
        (u.id, u.text, round(u.duration_s, 4)) for u in expected
    ]
    assert [u.speaker for u in found] == [u.id for u in found]


def test_a_recording_is_opened_once_for_all_its_segments(tmp_path, spoken):
    source = spoken[4].source  # 0.9 s
    folder = tmp_path / "set"
    folder.mkdir()
    write_table(folder / "wav.scp", {"rec": f"echo run >> {tmp_path}/count; cat {source} |"})
    write_table(folder / "segments", {"a-1": "rec 0.1 -1", "a-2": "rec 0.3 -1", "a-3": "rec 0.2 0.4"})
    found = datadir.read(folder, need_text=False)
    assert [round(u.duration_s, 6) for u in found] == [0.8, 0.6, 0.2]
    assert [u.end_s for u in found] == [None, None, 0.4]
    assert [len(waveform.load(u.source, u.start_s, u.end_s)) for u in found] == [12800, 9600, 3200]
    assert (tmp_path / "count").read_text() == "run\n"
    write_table(folder / "segments", {"a-1": "rec 5 -1"})
    with pytest.raises(UserError, match="segments: 'a-1' starts at 5.0 s, after the end"):
        datadir.read(folder, need_text=False)


def test_missing_directories_and_texts_are_named(tmp_path, folder, spoken):
    for do in (datadir.read, validate):
        with pytest.raises(UserError, match="data directory .*nowhere does not exist"):
            do(tmp_path / "nowhere")
        (folder / "text").unlink(missing_ok=True)
        with pytest.raises(UserError, match="text is missing"):
            do(folder)
    assert validate(folder, need_text=False) == len(datadir.read(folder, need_text=False)) == len(spoken)


def test_checking_a_directory_never_loads_torch(folder):
    code = "import sys; from hfftools.bin.datadir import main; main(); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "validate", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Successfully validated data-directory {folder}\n")


def test_audio_of_another_length_than_the_directory_says_is_refused(tmp_path):
    waveform.save(tmp_path / "a.wav", np.zeros(16000, np.float32))
    for said_s, start_s, end_s in ((0.01, 0.0, None), (1e300, 0.0, None), (1.0, 0.5, None), (0.1, 0.0, 0.5)):
        utterance = Utterance("a", "a", str(tmp_path / "a.wav"), "x", start_s, end_s, said_s)
        with pytest.raises(
            UserError, match=r"'a': its data directory says .* s, but .*a\.wav; run utils/fix_data_dir.sh"
        ):
            datadir.load(utterance)
    rounded = Utterance("a", "a", str(tmp_path / "a.wav"), "x", 0.25, None, 0.8)  # what rounding does is no fault
    assert len(datadir.load(rounded)) == 12000


@pytest.mark.parametrize("name", ["segments", "text", "utt2spk", "utt2dur"])
def test_a_link_to_a_file_that_is_gone_is_a_missing_file_and_not_none(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("gone")
    for check in (validate, repair.fix, lambda folder: datadir.read(folder, need_text=False)):
        with pytest.raises(UserError, match=f"{folder}/{name} is missing"):
            check(folder)
