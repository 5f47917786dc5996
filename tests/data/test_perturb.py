"""Copies at other speeds: as long as they should be, spelled as Kaldi does, made once."""

import numpy as np
import pytest

from hfftools.data import audio, datadir
from hfftools.data.perturb import speed
from hfftools.log import UserError


def test_copies_have_the_length_and_pitch_of_their_speed(tmp_path):
    wav = tmp_path / "s1-a.wav"
    audio.save(wav, 0.5 * np.sin(2 * np.pi * 400 * np.arange(32000) / 16000))
    datadir.write(tmp_path / "train", [datadir.Utterance("s1-a", "s1", str(wav), "go", duration_s=2.0)])
    assert speed(tmp_path / "train", tmp_path / "train_sp", [0.8, 1.0, 1.25]) == 3
    assert datadir.validate(tmp_path / "train_sp") == 3
    copies = {u.id: u for u in datadir.read(tmp_path / "train_sp")}
    assert set(copies) == {"s1-a", "sp0.8-s1-a", "sp1.25-s1-a"} and {u.text for u in copies.values()} == {"go"}
    for utt, factor in (("sp0.8-s1-a", 0.8), ("sp1.25-s1-a", 1.25)):
        samples = audio.load(copies[utt].source)
        assert copies[utt].duration_s == pytest.approx(2 / factor, abs=0.01) and copies[utt].speaker == utt[:-2]
        peak_hz = np.abs(np.fft.rfft(samples)).argmax() / (len(samples) / 16000)
        assert peak_hz == pytest.approx(400 * factor, abs=2)
    stamp = (tmp_path / "train_sp/wav/sp0.8-s1-a.flac").stat().st_mtime_ns
    speed(tmp_path / "train", tmp_path / "train_sp", [0.8, 1.0, 1.25])
    assert (tmp_path / "train_sp/wav/sp0.8-s1-a.flac").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="--speeds: 9"):
        speed(tmp_path / "train", tmp_path / "train_sp", [9.0])
