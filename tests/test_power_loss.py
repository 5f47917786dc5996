"""Power is lost after any write, sync, renaming or removal: what is left on the disk is enough to go on from."""

import os
import shutil

import numpy as np
import pytest
import torch

from hfftools import disk, expdir
from hfftools.decode import ngram
from hfftools.expdir import write_json
from hfftools.log import UserError
from hfftools.records import read_json
from hfftools.text import units
from hfftools.train import checkpoint
from hfftools.train.job import train
from hfftools.upstream import state_cache
from hfftools.upstream.state_cache import HiddenCache

STATES = {f"u{n}": {layer: np.full((4, 3), 10 * n + layer, np.float32) for layer in (0, 1)} for n in range(3)}
MADE_FROM = {"upstream": "a", "data": "b"}


class Disk:
    """Record, at each renaming, removal and sync in a folder, what a loss of power could leave of it.

    The names are those of the moment, which file systems with a journal keep in order. A file's content is that of its
    last sync, and nothing if there was none.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self.synced, self.left = folder, {}, []
        for owner, name in (
            (os, "replace"),
            (os, "unlink"),
            (expdir, "sync"),
            (state_cache, "sync"),
            (state_cache, "sync_all"),
        ):
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name)))

    def watched(self, function):
        def watching(path, *others, **options):
            self.keep()
            result = function(path, *others, **options)
            if function in (disk.sync, disk.sync_all):
                every = self.files() if function is disk.sync_all else [path] if os.path.isfile(path) else []
                self.synced |= {os.stat(file).st_ino: file.read_bytes() for file in every}
            self.keep()
            return result

        return watching

    def files(self):
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def keep(self):
        self.left.append({path: self.synced.get(path.stat().st_ino, b"") for path in self.files()})


def put_back(folder, left):
    """Make a folder hold what a loss of power left: {path: content}."""
    shutil.rmtree(folder)
    folder.mkdir()
    for path, content in left.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_cache(folder, form="float32"):
    cache = HiddenCache(folder, "dev")
    if cache.lacks([0, 1], MADE_FROM):
        cache.write(STATES.items(), [0, 1], "x", MADE_FROM, form)
    assert all(np.array_equal(cache.read(utt, [1])[1], STATES[utt][1]) for utt in STATES)


def write_archives(folder):
    write_cache(folder, "kaldi")


def write_units(folder):
    made = units.make("bpe", ["one two three"] * 9, 12, folder / "units")
    assert units.load(folder / "units").digest == made.digest


def write_lm(folder):
    path = ngram.make(["a b c", "b c d"], 2, None, folder / "lm")
    assert path.read_text().endswith("\\end\\\n") and (folder / "lm" / "words.txt").read_text() == "a\nb\nc\nd\n"


def write_record(folder):
    path = folder / "a.json"
    assert not path.exists() or read_json(path, {"n": int})["n"] in (1, 2)
    write_json(path, {"n": 1})
    write_json(path, {"n": 2})


@pytest.mark.parametrize("command", [write_cache, write_archives, write_units, write_lm, write_record])
def test_what_a_loss_of_power_leaves_is_gone_on_from(command, tmp_path, monkeypatch):
    folder = tmp_path / "disk"
    folder.mkdir()
    with monkeypatch.context() as watch:
        record = Disk(folder, watch)
        command(folder)
    assert len(record.left) > 8
    for left in record.left:
        put_back(folder, left)
        command(folder)


def test_a_training_goes_on_from_what_a_loss_of_power_leaves(options, tmp_path, monkeypatch):
    folder = tmp_path / "disk" / "exp"

    def weights():
        return checkpoint.read(train(folder, [], [*options, "train.save_minutes=0", "fuse.name=hff"]).final)[0]

    folder.parent.mkdir()
    with monkeypatch.context() as watch:
        record = Disk(folder.parent, watch)
        wanted = weights()
    assert len(record.left) > 40
    for left in record.left[3 :: len(record.left) // 8]:  # a sample of the moments, evenly
        put_back(folder.parent, left)
        found = weights()
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_without_a_sync_the_simulation_finds_the_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "sync", lambda path: None)
    monkeypatch.setattr(expdir, "sync", lambda path: None)
    record = Disk(tmp_path, monkeypatch)
    write_json(tmp_path / "a.json", {"n": 1})
    record.keep()
    (tmp_path / "b.json").write_bytes(record.left[-1][tmp_path / "a.json"])
    with pytest.raises(UserError, match="is empty"):
        read_json(tmp_path / "b.json", {"n": int})
