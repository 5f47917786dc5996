"""A command replaces what it has made itself, and nothing of the user's or of another command."""

from pathlib import Path

import numpy as np
import pytest

from hfftools.audio.waveform import save
from hfftools.corpora import mini
from hfftools.corpora.prepare import prepare
from hfftools.data import datadir, perturb
from hfftools.data.datadir import Utterance
from hfftools.decode import ngram
from hfftools.log import UserError
from hfftools.records import read_json
from hfftools.text import units


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def a_set(folder: Path, name: str) -> Path:
    """A data directory of two utterances of the speaker `name`."""
    utterances = []
    for number in range(2):
        wav = folder.parent / f"{name}{number}.wav"
        save(wav, np.random.default_rng(number).normal(0, 0.1, 8000).astype(np.float32))
        utterances.append(Utterance(f"{name}-{number}", name, str(wav), "go home", duration_s=0.5))
    datadir.write(folder, utterances)
    return folder


def test_labels_of_the_user_are_not_replaced_before_a_set_is_refused(tmp_path):
    a_set(tmp_path / "data" / "dev", "mine")
    (tmp_path / "data" / "dev" / "intent").write_text("mine-0 greet\n")
    before = files(tmp_path / "data")
    with pytest.raises(UserError, match="data/dev is there already, and hff-prepare mini did not make it"):
        prepare("mini", None, tmp_path / "data", limit=1)
    assert {path: old for path, old in files(tmp_path / "data").items() if path in before} == before


def test_a_corpus_does_not_replace_the_set_of_another_or_of_the_user(tmp_path, monkeypatch):
    out, wanted = tmp_path / "data", {"train": "a"}

    def sets(source, out, limit=None):
        return {name: datadir.read(a_set(tmp_path / "made" / name, speaker)) for name, speaker in wanted.items()}

    monkeypatch.setattr(mini, "sets", sets)
    monkeypatch.setattr(mini, "GENERATED", ("train",))  # what is known before the sets are made
    prepare("mini", None, out)
    assert read_json(out / ".mini.json", {"made": [str]})["made"] == ["train"]
    wanted.update({"train": "b", "dev": "c"})  # what it has made itself is made again where it is asked otherwise
    assert prepare("mini", None, out, limit=9) == ["train", "dev"]
    del wanted["dev"]
    prepare("mini", None, out, limit=8)
    wanted["dev"] = "d"
    prepare("mini", None, out, limit=7)
    assert datadir.read(out / "dev")[0].id == "d-0"
    a_set(out / "test", "mine")
    wanted["test"] = "e"
    before = files(out)
    with pytest.raises(UserError, match="data/test is there already, and hff-prepare mini did not make it"):
        prepare("mini", None, out, limit=6)
    assert files(out) == before
    (out / ".mini.json").rename(out / ".an4.json")
    with pytest.raises(UserError, match="data/train is there already"):
        prepare("mini", None, out)


def test_a_killed_preparation_is_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "sets", lambda *_: {"train": datadir.read(a_set(tmp_path / "made", "a"))})
    with monkeypatch.context() as killed:
        killed.setattr("hfftools.corpora.prepare.validate", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare("mini", None, tmp_path / "data")
    assert prepare("mini", None, tmp_path / "data") == ["train"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_takes_an_utterance_or_more(limit, tmp_path):
    with pytest.raises(UserError, match=f"--limit: {limit} is not above 0"):
        prepare("mini", None, tmp_path / "data", limit)


def test_copies_at_other_speeds_do_not_replace_another_set(tmp_path):
    train, dev = a_set(tmp_path / "train", "a"), a_set(tmp_path / "dev", "b")
    before = files(dev)
    with pytest.raises(UserError, match="dev holds a set of other utterances, first b-0"):
        perturb.speed(train, dev, [0.9])
    assert files(dev) == before
    perturb.speed(train, tmp_path / "copies", [0.9, 1.0])
    assert perturb.speed(train, tmp_path / "copies", [1.1, 1.0]) == 4


@pytest.mark.parametrize("name", ["lm.arpa", "words.txt"])
def test_a_language_model_does_not_replace_another(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} is there already, and hff-lm did not write it"):
        ngram.make(["go home"], 2, None, tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    ngram.make(["go home"], 2, None, tmp_path)
    (tmp_path / "lm.json").write_text("{}")  # as a kill leaves it
    assert ngram.make(["go on"], 2, None, tmp_path).exists()


@pytest.mark.parametrize("name", ["units.txt", "text"])
def test_units_are_not_written_among_files_of_others(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="holds files that hff-units did not write"):
        units.make("char", ["go home"], None, tmp_path)
    assert files(tmp_path) == {tmp_path / name: b"mine"}


def test_units_whose_first_making_was_killed_are_made_again(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(units, "write_text", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            units.make("char", ["go home"], None, tmp_path)
    assert len(units.make("char", ["go home"], None, tmp_path)) == 8
