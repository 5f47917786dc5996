"""For the tests of this room: a data directory of five utterances by two speakers, with its audio."""

import numpy as np
import pytest

from hfftools.audio import waveform
from hfftools.data import datadir
from hfftools.data.datadir import Utterance

TEXTS = {"ann-1": "the cat", "ann-2": "مرحبا بك", "bob-1": "e\u0301 é 你好", "bob-10": "a", "bob-9": "b"}


@pytest.fixture
def spoken(tmp_path) -> list[Utterance]:
    """Five utterances of 0.5 to 0.9 s, last id first."""
    spoken = []
    for index, (utt, text) in enumerate(reversed(TEXTS.items())):
        path, duration_s = tmp_path / f"{utt}.wav", 0.5 + index / 10
        waveform.save(path, np.full(round(duration_s * 16000), 0.1))
        spoken.append(Utterance(utt, utt.split("-")[0], str(path), text, duration_s=duration_s))
    return spoken


@pytest.fixture
def folder(tmp_path, spoken):
    """`spoken` as a data directory."""
    datadir.write(tmp_path / "set", spoken)
    return tmp_path / "set"
