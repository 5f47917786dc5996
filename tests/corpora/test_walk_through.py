"""Check CONTRIBUTING.md, "Adding a corpus": its module, put where it says, is a corpus that hff-prepare can prepare."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hfftools.corpora
from hfftools.audio.waveform import save
from hfftools.bin import prepare
from hfftools.data import datadir
from hfftools.data.validation import validate
from hfftools.log import UserError

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def ljspeech(tmp_path, monkeypatch):
    """Put the document's module into the package, and return the path of its file."""
    section = TEXT.split("## Adding a corpus\n")[1]
    path = tmp_path / "corpora" / "ljspeech.py"
    path.parent.mkdir()
    path.write_text(re.search(r"```python\n(.*?)```", section, re.S).group(1))
    monkeypatch.setattr(hfftools.corpora, "__path__", [*hfftools.corpora.__path__, str(path.parent)])
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("hfftools.corpora.ljspeech", None)


@pytest.fixture
def source(tmp_path):
    """Return a folder in LJ Speech's layout: three books with two utterances of a second each."""
    folder = tmp_path / "LJSpeech-1.1"
    names = [f"LJ00{book}-000{number}" for book in (1, 2, 3) for number in (1, 2)]
    for name in names:
        save(folder / "wavs" / f"{name}.wav", np.full(22050, 0.1, np.float32), 22050)
    (folder / "metadata.csv").write_text("".join(f"{name}|Dr. No, {name}|Doctor No, indeed.\n" for name in names))
    return folder


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["hff-prepare", *map(str, words)])
    prepare.main()


def test_the_walk_through_makes_a_corpus_that_is_prepared(ljspeech, source, tmp_path, monkeypatch):
    run(monkeypatch, "ljspeech", "--source", source, "--out", tmp_path / "data", "--limit", 1, "text.case=upper")
    texts = {}
    for name in ("train", "dev", "test"):
        assert validate(tmp_path / "data" / name) == 1
        texts |= {utterance.id: utterance.text for utterance in datadir.read(tmp_path / "data" / name)}
    assert texts == dict.fromkeys(["lj-LJ003-0001", "lj-LJ002-0001", "lj-LJ001-0001"], "DOCTOR NO INDEED")


def test_help_and_show_list_it(ljspeech, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--help")
    assert "ljspeech" in capsys.readouterr().out
    run(monkeypatch, "ljspeech", "--show")
    shown = capsys.readouterr().out
    assert re.search(r"^text: +# how transcripts are normalised$", shown, re.M) and "  case: lower" in shown


def test_its_errors_name_the_place_and_the_download(ljspeech, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for place in (["--source", tmp_path / "empty"], []):
        with pytest.raises(UserError, match="data.keithito.com"):
            run(monkeypatch, "ljspeech", *place, "--out", tmp_path / "data")


def test_its_code_is_in_our_style(ljspeech):
    for command in (["black", "--check", "--line-length", "120"], ["flake8", "--max-line-length", "125"]):
        done = subprocess.run([sys.executable, "-m", *command, str(ljspeech)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
