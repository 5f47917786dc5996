"""Cutting at silences: nothing of the speech is lost, pieces are short enough, and gain, noise and blocks play no part."""

import numpy as np
import pytest

from hfftools.audio.segment import cut
from hfftools.audio.waveform import RATE_HZ

RNG = np.random.default_rng(0)


def noise(seconds: float, level: float) -> np.ndarray:
    return (level * RNG.standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def recording(*parts: tuple[float, float], floor: float = 1e-3) -> np.ndarray:
    """(seconds, level) of stretches, over a floor of noise."""
    wav_N = np.concatenate([noise(*part) for part in parts])
    return wav_N + noise(len(wav_N) / RATE_HZ, floor)


def spans(wav_N, max_s=20.0, pause_s=0.5, block=RATE_HZ):
    pieces = list(cut((wav_N[at : at + block] for at in range(0, len(wav_N), block)), max_s, pause_s))
    for piece in pieces:
        start = round(piece.start_s * RATE_HZ)
        assert np.array_equal(piece.wav_N, wav_N[start : start + len(piece.wav_N)])  # the times are the samples'
    return [(piece.start_s, piece.end_s) for piece in pieces]


PARTS = [(1.0, 0), (2.0, 0.1), (0.8, 0), (3.0, 0.2), (0.2, 0), (1.0, 0.1), (2.0, 0)]  # speech at 1–3 and 3.8–8.0 s


@pytest.mark.parametrize("gain", [0.01, 1.0, 5.0])
@pytest.mark.parametrize("block", [1000, 16000, 10**6])
def test_one_piece_from_each_pause_to_the_next(gain, block):
    found = spans(gain * recording(*PARTS), block=block)
    assert np.allclose(found, [(0.7, 3.3), (3.5, 8.3)], atol=0.05)


@pytest.mark.parametrize("floor", [0.0, 1e-4, 5e-3])
def test_the_level_of_the_noise_plays_no_part(floor):
    assert np.allclose(spans(recording(*PARTS, floor=floor)), [(0.7, 3.3), (3.5, 8.3)], atol=0.05)


def test_an_offset_is_no_sound():
    assert np.allclose(spans(recording(*PARTS) + np.float32(0.3)), [(0.7, 3.3), (3.5, 8.3)], atol=0.05)


def test_what_is_too_long_is_cut_in_its_longest_short_pause():
    wav_N = recording((4.0, 0.1), (0.15, 0), (3.0, 0.1), (0.3, 0), (6.0, 0.1))
    assert np.allclose(spans(wav_N, max_s=10.0), [(0, 7.3), (7.3, 13.45)], atol=0.05)


def test_without_any_pause_the_pieces_are_short_enough_and_lose_nothing():
    found = spans(recording((47.0, 0.1)), max_s=10.0)
    assert found[0][0] == 0 and found[-1][1] == pytest.approx(47.0) and len(found) > 4
    assert all(end - start <= 10.0 for start, end in found)
    assert all(before[1] == pytest.approx(after[0]) for before, after in zip(found, found[1:], strict=False))


def test_no_speech_is_lost_whatever_the_pauses():
    parts = [part for _ in range(40) for part in ((RNG.uniform(0.3, 4), 0.1), (RNG.uniform(0.05, 1.2), 0))]
    found, at = spans(recording(*parts), max_s=6.0), 0.0
    assert all(end - start <= 6.0 + 1e-6 for start, end in found)
    for seconds, level in parts:
        inside = sum(max(0.0, min(end, at + seconds) - max(start, at)) for start, end in found)
        assert not level or inside > seconds - 0.06
        at += seconds


def test_long_silence_between_is_neither_kept_nor_heard():
    found = spans(recording((2.0, 0.1), (100.0, 0), (2.0, 0.1)))
    assert np.allclose(found, [(0, 2.3), (101.7, 104.0)], atol=0.05)


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 5.0, 50.0])
def test_nothing_comes_of_silence(seconds):
    assert spans(np.zeros(round(seconds * RATE_HZ), np.float32)) == []


def test_a_recording_of_less_than_a_frame_is_one_piece():
    assert len(spans(noise(0.005, 0.1))) == 1


def test_without_any_pause_a_piece_is_cut_where_it_is_quietest():
    """Cut in the 0.2 s that are 4 dB below the rest: too loud for a pause."""
    found = spans(recording((7.0, 0.1), (0.2, 0.063), (6.0, 0.1)), max_s=10.0)
    assert len(found) == 2 and 7.0 < found[0][1] < 7.2
