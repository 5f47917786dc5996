"""The corpus that makes itself: the same samples each time, voices disjoint between sets, grammar and labels agreed."""

import subprocess
import sys

import numpy as np
import pytest

from hfftools.audio import waveform
from hfftools.corpora import mini
from hfftools.data import datadir
from hfftools.data.table import read_table
from hfftools.data.validation import validate

LIMIT = 4  # utterances a set
PARTS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Two folders in which the corpus was made, each by a process of its own: eSpeak NG starts once in a process."""
    code = (
        "from pathlib import Path; from hfftools.corpora.prepare import prepare; prepare('mini', None, Path('data'), 4)"
    )
    folders = [tmp_path_factory.mktemp("mini") for _ in range(2)]
    for folder in folders:
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=60)
    return [folder / "data" for folder in folders]


def test_the_same_corpus_is_made_each_time(corpora):
    a, b = corpora
    files = [*a.rglob("*.wav"), *a.glob("*/text"), *a.glob("*/intent"), *a.glob("*/slots")]
    names = [path.relative_to(a) for path in files]
    assert len(names) == len(PARTS) * (LIMIT + 3)
    assert all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


@pytest.mark.parametrize("part", PARTS)
def test_a_set_is_valid_and_holds_speech_of_its_length(corpora, part):
    assert validate(corpora[0] / part) == LIMIT
    for u in datadir.read(corpora[0] / part):
        samples = waveform.load(u.source)
        assert len(samples) / 16000 == pytest.approx(u.duration_s, abs=1e-3)
        assert 0.2 < np.abs(samples).max() <= 1
        # some 3 words a second: neither silence nor half a sentence
        assert 0.1 < u.duration_s / len(u.text.split()) < 1.0


def test_no_voice_is_in_two_sets(corpora):
    voices = [set(mini.VARIANTS[part]) for part in PARTS]
    assert len(set.union(*voices)) == sum(map(len, voices)) == sum(len(mini.VARIANTS[part]) for part in PARTS)
    for part, known in zip(PARTS, voices, strict=True):
        assert {u.speaker for u in datadir.read(corpora[0] / part)} <= known


@pytest.mark.parametrize("part", PARTS)
def test_every_utterance_has_an_intent_and_the_slots_of_its_text(corpora, part):
    folder = corpora[0] / part
    intents, slots = read_table(folder / "intent"), read_table(folder / "slots", value_required=False)
    utterances = datadir.read(folder)
    assert set(intents) == set(slots) == {u.id for u in utterances}
    for u in utterances:
        assert intents[u.id] in mini.GRAMMAR
        for slot in filter(None, slots[u.id].split(";")):
            name, value = slot.split("=")
            assert value in mini.SLOTS[name] and value in u.text


def test_every_voice_exists_and_speaks():
    code = (
        "from hfftools.corpora.mini import VARIANTS\n"
        "from hfftools.audio.espeak import Espeak, Voice\n"
        "espeak = Espeak()\n"
        "spoken = [espeak.speak('call emma', Voice(f'en-us+{v}')) for part in VARIANTS.values() for v in part]\n"
        "assert all(len(s) > espeak.rate_hz // 4 and abs(s).max() > 0.05 for s in spoken)\n"
        "try:\n"
        "    espeak.speak('call emma', Voice('xx-nowhere'))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "no voice xx-nowhere" in done.stdout
