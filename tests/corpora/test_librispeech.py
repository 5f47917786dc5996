"""LibriSpeech: its parts and their unions, Libri-Light's subsets, downloads of what is wanted and no more."""

import gzip
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hfftools.audio.waveform import save
from hfftools.corpora import librispeech
from hfftools.corpora.prepare import prepare
from hfftools.data import datadir
from hfftools.log import UserError

REAL = Path(__file__).parents[3] / "shared" / "data" / "LibriSpeech"


def chapter(folder: Path, speaker: int, number: int, audio: int, lines: int | None = None) -> None:
    """A chapter with `audio` utterances and `lines` lines of transcript, as many where not given."""
    folder = folder / str(speaker) / str(number)
    names = [f"{speaker}-{number}-{i:04d}" for i in range(lines or audio)]
    folder.mkdir(parents=True)
    (folder / f"{speaker}-{number}.trans.txt").write_text("".join(f"{name} A WORD'S {name[-1]}\n" for name in names))
    for name in names[:audio]:
        save(folder / f"{name}.flac", np.zeros(8000, np.float32))


@pytest.fixture
def corpus(tmp_path):
    """A corpus of five parts, each with a speaker of its own who reads one or two chapters."""
    root = tmp_path / "LibriSpeech"
    parts = ("train-clean-100", "train-clean-360", "train-other-500", "train-clean-5", "dev-clean-2")
    for speaker, part in enumerate(parts, 1):
        chapter(root / part, speaker, 10, 2)
    chapter(root / "train-clean-5", 4, 11, 3)
    return root


@pytest.fixture
def librilight(tmp_path):
    """Two chapters of two utterances in each fold of ten minutes and in the nine hours; transcripts have more lines."""
    root = tmp_path / "librispeech_finetuning"
    for fold in range(6):
        for sort, speaker in (("clean", 100 + fold), ("other", 200 + fold)):
            chapter(root / "1h" / str(fold) / sort, speaker, 1, 2, lines=4)
    for sort, speaker in (("clean", 300), ("other", 400)):
        chapter(root / "9h" / sort, speaker, 1, 2)
    return root


def sizes(out):
    return {path.name: len(datadir.read(path)) for path in sorted(out.iterdir()) if path.is_dir()}


def test_parts_that_are_there_or_are_asked_for_or_are_several(corpus, tmp_path):
    prepare("librispeech", corpus, tmp_path / "a")
    assert len(sizes(tmp_path / "a")) == 5 and sizes(tmp_path / "a")["train_clean_5"] == 5
    names = prepare(
        "librispeech", corpus.parent, tmp_path / "b", None, ["parts=[train-960,train-clean-460,dev-clean-2]"]
    )
    assert names == ["train_960", "train_clean_460", "dev_clean_2"]
    assert sizes(tmp_path / "b") == {"train_960": 6, "train_clean_460": 4, "dev_clean_2": 2}
    assert {u.speaker for u in datadir.read(tmp_path / "b" / "train_960")} == {"1-10", "2-10", "3-10"}
    assert datadir.read(tmp_path / "b" / "dev_clean_2")[0].text == "A WORD'S 0"
    prepare("librispeech", corpus, tmp_path / "b", 3, ["parts=[train-960]"])
    assert sizes(tmp_path / "b")["train_960"] == 3


def test_other_options_are_prepared_again_and_the_same_are_not(corpus, tmp_path):
    out = tmp_path / "data"
    prepare("librispeech", corpus, out, None, ["parts=[dev-clean-2]"])
    stamp = (out / "dev_clean_2" / "text").stat().st_mtime_ns
    prepare("librispeech", corpus, out, None, ["parts=[dev-clean-2]"])
    assert (out / "dev_clean_2" / "text").stat().st_mtime_ns == stamp
    assert prepare("librispeech", corpus, out, None, ["parts=[train-clean-5]"]) == ["train_clean_5"]


def test_what_is_not_there_is_named(corpus, tmp_path):
    for options, message in (
        (["parts=[train-clean-50]"], "LibriSpeech has no part 'train-clean-50'; did you mean train-clean-5"),
        (["librilight=2h"], "librilight: '2h' is not one of 10min, 1h, 10h"),
        (["librilight=1h"], "holds no librispeech_finetuning/ .*unpack https://.*tgz there"),
        (["part=[train-clean-5]"], "there is no option 'part'; did you mean parts"),
    ):
        with pytest.raises(UserError, match=message):
            prepare("librispeech", corpus, tmp_path / "data", None, options)
    with pytest.raises(UserError, match="no 'train-clean-6' to download; did you mean .*train-clean-5"):
        prepare("librispeech", None, tmp_path / "data", None, ["parts=[train-clean-6]"])
    next(corpus.glob("dev-clean-2/*/*/*1.flac")).unlink()
    with pytest.raises(UserError, match="5-10.trans.txt: no .flac, .wav or .opus for 5-10-0001"):
        prepare("librispeech", corpus, tmp_path / "data", None, ["parts=[dev-clean-2]"])


@pytest.mark.parametrize(("size", "count"), [("10min", 4), ("1h", 24), ("10h", 28)])
def test_libri_light_is_of_the_utterances_that_lie_there(corpus, librilight, tmp_path, size, count):
    made = prepare("librispeech", corpus, tmp_path / "data", None, [f"librilight={size}", "parts=[dev-clean-2]"])
    assert made == ["dev_clean_2", f"train_{size}"]
    assert sizes(tmp_path / "data")[f"train_{size}"] == count
    assert prepare("librispeech", librilight, tmp_path / "b", None, [f"librilight={size}"]) == [f"train_{size}"]


def test_the_parts_wanted_are_downloaded_checked_and_unpacked_once(corpus, librilight, tmp_path, server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(librispeech, "OPENSLR", server.url)
    monkeypatch.setattr(librispeech, "LIBRILIGHT_URL", f"{server.url}/librispeech_finetuning.tgz")
    archives = {
        "31/train-clean-5.tar.gz": corpus,
        "31/dev-clean-2.tar.gz": corpus,
        "librispeech_finetuning.tgz": librilight,
    }
    sums = {}
    for url, folder in archives.items():
        name = Path(url).name
        inside = folder / name.removesuffix(".tar.gz") if folder == corpus else folder
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            tar.add(inside, inside.relative_to(tmp_path))
        content = (tmp_path / name).read_bytes()
        server.files[f"/{url}"] = content, len(content)
        sums[name.partition(".")[0]] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(librispeech, "MD5", sums)
    monkeypatch.setattr(librispeech, "LIBRILIGHT_SUM", f"md5:{sums['librispeech_finetuning']}")
    out = tmp_path / "recipe" / "data"
    assert prepare("librispeech", None, out) == ["train_clean_5", "dev_clean_2"]
    assert sizes(out) == {"train_clean_5": 5, "dev_clean_2": 2} and server.requests == 2
    names = ["train_clean_5", "dev_clean_2", "train_1h"]
    assert prepare("librispeech", None, out, None, ["librilight=1h"]) == names and server.requests == 3
    for archive in (tmp_path / "recipe" / "downloads" / "librispeech").glob("*z"):
        archive.unlink()  # to save space
    assert prepare("librispeech", None, out, 4, ["librilight=1h", "parts=[dev-clean-2]"]) == ["dev_clean_2", "train_1h"]
    assert server.requests == 3
    monkeypatch.setitem(sums, "train-clean-5", "0" * 32)
    with pytest.raises(UserError, match="md5 sum of the download is .*, not 000.*removed"):
        prepare("librispeech", None, tmp_path / "other" / "data")


def test_a_broken_archive_is_named_and_leaves_no_folder(corpus, tmp_path, server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(librispeech, "OPENSLR", server.url)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(corpus / "dev-clean-2", "LibriSpeech/dev-clean-2")
    whole = (tmp_path / "x.tar.gz").read_bytes()
    for content in (whole[:-300], whole[:-8] + bytes(8), b"<html>not found</html>"):
        server.files["/31/dev-clean-2.tar.gz"] = content, len(content)
        monkeypatch.setitem(librispeech.MD5, "dev-clean-2", hashlib.md5(content).hexdigest())
        with pytest.raises(
            UserError, match=r"dev-clean-2.tar.gz cannot be unpacked \(.*delete it and download it again"
        ):
            prepare("librispeech", None, tmp_path / "r" / "data", None, ["parts=[dev-clean-2]"])
        assert not (tmp_path / "r/downloads/librispeech/unpacked").exists()
        (tmp_path / "r/downloads/librispeech/dev-clean-2.tar.gz").unlink()


def test_the_sums_are_whole_and_each_part_has_its_page():
    config = librispeech.Config(parts=["train-clean-5", "dev-clean-2", "train-960", "test-other"], librilight="10h")
    urls = librispeech.archives(config)
    assert len(urls) == 7 and len(librispeech.MD5) == 9 and all(len(md5) == 32 for md5 in librispeech.MD5.values())
    assert "https://www.openslr.org/resources/31/train-clean-5.tar.gz" in urls
    assert "https://www.openslr.org/resources/12/train-other-500.tar.gz" in urls
    assert len(librispeech.LIBRILIGHT_SUM.removeprefix("sha256:")) == 64


@pytest.mark.skipif(not REAL.exists(), reason="LibriSpeech is not beside the checkout, at ../shared/data/LibriSpeech")
def test_the_real_parts_whole(tmp_path):
    prepare("librispeech", REAL, tmp_path, None, ["parts=[train-clean-5,dev-clean-3spk,test-other-5spk]"])
    assert sizes(tmp_path) == {"train_clean_5": 1362, "dev_clean_3spk": 157, "test_other_5spk": 50}
    train = datadir.read(tmp_path / "train_clean_5")
    assert sum(u.duration_s for u in train) / 3600 == pytest.approx(4.73, abs=0.01)
    assert set("".join(u.text for u in train)) == set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")


def test_its_own_language_models_are_downloaded_and_checked(server, tmp_path, monkeypatch):
    file, packed = "3-gram.pruned.3e-7.arpa.gz", gzip.compress(b"\\data\\")
    monkeypatch.setattr(librispeech, "OPENSLR", server.url)
    server.files[f"/11/{file}"] = packed, len(packed)
    with pytest.raises(UserError, match="md5"):
        librispeech.language_model("3-gram.pruned.3e-7", tmp_path)
    assert not (tmp_path / file).exists()
    monkeypatch.setitem(librispeech.LANGUAGE_MODELS, "3-gram.pruned.3e-7", hashlib.md5(packed).hexdigest())
    assert librispeech.language_model("3-gram.pruned.3e-7", tmp_path).read_bytes() == packed
    with pytest.raises(UserError, match="no language model '5-gram'"):
        librispeech.language_model("5-gram", tmp_path)


def test_transcripts_with_a_mark_tabs_and_other_line_ends_are_the_same(corpus, tmp_path):
    plain = librispeech.sets(corpus, tmp_path)
    for file in corpus.glob("*/*/*/*.trans.txt"):
        text = file.read_text().replace(" ", "\t", 1).replace("\n", "\r\n")
        file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert librispeech.sets(corpus, tmp_path) == plain and plain["train_clean_5"][0].text == "A WORD'S 0"
