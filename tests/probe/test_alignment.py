"""Alignment: every phone in its order and place, close to when eSpeak NG says it spoke it; made once, then read again."""

import ctypes
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hfftools.audio import waveform
from hfftools.audio.espeak import Espeak, Voice
from hfftools.corpora.mini import sentence
from hfftools.data import datadir
from hfftools.data.datadir import Utterance
from hfftools.log import UserError
from hfftools.probe import alignment, alignment_model
from hfftools.probe.alignment import align
from hfftools.text import ctm
from hfftools.text.ctm import Span
from hfftools.text.phones import Phones

CPU = torch.device("cpu")
SIZES = {"train": 36, "dev": 6}
PHONEME = 7  # espeakEVENT_PHONEME


class Event(ctypes.Structure):
    """espeak_EVENT, of speak_lib.h."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "id", "text_position", "length", "position_ms", "sample")),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """(folder of data directories train and dev, {utterance: the spans of its phones, as spoken}), clean, two voices."""
    espeak, root, rng = Espeak(), tmp_path_factory.mktemp("spoken"), random.Random(0)
    starts: list[tuple[float, str]] = []

    def receive(samples, count, events):
        index = 0
        while events and events[index].type:
            event = events[index]
            if event.type == PHONEME:
                starts.append((event.position_ms / 1000, event.name.decode(errors="replace").strip("ˈˌ")))
            index += 1
        return espeak._receive(samples, count, None)

    timed, truth = CALLBACK(receive), {}
    espeak._lib.espeak_ng_SetPhonemeEvents(1, 1)
    espeak._lib.espeak_SetSynthCallback(timed)
    for name, size in SIZES.items():
        utterances = []
        for index in range(size):
            text, path, utt = sentence(rng)[0], root / "wav" / f"{name}{index}.wav", f"{name}-{index:02d}"
            starts.clear()
            samples = espeak.speak(text, Voice(f"en-us+{('f2', 'm3')[index % 2]}"))
            duration_s = len(samples) / espeak.rate_hz
            waveform.save(path, samples, espeak.rate_hz)
            utterances.append(Utterance(utt, utt, str(path), text, duration_s=duration_s))
            ends = [start_s for start_s, _ in starts[1:]] + [duration_s]
            truth[utt] = [Span(start_s, end_s, p) for (start_s, p), end_s in zip(starts, ends, strict=True) if p]
        datadir.write(root / name, utterances)
    espeak._lib.espeak_ng_SetPhonemeEvents(0, 0)
    espeak._lib.espeak_SetSynthCallback(espeak._callback)
    return root, truth


@pytest.fixture(scope="module")
def aligned(spoken, tmp_path_factory):
    """(the data directories, the folder of their alignment, the alignment)."""
    root, folder = spoken[0], tmp_path_factory.mktemp("align") / "en-us"
    sets = [str(root / name) for name in SIZES]
    return sets, folder, align(sets[0], sets, Phones(), folder, 0, CPU)


def read(sets: list[str]) -> dict[str, Utterance]:
    return {u.id: u for directory in sets for u in datadir.read(directory)}


def test_every_phone_and_word_is_there_in_order_and_inside_the_utterance(aligned):
    sets, _, found = aligned
    assert found.keys() == read(sets).keys()
    for utt, u in read(sets).items():
        pronounced = Phones()(u.text)
        phones, words = found[utt].phones, found[utt].words
        assert [span.label for span in phones] == [phone for _, word in pronounced for phone in word]
        assert [span.label for span in words] == u.text.split()
        for spans in (phones, words):
            assert all(a.end_s <= b.start_s for a, b in pairwise(spans))
            assert all(span.end_s - span.start_s > 0.039 for span in spans)
            assert 0 <= spans[0].start_s and spans[-1].end_s <= u.duration_s
        rest = iter(phones)
        for (_, expected), word in zip(pronounced, words, strict=True):
            mine = [next(rest) for _ in expected]
            assert (mine[0].start_s, mine[-1].end_s) == (word.start_s, word.end_s)
            assert all(a.end_s == b.start_s for a, b in pairwise(mine))  # no silence in a word


def frames(spans: list[Span], duration_s: float) -> list[str]:
    """Return the label at the middle of every 20 ms; "" for silence."""
    at_s = np.arange(0.01, duration_s, 0.02)
    return [next((s.label for s in spans if s.start_s <= t < s.end_s), "") for t in at_s]


def test_phones_are_where_they_were_spoken(spoken, aligned):
    sets, _, found = aligned
    right, evenly, total = 0, 0, 0
    for utt, u in read(sets).items():
        phones = found[utt].phones
        steps = np.linspace(0, u.duration_s, len(phones) + 1)
        uniform = [Span(start_s, end_s, s.label) for s, (start_s, end_s) in zip(phones, pairwise(steps), strict=True)]
        truth, mine, even = (frames(spans, u.duration_s) for spans in (spoken[1][utt], phones, uniform))
        right += sum(t == m != "" for t, m in zip(truth, mine, strict=True))
        evenly += sum(t == e != "" for t, e in zip(truth, even, strict=True))
        total += sum(t != "" for t in truth)
    print(f"{right / total:.3f} of phone frames are right, {evenly / total:.3f} of a uniform alignment")
    assert right / total > 0.65 > 0.55 > evenly / total


def test_made_once_and_read_again(spoken, aligned, monkeypatch):
    sets, folder, found = aligned

    def refuse(*_):
        raise InterruptedError("trains")

    monkeypatch.setattr(alignment, "train", refuse)
    assert align(sets[0], sets, Phones(), folder, 0, CPU) == found
    train = ctm.read(folder / "train" / "words.ctm")
    assert train == {utt: found[utt].words for utt in train} and len(train) == SIZES["train"]
    (folder / "dev" / "words.ctm").rename(folder / "aside")  # as a kill would leave it
    with pytest.raises(InterruptedError, match="trains"):
        align(sets[0], sets, Phones(), folder, 0, CPU)
    (folder / "aside").rename(folder / "dev" / "words.ctm")
    whole = (folder / "dev" / "words.ctm").read_text()
    last = whole.splitlines()[-1].split()[0]
    for cut in ("", "".join(line for line in whole.splitlines(True) if not line.startswith(f"{last} "))):
        (folder / "dev" / "words.ctm").write_text(cut)
        with pytest.raises(UserError, match="words.ctm is cut short; remove"):
            align(sets[0], sets, Phones(), folder, 0, CPU)
    (folder / "dev" / "words.ctm").write_text(whole)


def test_times_that_were_not_made_here_are_not_overwritten(spoken, tmp_path):
    theirs = {"train-00": [Span(0.0, 1.0, "x")]}
    ctm.write(tmp_path / "train" / "phones.ctm", theirs)
    with pytest.raises(UserError, match="phones.ctm was not made by hff"):
        align(str(spoken[0] / "train"), [], Phones(), tmp_path, 0, CPU)
    assert ctm.read(tmp_path / "train" / "phones.ctm") == theirs


def test_what_changed_is_named(aligned, tmp_path):
    sets, folder, found = aligned
    with pytest.raises(UserError, match="content of the seed has changed since"):
        align(sets[0], sets, Phones(), folder, 1, CPU)
    with pytest.raises(UserError, match="content of the pronunciations has changed since"):
        align(sets[0], sets, Phones("espeak:en"), folder, 0, CPU)
    with pytest.raises(UserError, match="content of the list of sets has changed since"):
        align(sets[0], sets[:1], Phones(), folder, 0, CPU)
    utterances = list(read(sets[1:]).values())
    datadir.write(tmp_path / "dev", utterances[1:])
    with pytest.raises(UserError, match="content of the set dev: segments, the set dev: text, .* has changed since"):
        align(sets[0], [sets[0], str(tmp_path / "dev")], Phones(), folder, 0, CPU)
    with pytest.raises(UserError, match="have the same name"):
        align(sets[0], [*sets, str(tmp_path / "dev")], Phones(), folder, 0, CPU)


def test_what_cannot_be_aligned_is_left_out_and_counted(spoken, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(alignment_model, "ROUNDS", (("ctc", 2, 1e-3), ("frames", 2, 1e-3)))
    caplog.set_level("WARNING", logger="hff")
    monkeypatch.setattr("hfftools.log.log.propagate", True)
    texts = {0: "a far longer sentence than the speech has room for " * 9, 1: "- ...", 2: "CALL - emma"}
    utterances = list(read([str(spoken[0] / "dev")]).values())
    changed = [Utterance(**vars(u) | {"text": texts.get(index, u.text)}) for index, u in enumerate(utterances)]
    datadir.write(tmp_path / "set", changed)
    found = align(str(tmp_path / "set"), [str(tmp_path / "set")], Phones(), tmp_path / "align", 0, CPU)
    assert found.keys() == {u.id for u in utterances[2:]}
    assert [span.label for span in found[utterances[2].id].words] == ["CALL", "emma"]
    assert (
        "2 of 6 utterances have no phones, or less than 40 ms for each, and are left out, first dev-00" in caplog.text
    )
    lexicon = Path(tmp_path / "lexicon.txt")
    lexicon.write_text("CALL k ɔː l\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"lexicon.txt: \d+ words are missing"):
        align(str(tmp_path / "set"), [str(tmp_path / "set")], Phones(str(lexicon)), tmp_path / "other", 0, CPU)
    assert not (tmp_path / "other").exists()
