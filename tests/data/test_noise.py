"""Noise: as much as is asked for, from anywhere in a recording, and as loud beside the speech as was asked."""

import numpy as np
import pytest

from hfftools.audio import waveform
from hfftools.data import datadir, noise
from hfftools.log import UserError


def ramp(path, seconds, rate_hz=16000):
    """A recording whose samples tell where in it they are: it rises from -0.9 to 0.9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform.save(path, np.linspace(-0.9, 0.9, round(seconds * rate_hz)), rate_hz)
    return path


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("snr_db", [-5, 0, 17.3, 40])
def test_a_mixture_has_the_ratio_asked_for(snr_db):
    speech = (0.2 * rng(1).standard_normal(30011)).astype(np.float32)
    mixed = noise.mix(speech, noise.coloured(len(speech), rng(2)), snr_db)
    added = mixed.astype(float) - speech
    assert mixed.dtype == np.float32
    assert 10 * np.log10(np.mean(speech.astype(float) ** 2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.1)


def test_nothing_is_added_to_silence_nor_is_silence():
    speech, silence = rng().standard_normal(800).astype(np.float32), np.zeros(800, np.float32)
    assert np.array_equal(noise.mix(silence, noise.coloured(800, rng()), 10), silence)
    assert np.array_equal(noise.mix(speech, silence, 10), speech)


def test_synthetic_noise_falls_with_frequency_by_slopes_of_many_kinds():
    slopes = []
    for seed in range(20):
        power = np.abs(np.fft.rfft(noise.coloured(16001, rng(seed)))) ** 2
        slopes.append(np.log(power[4000:8000].mean() / power[400:800].mean()) / np.log(0.1))
    assert -0.1 < min(slopes) < 0.6 < 1.4 < max(slopes) < 2.1


def test_an_excerpt_of_a_longer_recording_is_one_stretch_from_anywhere_in_it(tmp_path):
    ramp(tmp_path / "noise" / "a" / "long.wav", 10.0)
    (recording,) = noise.recordings(str(tmp_path / "noise"))
    firsts = []
    for seed in range(20):
        part = noise.excerpt(recording, 16000, rng(seed))
        assert len(part) == 16000 and np.ptp(part) == pytest.approx(0.18, abs=1e-3), "a tenth of the ramp"
        firsts.append(part[0])
    assert min(firsts) < -0.7 and max(firsts) > 0.4


def test_a_shorter_one_is_repeated_from_anywhere_in_it(tmp_path):
    ramp(tmp_path / "noise" / "short.flac", 0.5, rate_hz=8000)
    (recording,) = noise.recordings(str(tmp_path / "noise"))
    parts = [noise.excerpt(recording, 20001, rng(seed)) for seed in range(5)]
    for part in parts:
        assert len(part) == 20001 and np.array_equal(part[:8000], part[8000:16000])
        assert part[:8000].min() < -0.85 and part[:8000].max() > 0.85, "all of it is used"
    assert len({part[0] for part in parts}) == 5


def test_a_data_directory_gives_its_segments(tmp_path):
    wav = str(ramp(tmp_path / "n.wav", 10.0))
    spans = {"n-low": (0.0, 2.0), "n-top": (8.0, None)}
    parts = [datadir.Utterance(utt, "n", wav, None, *span, duration_s=2.0) for utt, span in spans.items()]
    datadir.write(tmp_path / "noise", parts)
    low, top = noise.recordings(str(tmp_path / "noise"))
    for seed in range(5):
        assert noise.excerpt(low, 8000, rng(seed)).max() < -0.53 and noise.excerpt(top, 8000, rng(seed)).min() > 0.53
        assert noise.excerpt(top, 40000, rng(seed)).min() > 0.53, "shorter than asked for: the segment is repeated"


def test_what_cannot_be_read_is_one_line(tmp_path):
    for place in ("nowhere", "empty"):
        with pytest.raises(UserError, match="perturb.noise: .*neither a data directory nor a folder of recordings"):
            noise.recordings(str(tmp_path / place))
        (tmp_path / "empty").mkdir(exist_ok=True)
    ramp(tmp_path / "noise" / "a.wav", 1.0)
    (tmp_path / "noise" / "b.wav").write_bytes(b"RIFF no audio")
    with pytest.raises(UserError, match="perturb.noise: audio .*b.wav: ") as caught:
        noise.recordings(str(tmp_path / "noise"))
    assert "\n" not in str(caught.value)
