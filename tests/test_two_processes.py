"""Two processes on the same folder: one waits for the other or ends in one line, and what they leave is whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfftools.decode.lm import Ngram
from hfftools.disk import alone, remove_temporary
from hfftools.infer.decode_sets import read_scores
from hfftools.log import UserError
from hfftools.text import units

BUSY = "another process is working in this folder"


def both(*words, other=None):
    """Run a command twice at the same time, the second as `other`; return exit codes and what they said."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", f"hfftools.bin.{command[0]}", *map(str, command[1:])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in (words, other or words)
    ]
    said = [run.communicate()[0] for run in runs]
    assert not any("Traceback" in text for text in said), said
    return [run.returncode for run in runs], said


def is_clean(folder):
    return not list(Path(folder).rglob("*.tmp"))


def test_a_folder_is_one_processes_and_the_other_waits_or_is_told(tmp_path):
    code = "import sys, time; from pathlib import Path; from hfftools.expdir import alone\n"
    code += (
        "with alone(Path(sys.argv[1])): print('has it', flush=True); time.sleep(0.7); Path(sys.argv[1], 'a').touch()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / "x"], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(UserError, match=BUSY), alone(tmp_path / "x"):
        pass
    assert not (tmp_path / "x" / "a").exists()
    with alone(tmp_path / "x", waits=True):
        assert (tmp_path / "x" / "a").exists()
    holder.communicate()


def test_what_cannot_be_written_is_not_locked(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    with alone(tmp_path / "x"):
        assert not list((tmp_path / "x").iterdir())


def test_units_and_models_of_two_texts_are_of_one_of_them(tmp_path):
    for name, words in (("a", "one two three four"), ("b", "fünf sechs sieben acht")):
        (tmp_path / name).mkdir()
        lines = [f"u{n} {words} {words[n % 9:]}".rstrip() + "\n" for n in range(30)]
        (tmp_path / name / "text").write_text("".join(lines), encoding="utf-8")
    make = ["units", "--kind", "char", "--out", tmp_path / "units"]
    codes, _ = both(*make, tmp_path / "a", other=[*make, tmp_path / "b"])
    assert codes == [0, 0] and len(units.load(tmp_path / "units")) > 2
    make = ["lm", "--order", "2", "--out", tmp_path / "lm"]
    codes, _ = both(*make, tmp_path / "a", other=[*make, tmp_path / "b"])
    assert codes == [0, 0] and Ngram(tmp_path / "lm" / "lm.arpa")
    assert is_clean(tmp_path)


@pytest.mark.slow
def test_commands_twice_at_the_same_time(corpus, encoder, options, tmp_path):
    work = tmp_path / "work"
    codes, said = both("extract", "--upstream", encoder, "--out", work / "feats", "--device", "cpu", f"{corpus}/dev")
    assert codes == [0, 0] and sum("is there already" in text for text in said) == 1
    codes, said = both("prepare", "mini", "--out", work / "data", "--limit", "6")
    assert codes == [0, 0] and sum("are there already" in text for text in said) == 1
    codes, said = both("train", work / "exp", *options)
    assert sorted(codes) in ([0, 0], [0, 1]) and (1 not in codes or BUSY in said[codes.index(1)])
    codes, said = both("decode", work / "exp", "device=cpu")
    assert codes == [0, 0] and "wer" in read_scores(work / "exp" / "decode" / "test")
    keys = ["--keys", "optim.head.lr", "--values", "1e-3", "--options", *options]
    codes, said = both("sweep", work / "sweep", *keys)
    assert sorted(codes) in ([0, 0], [0, 1]) and (1 not in codes or BUSY in said[codes.index(1)])
    assert (work / "sweep" / "best.yaml").exists() and is_clean(work)


def test_temporary_files_of_processes_that_ended_are_removed_and_no_others(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [f".a.txt.{gone.pid}.tmp", f".a.txt.{os.getpid()}.tmp", ".mine.tmp", "a.txt"]
    for name in names:
        (tmp_path / name).touch()
    remove_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names[1:])
