"""Common Voice: releases old and new, folder and tarball, odd rows, sets that are not there, so many hours of speakers."""

import logging
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hfftools.corpora.prepare import prepare
from hfftools.corpora.subset import hold_out, round_robin
from hfftools.data import datadir
from hfftools.log import UserError

REAL = Path(__file__).parents[3] / "shared" / "data" / "cv_en"
OLD = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent".split("\t")
NEW = (
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\t"
    "locale\tsegment"
).split("\t")


def clip(folder: Path, name: str, seconds: float = 1.0) -> None:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "clips" / name, np.zeros(round(16000 * seconds)), 16000, format="MP3")


def table(folder: Path, part: str, rows: list[tuple[str, str, str]], columns=NEW, lang="fr", audio=True) -> None:
    """A table of (speaker, clip, sentence), and the clips where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns)]
    for speaker, name, sentence in rows:
        cells = {"client_id": speaker * 16, "path": name, "sentence": sentence, "locale": lang}
        lines.append("\t".join(cells.get(column, "") for column in columns))
        if audio and not (folder / "clips" / name).exists():
            clip(folder, name)
    (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def release(folder: Path, columns=NEW, lang="fr") -> Path:
    """Eight training speakers of four clips, two of dev, two of test."""
    train = [(s, f"cv_{s}{i}.mp3", f"L’été, {i} fois !") for i in range(4) for s in "abcdefgh"]
    table(folder, "train", train, columns, lang)
    table(folder, "dev", [("x", "cv_x.mp3", "“Oui.”"), ("y", "cv_y.mp3", "Non")], columns, lang)
    table(folder, "test", [("z", "cv_z.mp3", "Ça va ?"), ("t", "cv_t.mp3", "Bien")], columns, lang)
    return folder


def made(path: Path) -> dict[str, str]:
    return {Path(u.source).name: u.text for u in datadir.read(path)}


def speakers(path: Path) -> Counter:
    return Counter(u.speaker[0] for u in datadir.read(path))


@pytest.mark.parametrize("columns", [OLD, NEW], ids=["old", "new"])
def test_releases_old_and_new_are_read_by_the_names_of_columns(tmp_path, columns):
    source = release(tmp_path / "cv-corpus" / "fr", columns)
    for number, (place, options) in enumerate(
        ((source, []), (source.parent, []), (source.parent, ["text.case=upper"]))
    ):
        prepare("commonvoice", place, tmp_path / f"data{number}", None, options)
    assert made(tmp_path / "data0/dev") == made(tmp_path / "data1/dev") == {"cv_x.mp3": "oui", "cv_y.mp3": "non"}
    assert made(tmp_path / "data0/train")["cv_a1.mp3"] == "l'été 1 fois" and len(made(tmp_path / "data0/train")) == 32
    assert made(tmp_path / "data2/test") == {"cv_z.mp3": "ÇA VA", "cv_t.mp3": "BIEN"}
    (source / "train.tsv").write_text("client_id\tpath\n")
    with pytest.raises(UserError, match="train.tsv: no column sentence"):
        prepare("commonvoice", source, tmp_path / "data3")


def test_the_dotless_i_follows_the_release(tmp_path):
    table(tmp_path / "tr", "train", [("a", "1.mp3", "IŞIK"), ("b", "2.mp3", "İKİ"), ("c", "3.mp3", "ÜÇ")], lang="tr")
    table(tmp_path / "tr", "dev", [("d", "4.mp3", "DIŞ")], lang="tr")
    table(tmp_path / "tr", "test", [("e", "5.mp3", "İÇ")], lang="tr")
    prepare("commonvoice", tmp_path / "tr", tmp_path / "data")
    assert made(tmp_path / "data/train") == {"1.mp3": "ışık", "2.mp3": "iki", "3.mp3": "üç"}


def test_odd_rows_are_named_counted_and_left_out(tmp_path, caplog):
    source = release(tmp_path / "fr")
    clip(source, "short.mp3", 0.1)
    clip(source, "long.mp3", 31)
    (source / "clips" / "empty.mp3").write_bytes(b"")
    (source / "clips" / "noise.mp3").write_bytes(b"no audio at all" * 10)
    odd = ["short", "long", "empty", "noise", "lost1", "lost2", "lost3", "lost4"]
    rows = [("a", f"{name}.mp3", "mot") for name in odd]
    rows += [("a", "cv_a9.mp3", "…!"), ("b", "cv_b1.mp3", "encore"), ("z", "cv_z9.mp3", "du test")]
    text = (source / "train.tsv").read_text()
    table(source, "train", rows, audio=False)
    extra = "\n".join((source / "train.tsv").read_text().splitlines()[1:])
    (source / "train.tsv").write_text(f"{text}{extra}\nabc\tcut.mp3\n")
    with caplog.at_level(logging.INFO, "hff"):
        prepare("commonvoice", source, tmp_path / "data")
    assert len(made(tmp_path / "data/train")) == 32
    for what in (
        "4 × no file in clips/ (lost1.mp3, lost2.mp3, lost3.mp3 …)", "1 × an empty file (empty.mp3)",
        "1 × cannot be decoded (noise.mp3)", "2 × not between 0.3 and 30 s (short.mp3, long.mp3)",
        "1 × no word in its sentence (cv_a9.mp3)", "1 × twice (cv_b1.mp3)", "1 × of a speaker of another set (cv_z9.mp3)",
        "1 × a line cut short (line 45)",
    ):  # fmt: skip
        assert what in caplog.text, what
    table(source, "dev", [("x", "nowhere.mp3", "mot")], audio=False)
    with pytest.raises(UserError, match=r"dev.tsv: not one of its 1 clips can be used: 1 × no file .*nowhere.mp3"):
        prepare("commonvoice", source, tmp_path / "again")


def test_lengths_are_those_of_the_clips_whatever_the_table_says(tmp_path, caplog):
    source = release(tmp_path / "fr")
    names = sorted(path.name for path in (source / "clips").iterdir())
    table_rows = [f"{name}\t1500" for name in names]
    (source / "clip_durations.tsv").write_text("\n".join(["clip\tduration[ms]", *table_rows]) + "\n")
    broken = source / "clips" / "cv_a0.mp3"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with caplog.at_level(logging.INFO, "hff"):
        prepare("commonvoice", source, tmp_path / "data")
    assert Counter(round(u.duration_s, 1) for u in datadir.read(tmp_path / "data/train")) == {1.0: 31}
    assert "1 × cannot be decoded (cv_a0.mp3)" in caplog.text


@pytest.mark.parametrize("lacking", [("dev",), ("test",), ("dev", "test")])
@pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
def test_a_set_that_is_not_there_is_made_of_speakers_of_its_own(tmp_path, caplog, lacking, there):
    source = release(tmp_path / "fr")
    for part in lacking:
        table(source, part, []) if there else (source / f"{part}.tsv").unlink()
    with caplog.at_level(logging.INFO, "hff"):
        prepare("commonvoice", source, tmp_path / "data")
    sets = {part: speakers(tmp_path / "data" / part) for part in ("train", "dev", "test")}
    assert len(set().union(*sets.values())) == sum(map(len, sets.values())), "a speaker is in two sets"
    assert sum(sets["train"].values()) == 32 - 4 * len(lacking)
    for part in lacking:
        assert sum(sets[part].values()) == 4 and f"{part}.tsv is missing or empty: 4 clips of 1 speakers" in caplog.text


def test_a_release_with_nothing_but_validated(tmp_path, caplog):
    source = release(tmp_path / "fr")
    (source / "train.tsv").rename(source / "validated.tsv")
    (source / "dev.tsv").unlink()
    with caplog.at_level(logging.INFO, "hff"):
        prepare("commonvoice", source, tmp_path / "data")
    assert "train is the 32 clips of validated.tsv" in caplog.text
    assert [len(made(tmp_path / "data" / part)) for part in ("train", "dev", "test")] == [28, 4, 2]
    (source / "validated.tsv").unlink()
    with pytest.raises(UserError, match="train.tsv: not one of its rows can be used: there are none"):
        prepare("commonvoice", source, tmp_path / "again")


def test_some_hours_of_every_speaker(tmp_path, caplog):
    source = release(tmp_path / "fr")
    hours = 18.5 / 3600
    names = prepare("commonvoice", source, tmp_path / "a", None, [f"hours={hours:.6f}", "lang=fr"])
    assert names == [f"train_fr_{hours:.6f}h", "dev_fr", "test_fr"]
    taken = speakers(tmp_path / "a" / names[0])
    # clips of 1 s and some padding of MP3: 18 or 17 of them, so two of each speaker and a third of one or two
    assert 17 <= sum(taken.values()) <= 19 and set(taken.values()) <= {2, 3} and len(taken) == 8
    lines = (source / "train.tsv").read_text().splitlines()
    (source / "train.tsv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    prepare("commonvoice", source, tmp_path / "b", None, [f"hours={hours:.6f}", "lang=fr"])
    assert made(tmp_path / "a" / names[0]) == made(tmp_path / "b" / names[0]), "the order of rows counts for nothing"
    with caplog.at_level(logging.INFO, "hff"):
        assert prepare("commonvoice", source, tmp_path / "a", None, ["hours=10", "dev_hours=1"])[0] == "train_10h"
    assert "only 0.01 h of the 10 h asked for are there" in caplog.text and len(made(tmp_path / "a/train_10h")) == 32
    with pytest.raises(UserError, match="hours: -1.0 is below 0"):
        prepare("commonvoice", source, tmp_path / "a", None, ["hours=-1"])


def test_subsets_of_lists(tmp_path):
    from hfftools.corpora.commonvoice import Clip

    clips = [Clip(s, f"{s}{i}", "") for s, count in (("a", 40), ("b", 3), ("c", 3), ("d", 4)) for i in range(count)]
    assert Counter(c.speaker for c in round_robin(clips)[:12]) == {"a": 3, "b": 3, "c": 3, "d": 3}
    left, held = hold_out(clips, 0.1, "x")
    assert 0 < len(held) <= 10 and len(left) + len(held) == 50
    assert not {c.speaker for c in left} & {c.speaker for c in held}
    with pytest.raises(UserError, match="x: no speaker can be held back, as there is only 1"):
        hold_out(clips[:40], 0.1, "x")


def test_a_tarball_of_several_languages_gives_one_and_only_the_clips_that_are_wanted(tmp_path):
    release(tmp_path / "cv-corpus-17.0" / "fr")
    release(tmp_path / "cv-corpus-17.0" / "zh-CN", lang="zh-CN")
    clip(tmp_path / "cv-corpus-17.0" / "fr", "other.mp3")
    names = [f"cv_{s}{i}.mp3" for s in "abcdefgh" for i in range(4)] + [f"cv_{s}.mp3" for s in "xyzt"]
    durations = "".join(f"{name}\t1000\n" for name in names)
    (tmp_path / "cv-corpus-17.0" / "fr" / "clip_durations.tsv").write_text(f"clip\tduration[ms]\n{durations}")
    archive = tmp_path / "cv-corpus-17.0-fr.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:  # clips before tables
        tar.add(
            tmp_path / "cv-corpus-17.0", "cv-corpus-17.0", filter=lambda m: m if not m.name.endswith("tsv") else None
        )
        for path in sorted(tmp_path.glob("cv-corpus-17.0/*/*.tsv")):
            tar.add(path, path.relative_to(tmp_path))
    out = tmp_path / "recipe" / "data"
    with pytest.raises(UserError, match="holds several languages, fr, zh-CN; say which, as lang=fr"):
        prepare("commonvoice", archive, out)
    with pytest.raises(UserError, match="has no 'zh'; known: fr, zh-CN"):
        prepare("commonvoice", archive, out, None, ["lang=zh"])
    assert prepare("commonvoice", archive, out, None, ["lang=fr", f"hours={8 / 3600:.6f}"])[1:] == ["dev_fr", "test_fr"]
    unpacked = {p.name for p in (tmp_path / "recipe/downloads/commonvoice").rglob("*.mp3")}
    assert len(unpacked) == 9 + 4 and "other.mp3" not in unpacked  # one more than the 8 asked for, and dev and test
    prepare("commonvoice", archive, out, None, ["lang=fr"])
    assert len(made(out / "train_fr")) == 32
    assert prepare("commonvoice", archive, out, None, ["lang=zh-CN"]) == ["train_zh_CN", "dev_zh_CN", "test_zh_CN"]
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"cannot be unpacked \(.*download it again"):
        prepare("commonvoice", archive, tmp_path / "other" / "data", None, ["lang=fr"])


def test_where_to_get_it_and_what_it_is_not(tmp_path):
    with pytest.raises(UserError, match="where is commonvoice.*datacollective.mozillafoundation.org.*account"):
        prepare("commonvoice", None, tmp_path / "data")
    with pytest.raises(UserError, match="holds no train.tsv or validated.tsv"):
        prepare("commonvoice", tmp_path, tmp_path / "data")
    with pytest.raises(UserError, match="lang: .*/fr is of fr, not of de"):
        prepare("commonvoice", release(tmp_path / "fr"), tmp_path / "data", None, ["lang=de"])
    with pytest.raises(UserError, match="nothing is not a folder"):
        prepare("commonvoice", tmp_path / "nothing", tmp_path / "data")


@pytest.mark.skipif(not REAL.exists(), reason="Common Voice is not beside the checkout, at ../shared/data/cv_en")
def test_the_real_release(tmp_path):
    prepare("commonvoice", REAL, tmp_path)
    sets = {part: datadir.read(tmp_path / part) for part in ("train", "dev", "test")}
    assert {part: len(utterances) for part, utterances in sets.items()} == {"train": 1079, "dev": 154, "test": 236}
    assert sum(u.duration_s for u in sets["train"]) / 3600 == pytest.approx(1.74, abs=0.01)
    assert set("".join(u.text for u in sets["test"])) <= set("abcdefghijklmnopqrstuvwxyz' ")
