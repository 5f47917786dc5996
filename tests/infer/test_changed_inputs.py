"""What is made from an input that has changed since is refused by name or made again; a file only touched is the same."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hfftools.data import datadir
from hfftools.data.inputs import file_digest
from hfftools.infer.decode_sets import decode, refuse_stale
from hfftools.log import UserError
from hfftools.probe.job import probe
from hfftools.text import units
from hfftools.train.job import train
from hfftools.upstream.checkpoint_files import cache_file
from hfftools.upstream.extract import extract

OLD_NS = 10**18  # a time of files long ago, at which sizes and times are trusted


class Made:
    """A training, its decodes and hidden states, each of files of its own."""

    def __init__(self, root: Path, corpus: Path, encoder: Path):
        self.root, self.exp, self.feats = root, root / "exp", root / "feats"
        for name, number in (("train", 8), ("dev", 3), ("test", 3)):
            chosen = []
            for utt in datadir.read(corpus / name)[:number]:
                file = root / f"{utt.id}.wav"
                shutil.copy(utt.source, file)
                chosen.append(replace(utt, source=str(file)))
            datadir.write(root / name, chosen)
        shutil.copy(encoder, root / "encoder.safetensors")
        units.train("char", [u.text for u in datadir.read(root / "train")], None, root / "units")
        self.utts = {name: datadir.read(root / name) for name in ("train", "test")}
        for file in root.rglob("*"):
            os.utime(file, ns=(OLD_NS, OLD_NS))

    def training(self, name: str = "exp", *more: str) -> None:
        train(self.root / name, [], [
            f"upstream={self.root}/encoder.safetensors", f"data.train={self.root}/train", f"data.dev={self.root}/dev",
            f"data.test=[{self.root}/test]", f"data.units={self.root}/units", "task.head_dim=8", "task.head_layers=1",
            "train.epochs=1", "data.workers=0", "device=cpu", "train.bf16=false", *more,
        ])  # fmt: skip

    def decodes(self) -> None:
        decode([self.exp], [], ["device=cpu"])

    def score(self) -> None:
        refuse_stale(self.exp / "decode" / "test")

    def states(self) -> None:
        extract(
            f"{self.root}/encoder.safetensors", [str(self.root / "test")], self.feats, "all", 20.0, torch.device("cpu")
        )

    def change(self, what: str, name: str) -> Path:
        """Change an input of the set `name`, and return its file."""
        file = self.root / {"text": f"{name}/text", "weights": "encoder.safetensors"}.get(what, "")
        if what == "audio":
            file = Path(self.utts[name][0].source)
        content = bytearray(file.read_bytes())
        if what == "text":
            content[-2:-1] = content[-3:-2]  # the last letter
        else:
            content[-1] ^= 1
        file.write_bytes(content)
        return file


@pytest.fixture(scope="module")
def made(corpus, encoder, tmp_path_factory):
    one = Made(tmp_path_factory.mktemp("made"), corpus, encoder)
    for product in (one.training, one.decodes, one.states):
        product()
    return one


REFUSED, AGAIN = "refused", "made again"
CASES = [
    ("training", "audio", "train", REFUSED, "data.train: audio"),
    ("training", "text", "train", REFUSED, "data.train: text"),
    ("training", "weights", "train", REFUSED, "upstream"),
    ("decodes", "weights", "test", REFUSED, "other weights"),
    ("decodes", "audio", "test", AGAIN, "data: audio"),
    ("decodes", "text", "test", AGAIN, "data: text"),
    ("score", "audio", "test", REFUSED, "data: audio"),
    ("score", "text", "test", REFUSED, "data: text"),
    ("states", "audio", "test", AGAIN, "data: audio"),
    ("states", "weights", "test", AGAIN, "upstream"),
]


@pytest.mark.parametrize("product, what, name, becomes, named", CASES, ids=lambda value: str(value).replace(" ", "_"))
def test_a_changed_input_is_noticed(product, what, name, becomes, named, made, caplog):
    run, before = getattr(made, product), {p: p.read_bytes() for p in made.root.glob("*.*")}
    before |= {p: p.read_bytes() for p in made.root.glob("t*/text")}
    file = made.change(what, name)
    caplog.set_level(logging.INFO, "hff")
    if becomes == REFUSED:
        with pytest.raises(UserError, match=named):
            run()
    else:
        run()
        assert "again" in caplog.text and named in caplog.text
    file.write_bytes(before[file])
    run()


@pytest.mark.parametrize("product", ["training", "decodes", "score", "states"])
def test_what_was_only_touched_is_the_same(product, made, caplog):
    for file in made.root.glob("**/*.wav"):
        os.utime(file)
    os.utime(made.root / "encoder.safetensors")
    caplog.set_level(logging.INFO, "hff")
    getattr(made, product)()
    assert "again" not in caplog.text
    assert product == "score" or "there already" in caplog.text or "nothing to train" in caplog.text


def test_states_in_8_bits_are_another_input_than_those_in_16(made, caplog, monkeypatch):
    encoder, sets = f"{made.root}/encoder.safetensors", [f"{made.root}/{name}" for name in ("train", "dev", "test")]
    for form in ("float16", "int8"):
        extract(encoder, sets, made.root / form, "all", 20.0, torch.device("cpu"), form=form)
    kept, coarse = (f"data.features={made.root}/{form}" for form in ("float16", "int8"))
    made.training("cached", kept)
    extract(encoder, sets, made.root / "float16", "all", 20.0, torch.device("cpu"), form="int8")
    with pytest.raises(UserError, match="the content of hidden states has changed"):
        made.training("cached", kept)
    extract(encoder, sets, made.root / "float16", "all", 20.0, torch.device("cpu"), form="float32")
    made.training("cached", kept)
    monkeypatch.setattr(logging.getLogger("hff"), "propagate", True)  # training has turned it off
    caplog.set_level(logging.INFO, "hff")
    decode([made.root / "cached"], [], ["device=cpu"])
    decode([made.root / "cached"], [], ["device=cpu", coarse])
    assert "is decoded again: its hidden states changed" in caplog.text
    probing = [f"upstream={encoder}", f"train={sets[0]}", f"dev={sets[1]}", f"units={made.root}/units", "parts=[asr]"]
    probing += ["epochs=1", "workers=0", "device=cpu"]
    probe(made.root / "probe", [], [*probing, f"features={made.root}/float16"])
    extract(encoder, sets, made.root / "float16", "all", 20.0, torch.device("cpu"), form="int8")
    with pytest.raises(UserError, match="hidden states"):
        probe(made.root / "probe", [], [*probing, f"features={made.root}/float16"])


def test_a_file_that_was_moved_into_the_place_of_another_of_its_size_and_time_is_noticed(tmp_path):
    one, other = tmp_path / "one.wav", tmp_path / "other.wav"
    for file in (one, other):
        file.write_text(file.stem[:2])
        os.utime(file, ns=(OLD_NS, OLD_NS))  # as archives do with all of their files
    first, second = file_digest(one), file_digest(other)
    other.rename(one)
    assert first != second == file_digest(one)


def test_a_user_without_a_home_has_digests_and_is_told_where_downloads_would_go(tmp_path, monkeypatch):
    for name in ("HOME", "HFF_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)  # as in a container: a number that no list of users has
    (tmp_path / "a").write_text("a")
    assert len(file_digest(tmp_path / "a")) == 16
    with pytest.raises(UserError, match="this user has no home folder; set HOME or HFF_CACHE"):
        cache_file("https://localhost/a.pt")


def test_a_set_does_not_overwrite_another_of_its_name(made, tmp_path, monkeypatch):
    other = tmp_path / "test"
    datadir.write(other, made.utts["train"][:2])
    before = (made.exp / "decode" / "test" / "text").read_bytes()
    with pytest.raises(
        UserError, match=r"decode/test holds the results of .*; rename one of the two, or give search.tag"
    ):
        decode([made.exp], [str(other)], ["device=cpu"])
    with pytest.raises(UserError, match="give another folder, by --out"):
        extract(f"{made.root}/encoder.safetensors", [str(other)], made.feats, "all", 20.0, torch.device("cpu"))
    assert (made.exp / "decode" / "test" / "text").read_bytes() == before
    monkeypatch.chdir(made.root / "test")
    (folder,) = decode([made.exp], ["."], ["device=cpu"])
    assert folder == made.exp / "decode" / "test"
