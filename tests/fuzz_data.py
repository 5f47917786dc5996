"""Make one of each file that a user can hand in for tests/fuzz.py, and name what reads it."""

import gzip
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from fuzz import Kind

from hfftools.audio import waveform
from hfftools.corpora import an4, commonvoice, librispeech, unpacking
from hfftools.data import datadir, repair, validation
from hfftools.data.datadir import Utterance
from hfftools.data.table import read_table
from hfftools.decode import lm, ngram
from hfftools.text import ctm, units
from hfftools.text.normalise import Options
from hfftools.text.phones import Phones

TEXTS = {"a-1": "the cat", "a-2": "a cat sat", "b-1": "the mat", "b-2": "a é mat"}


def _speech(folder: Path) -> list[Utterance]:
    """Write a second of noise for each of TEXTS."""
    folder.mkdir(parents=True)
    rng, spoken = np.random.default_rng(0), []
    for utt, text in TEXTS.items():
        path = folder / f"{utt}.wav"
        waveform.save(path, rng.normal(0, 0.1, 16000))
        spoken.append(Utterance(utt, utt[0], str(path), text, duration_s=1.0))
    return spoken


def _load_all(folder: Path) -> Any:
    utterances = datadir.read(folder)
    return utterances, [waveform.load(u.source, u.start_s, u.end_s) for u in utterances]


def data_kinds(root: Path) -> dict[str, Kind]:
    """Return the files of data directories, of whole recordings and of segments."""
    spoken, kinds = _speech(root / "audio"), {}
    datadir.write(root / "set", spoken)
    halves = [
        Utterance(f"{u.id}-{at}", u.speaker, u.source, u.text, at / 2, at / 2 + 0.5, 0.5)
        for u in spoken
        for at in (0, 1)
    ]
    datadir.write(root / "halves", halves)
    (root / "halves" / "utt2dur").unlink()
    for folder, names in (("set", datadir.FILES[:6]), ("halves", ("wav.scp", "segments", "text"))):
        where = root / folder
        readers: dict[str, Callable] = {
            "validate": lambda where=where: validation.validate(where),
            "load": lambda where=where: _load_all(where),
            "fix": lambda where=where: repair.fix(where),
            "normalise": lambda where=where: repair.normalise_dir(where, Options()),
        }
        for name in names:
            if (where / name).exists():
                # audio that is not there is named by its own path, and so is what two files disagree on
                kinds[f"{folder}/{name}"] = Kind(where / name, dict(readers), rf"audio |{where}")
    text = kinds["set/text"].readers
    text["units"] = lambda: _units("char", root)
    text["bpe"] = lambda: _units("bpe", root)
    text["lm"] = lambda: ngram.make(ngram.read_texts(root / "set"), 2, None, root / "newlm")
    return kinds


def _units(kind: str, root: Path) -> Any:
    texts = [" ".join(t.split()) for t in read_table(root / "set" / "text", value_required=False).values()]
    made = units.make(kind, texts, 20 if kind == "bpe" else None, root / "newunits")
    assert made.decode(made.encode("a cat")) is not None
    return len(made)


def _use_units(folder: Path) -> Any:
    read = units.load(folder)
    return [read.decode(read.encode(text)) for text in TEXTS.values()]


def text_kinds(root: Path) -> dict[str, Kind]:
    """Return lexica, language models, units and lists."""
    for kind in ("char", "bpe"):
        units.train(kind, TEXTS.values(), 20 if kind == "bpe" else None, root / f"units_{kind}")
    ngram.make(list(TEXTS.values()), 2, None, root / "lm")
    arpa, packed, lexicon = root / "lm" / "lm.arpa", root / "lm.arpa.gz", root / "lexicon.txt"
    packed.write_bytes(gzip.compress(arpa.read_bytes()))
    lexicon.write_text("the DH AH0\ncat K AE1 T\na AH0\nsat S AE1 T\nmat M AE1 T\né EY1\n", encoding="utf-8")
    ctm.write(root / "a.ctm", {utt: [ctm.Span(0.0, 0.5, "a"), ctm.Span(0.5, 1.0, "b")] for utt in TEXTS})

    def model(path: Path) -> Any:
        return lm.words(path), lm.Ngram(path).perplexity([text.split() for text in TEXTS.values()])

    read = {"read": lambda: model(arpa), "units": lambda: lm.of_units(arpa)}
    kinds = {
        "arpa": Kind(arpa, {"read": read["read"]}),
        "arpa.gz": Kind(packed, {"read": lambda: model(packed)}),
        "lm.json": Kind(root / "lm" / "lm.json", {**read, "make": lambda: ngram.make(["a b"], 2, None, root / "lm")}),
        "lexicon": Kind(lexicon, {"phones": lambda: Phones(str(lexicon))("cat"), "words": lambda: lm.words(lexicon)}),
        "ctm": Kind(root / "a.ctm", {"read": lambda: ctm.read(root / "a.ctm")}),
    }
    for folder, names in (
        ("units_char", ("units.json", "units.txt")),
        ("units_bpe", ("units.json", "sentencepiece.model")),
    ):
        for name in names:
            readers = {"load": lambda where=root / folder: _use_units(where)}
            kinds[f"{folder}/{name}"] = Kind(root / folder / name, readers, f"{root / folder}")
    return kinds


def audio_kinds(root: Path) -> dict[str, Kind]:
    """Return recordings."""
    samples, kinds = np.random.default_rng(1).normal(0, 0.1, 12000), {}
    forms = {"wav": ("WAV", None), "flac": ("FLAC", None), "mp3": ("MP3", None), "ogg": ("OGG", "VORBIS")}
    forms |= {"opus": ("OGG", "OPUS"), "float.wav": ("WAV", "FLOAT"), "aiff": ("AIFF", None)}
    for ending, (form, subtype) in forms.items():
        path = root / f"recording.{ending}"
        soundfile.write(path, samples, 16000, subtype, format=form)
        readers = {
            "duration": lambda path=path: waveform.duration_s(str(path)),
            "load": lambda path=path: waveform.load(str(path)),
            "part": lambda path=path: waveform.load(str(path), 0.25, 0.5),
            "blocks": lambda path=path: list(waveform.blocks(path, str(path))),
        }
        kinds[ending] = Kind(path, readers)
    return kinds


def corpus_kinds(root: Path) -> dict[str, Kind]:
    """Return the files of corpora in their own layouts, and archives."""
    sound = root / "audio" / "a-1.wav"
    chapter, voices, old = root / "libri" / "dev" / "1" / "2", root / "cv" / "fr", root / "an4"
    chapter.mkdir(parents=True)
    (voices / "clips").mkdir(parents=True)
    (chapter / "1-2.trans.txt").write_text("1-2-0001 THE CAT\n1-2-0002 THE MAT\n")
    for number, part in enumerate(("train", "dev", "test")):
        shutil.copy(sound, chapter / f"1-2-000{number}.wav")
        rows = ["client_id\tpath\tsentence\tlocale"]
        for clip in (2 * number, 2 * number + 1):
            soundfile.write(voices / "clips" / f"{clip}.mp3", np.zeros(16000), 16000, format="MP3")
            rows.append(f"{'abcdef'[clip] * 16}\t{clip}.mp3\tL’été, {clip} fois !\tfr")
        (voices / f"{part}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (voices / "clip_durations.tsv").write_text("clip\tduration[ms]\n1.mp3\t1000\n2.mp3\t1000\n")
    for part in ("train", "test"):
        (old / "wav" / "an4_clstk" / "fash").mkdir(parents=True, exist_ok=True)
        (old / "etc").mkdir(exist_ok=True)
        shutil.copy(sound, old / "wav" / "an4_clstk" / "fash" / "one.wav")
        (old / "etc" / f"an4_{part}.fileids").write_text("an4_clstk/fash/one\n")
        (old / "etc" / f"an4_{part}.transcription").write_text("<s> THE CAT </s> (one)\n")
    for name, mode in (("cv.tar", "w"), ("cv.tar.gz", "w:gz")):
        with tarfile.open(root / name, mode) as tar:
            tar.add(voices, "cv/fr")
    from_cv = {"sets": lambda: commonvoice.sets(root / "cv", root / "out")}
    from_an4 = {"sets": lambda: an4.sets(old, root / "out")}
    kinds = {
        "trans.txt": Kind(
            chapter / "1-2.trans.txt", {"sets": lambda: librispeech.sets(root / "libri", root / "out")}, "libri"
        ),
        "train.tsv": Kind(voices / "train.tsv", from_cv, f"{root / 'cv'}|lang"),
        "clip_durations.tsv": Kind(voices / "clip_durations.tsv", from_cv),
        "fileids": Kind(old / "etc" / "an4_train.fileids", from_an4, f"{old}"),
        "transcription": Kind(old / "etc" / "an4_train.transcription", from_an4, f"{old}"),
    }
    for name in ("cv.tar", "cv.tar.gz"):
        path = root / name
        readers = {"unpack": lambda path=path: unpacking.unpack(path, root / "unpacked")}
        readers["sets"] = lambda path=path: commonvoice.unpack(path, root / "down", None, commonvoice.Config())
        kinds[name] = Kind(path, readers, f"{root / 'down'}")
    return kinds
