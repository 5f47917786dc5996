"""Corpora in their own layout, prepared once, downloaded where asked."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hfftools.audio.waveform import save
from hfftools.corpora import an4
from hfftools.corpora.prepare import prepare
from hfftools.data import datadir
from hfftools.data.validation import validate
from hfftools.log import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not REAL.exists(), reason="no real speech at ../shared/data")


@pytest.fixture
def small_an4(tmp_path):
    """AN4's layout with 20 training speakers of two utterances, and two test utterances."""
    root = tmp_path / "an4"
    (root / "etc").mkdir(parents=True)
    parts = {
        "train": [f"m{i:03d}/an{n}-m{i:03d}-b" for i in range(20) for n in (1, 2)],
        "test": ["f1/an1-f1-b", "f1/an2-f1-b"],
    }
    for part, names in parts.items():
        folder = "an4_clstk" if part == "train" else "an4test_clstk"
        (root / "etc" / f"an4_{part}.fileids").write_text("".join(f"{folder}/{n}\n" for n in names))
        words = "<s> GO </s> " if part == "train" else "GO "
        lines = "".join(f"{words}({n.split('/')[1]})\n" for n in names)
        (root / "etc" / f"an4_{part}.transcription").write_text(lines)
        for name in names:
            path = root / "wav" / folder / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32))
    return root


def speakers(path):
    return {u.speaker for u in datadir.read(path)}


def test_an4_dev_shares_no_speaker_with_train(small_an4, tmp_path):
    prepare("an4", small_an4, tmp_path / "data")
    train, dev = speakers(tmp_path / "data/train"), speakers(tmp_path / "data/dev")
    assert len(train) == 18 and len(dev) == 2 and not train & dev
    assert {u.text for u in datadir.read(tmp_path / "data/test")} == {"GO"}


def test_prepared_once_and_again_when_damaged_or_asked_otherwise(small_an4, tmp_path):
    out = tmp_path / "data"
    prepare("an4", small_an4, out)
    stamp = (out / "train/text").stat().st_mtime_ns
    prepare("an4", small_an4, out)
    assert (out / "train/text").stat().st_mtime_ns == stamp
    (out / "train/text").write_text("")
    prepare("an4", small_an4, out)
    assert len(datadir.read(out / "train")) == 36
    prepare("an4", small_an4, out, limit=12)
    assert [len(datadir.read(out / name)) for name in ("train", "dev", "test")] == [12, 4, 2]


@pytest.fixture
def an4_server(small_an4, tmp_path, server, monkeypatch):
    """A server that an4 is downloaded from."""
    archive = tmp_path / "an4.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(small_an4, "an4-main")
    content = archive.read_bytes()
    server.files["/an4.tar.gz"] = (content, len(content))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(an4, "URL", f"{server.url}/an4.tar.gz")
    return server


def test_a_corpus_is_downloaded_unpacked_and_prepared(tmp_path, an4_server):
    prepare("an4", None, tmp_path / "recipe" / "data")
    assert len(datadir.read(tmp_path / "recipe/data/test")) == 2
    assert an4_server.requests == 1


@pytest.mark.parametrize("other", ["data", "data2"])  # into one folder, and into two that share the downloads
def test_two_processes_download_a_corpus_once_and_both_have_it(tmp_path, an4_server, other):
    processes = []
    for name in ("data", other):
        processes.append(os.fork())
        if not processes[-1]:
            code = 1
            try:
                prepare("an4", None, tmp_path / "recipe" / name)
                code = 0
            finally:
                os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes] == [0, 0]
    assert an4_server.requests == 1
    for name in ("data", other):
        sizes = [len(datadir.read(tmp_path / "recipe" / name / part)) for part in ("train", "dev", "test")]
        assert all(sizes) and sizes[-1] == 2
    assert not [path for path in (tmp_path / "recipe").rglob(".*") if path.suffix in (".tmp", ".part")]


def test_a_corpus_that_cannot_be_had_is_one_line_with_the_place_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(an4, "URL", "http://127.0.0.1:9/an4.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match="put the file in place by hand, as .*downloads/an4/an4.tar.gz"):
        prepare("an4", None, tmp_path / "data")
    with pytest.raises(UserError, match="did you mean librispeech"):
        prepare("librispech", tmp_path, tmp_path / "data")
    with pytest.raises(UserError, match="an4_train.fileids is missing"):
        prepare("an4", tmp_path, tmp_path / "data")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "an4_train.transcription").write_text("<s> ONE </s> (one)\n")
    (tmp_path / "etc" / "an4_train.fileids").write_text("one\n")
    with pytest.raises(UserError, match="an4_train.fileids: 'one' has no slash"):
        prepare("an4", tmp_path, tmp_path / "data")


@real
@pytest.mark.parametrize(
    "corpus, source, sets",
    [
        ("an4", "an4", {"train": 857, "dev": 91, "test": 130}),
        ("librispeech", "LibriSpeech", {"dev_clean_3spk": 40, "test_other_5spk": 40}),
        ("commonvoice", "cv_en/en", {"train": 40, "dev": 40, "test": 40}),
    ],
)
def test_the_real_corpora(corpus, source, sets, tmp_path):
    prepare(corpus, REAL / source, tmp_path, None if corpus == "an4" else 40)
    for name, count in sets.items():
        assert validate(tmp_path / name) == count
