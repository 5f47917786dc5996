"""Speech at other speeds and in noise: on the fly, from (seed, epoch, utterance) alone; as copies, spelled as Kaldi does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hfftools.audio import waveform
from hfftools.data import datadir, noise
from hfftools.data.batch import Speech, plan
from hfftools.data.perturb import Config, Perturb, speed
from hfftools.data.validation import validate
from hfftools.log import UserError

SPEEDS = [0.8, 1.0, 1.25]


def test_copies_have_the_length_and_pitch_of_their_speed(tmp_path):
    wav = tmp_path / "s1-a.wav"
    waveform.save(wav, 0.5 * np.sin(2 * np.pi * 400 * np.arange(32000) / 16000))
    datadir.write(tmp_path / "train", [datadir.Utterance("s1-a", "s1", str(wav), "go", duration_s=2.0)])
    assert speed(tmp_path / "train", tmp_path / "train_sp", [0.8, 1.0, 1.25]) == 3
    assert validate(tmp_path / "train_sp") == 3
    copies = {u.id: u for u in datadir.read(tmp_path / "train_sp")}
    assert set(copies) == {"s1-a", "sp0.8-s1-a", "sp1.25-s1-a"} and {u.text for u in copies.values()} == {"go"}
    for utt, factor in (("sp0.8-s1-a", 0.8), ("sp1.25-s1-a", 1.25)):
        samples = waveform.load(copies[utt].source)
        assert copies[utt].duration_s == pytest.approx(2 / factor, abs=0.01) and copies[utt].speaker == utt[:-2]
        peak_hz = np.abs(np.fft.rfft(samples)).argmax() / (len(samples) / 16000)
        assert peak_hz == pytest.approx(400 * factor, abs=2)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "train_sp" / "wav").iterdir()}
    speed(tmp_path / "train", tmp_path / "train_sp", [0.8, 1.0, 1.25])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "train_sp" / "wav").iterdir()} == stamps
    datadir.write(tmp_path / "train", [datadir.Utterance("s1-a", "s1", str(wav), "go", 0.5, 1.5, 1.0)])
    speed(tmp_path / "train", tmp_path / "train_sp", [0.8])
    (changed,) = datadir.read(tmp_path / "train_sp")
    assert len(waveform.load(changed.source)) == pytest.approx(16000 / 0.8, abs=2), "the segment of now, not of before"
    datadir.write(tmp_path / "train", [datadir.Utterance("s1-/../../a", "s1", str(wav), "go", duration_s=2.0)])
    speed(tmp_path / "train", tmp_path / "train_sp", [0.8])
    (odd,) = datadir.read(tmp_path / "train_sp")
    assert Path(odd.source).parent == tmp_path / "train_sp" / "wav", "no id leads out of the folder"
    with pytest.raises(UserError, match="--speeds: 9"):
        speed(tmp_path / "train", tmp_path / "train_sp", [9.0])


@pytest.fixture
def tones(tmp_path):
    """Twelve tones of 400 Hz, 1 to 1.55 s long; some are recorded at 44.1 kHz."""
    for n in range(12):
        rate_hz = 16000 if n % 3 else 44100
        seconds = 1 + n / 20
        wav = tmp_path / "wav" / f"s-{n:02d}.wav"
        waveform.save(wav, 0.3 * np.sin(2 * np.pi * 400 * np.arange(round(seconds * rate_hz)) / rate_hz), rate_hz)
    names = sorted(wav.stem for wav in (tmp_path / "wav").iterdir())
    lengths = [waveform.duration_s(str(tmp_path / "wav" / f"{name}.wav")) for name in names]
    return [
        datadir.Utterance(name, "s", str(tmp_path / "wav" / f"{name}.wav"), None, duration_s=length)
        for name, length in zip(names, lengths, strict=True)
    ]


def waveforms(data, batch_seconds, workers=0):
    """{utterance: samples} by way of batches."""
    waves = {}
    for batch in data.batches(plan(data.durations_s, batch_seconds, seed=3), workers):
        for utt, wav_N, length in zip(batch.ids, batch.wav_BN, batch.num_samples_B, strict=True):
            waves[utt] = wav_N[:length]
    return waves


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[utt], b[utt]) for utt in a)


def test_an_utterance_sounds_alike_in_any_batch_and_process_and_anew_in_each_epoch(tones):
    config = Config(speeds=SPEEDS, noise_share=0.5)
    data = Speech(tones, None, perturb=Perturb(config, seed=1))
    first = waveforms(data.at(4), 3.0)
    assert equal(first, waveforms(data.at(4), 30.0, workers=2))
    part = waveforms(Speech(tones[5:7], None, perturb=Perturb(config, seed=1)).at(4), 3.0)
    assert len(part) == 2 and equal(part, {utt: first[utt] for utt in part})
    assert equal(waveforms(data.at(4), 3.0), first), "other epochs between change nothing"
    for other in (data.at(5), Speech(tones, None, perturb=Perturb(config, seed=2)).at(4)):
        waves = waveforms(other, 3.0)
        assert sum(torch.equal(waves[utt], first[utt]) for utt in first) <= 6
    assert equal(waveforms(data, 3.0), waveforms(data.at(0), 3.0))


def test_speed_changes_length_and_pitch_and_leaves_the_rate(tones):
    perturb = Perturb(Config(speeds=SPEEDS), seed=0)
    data = Speech(tones, None, perturb=perturb)
    drawn = set()
    for epoch in range(3):
        waves = waveforms(data.at(epoch), 5.0)
        for utt, expected_s in zip(tones, data.at(epoch).durations_s, strict=True):
            factor = perturb.speed(utt.id, epoch)
            drawn.add(factor)
            wav_N = waves[utt.id].numpy()
            assert expected_s == pytest.approx(utt.duration_s / factor)
            assert len(wav_N) / 16000 == pytest.approx(expected_s, abs=1e-3)
            peak_hz = np.abs(np.fft.rfft(wav_N)).argmax() * 16000 / len(wav_N)
            assert peak_hz == pytest.approx(400 * factor, abs=1)
    assert drawn == set(SPEEDS)


def test_batches_are_planned_and_counted_by_the_speeds_drawn(tones):
    data = Speech(tones, None, perturb=Perturb(Config(speeds=[0.5, 2.0]), seed=0)).at(1)
    for batch in data.batches(plan(data.durations_s, 6.0, seed=0)):
        assert batch.wav_BN.numel() / 16000 <= 6.01
        assert batch.seconds == pytest.approx(batch.num_samples_B.sum().item() / 16000, abs=0.01)


def test_each_speed_is_drawn_as_often_and_for_no_reason_but_chance():
    perturb = Perturb(Config(speeds=[0.9, 1.0, 1.1]), seed=0)
    drawn = np.array([[perturb.speed(f"spk-{u:04d}", epoch) for u in range(1500)] for epoch in range(2)])
    for first in (0.9, 1.0, 1.1):
        assert (drawn[0] == first).mean() == pytest.approx(1 / 3, abs=0.05)
        for second in (0.9, 1.0, 1.1):
            assert (drawn[1][drawn[0] == first] == second).mean() == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize("kind", ["synthetic", "recorded"])
def test_noise_comes_in_its_share_at_ratios_from_the_range(tones, tmp_path, kind):
    place = ""
    if kind == "recorded":  # one longer and one shorter than any tone
        place = str(tmp_path / "noise")
        (tmp_path / "noise").mkdir()
        for seconds in (5, 0.2):
            hiss = np.random.default_rng(0).standard_normal(int(16000 * seconds)) / 10
            waveform.save(tmp_path / "noise" / f"{seconds}.wav", hiss)
    perturb = Perturb(Config(noise_share=0.5, noise=place, snr_db=[5.0, 25.0]), seed=0)
    clean, ratios_db, untouched = waveforms(Speech(tones, None), 9.0), [], 0
    for epoch in range(10):
        for utt, wav_N in waveforms(Speech(tones, None, perturb=perturb).at(epoch), 9.0).items():
            added = (wav_N - clean[utt]).double()
            untouched += not added.any()
            if added.any():
                ratios_db.append(10 * torch.log10(clean[utt].double().square().mean() / added.square().mean()).item())
    assert 40 <= untouched <= 80 and len(ratios_db) == 120 - untouched
    assert 4.9 < min(ratios_db) < 8 and 22 < max(ratios_db) < 25.1


def test_the_ratio_is_the_one_drawn(tones, monkeypatch):
    asked, mix = [], noise.mix
    monkeypatch.setattr(noise, "mix", lambda speech, sound, snr_db: asked.append(snr_db) or mix(speech, sound, snr_db))
    perturb = Perturb(Config(speeds=SPEEDS, noise_share=1.0), seed=0)
    plain = Perturb(Config(speeds=SPEEDS), seed=0)
    for utt in tones:
        samples = waveform.load(utt.source)
        clean = plain(samples, utt.id, 0).astype(float)
        added = perturb(samples, utt.id, 0) - clean
        assert 10 * np.log10(np.mean(clean**2) / np.mean(added**2)) == pytest.approx(asked[-1], abs=0.1)
    assert len(set(asked)) == len(tones)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_noise_file_that_goes_bad_is_one_line(tones, tmp_path, workers):
    (tmp_path / "noise").mkdir()
    waveform.save(tmp_path / "noise" / "hiss.wav", np.random.default_rng(0).standard_normal(160000) / 10)
    data = Speech(tones, None, perturb=Perturb(Config(noise_share=1.0, noise=str(tmp_path / "noise")), seed=0))
    (tmp_path / "noise" / "hiss.wav").write_bytes(b"RIFF no audio")
    with pytest.raises(UserError) as caught:
        waveforms(data, 5.0, workers)
    assert str(caught.value).startswith("perturb.noise: audio ") and "hiss.wav" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"speeds": [1.0, 9.0]}, "perturb.speeds: 9.0"),
        ({"speeds": []}, "perturb.speeds: none given"),
        ({"noise_share": 1.5}, "noise_share: 1.5"),
        ({"noise": "musan"}, "perturb.noise: musan has no effect"),
        ({"snr_db": [30.0, 10.0]}, "perturb.snr_db"),
        ({"snr_db": [10.0]}, "perturb.snr_db"),
    ],
)
def test_values_out_of_range_are_named(option, reason):
    with pytest.raises(UserError, match=reason.replace("[", r"\[")):
        Config(**option)
    assert not Config().wanted and Config(speeds=[1.1]).wanted and Config(noise_share=0.1).wanted
