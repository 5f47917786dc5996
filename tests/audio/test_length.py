"""The length of a recording is what can be decoded, whatever its header says; a file that is cut short is named."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hfftools.audio import waveform
from hfftools.log import UserError

FORMS = {
    "wav": {},
    "flac": {},
    "mp3": {},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}
CHUNKED = {"rf64": {}, "w64": {}, "aiff": {}, "caf": {}}
A_S, B_S, STEP_S = 3.5, 2.0, 0.5
LEVELS = [0.4, 0.1]  # of every other half second: what is heard shows where it comes from


def speech(seconds, rate_hz=16000):
    """Noise [N] whose level alternates between two values."""
    n = round(seconds * rate_hz)
    levels_N = np.array(LEVELS)[np.arange(n) // round(STEP_S * rate_hz) % 2]
    return (levels_N * np.random.default_rng(0).uniform(-1, 1, n)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{format: (bytes of 3.5 s, bytes of 2 s)}."""
    folder, content = tmp_path_factory.mktemp("whole"), {}
    for form, options in (FORMS | CHUNKED).items():
        for seconds in (A_S, B_S):
            soundfile.write(folder / f"{seconds}.{form}", speech(seconds), 16000, **options)
        content[form] = tuple((folder / f"{seconds}.{form}").read_bytes() for seconds in (A_S, B_S))
    return content


def frame_bytes(mp3):
    """Length of the first MP3 frame, the Info frame, at 16 kHz."""
    return 72000 * [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160][mp3[2] >> 4] // 16000


def with_bytes(content, *edits):
    edited = bytearray(content)
    for at, new in edits:
        edited[at : at + len(new)] = new
    return bytes(edited)


def streamed_flac(flac):
    """FLAC as an encoder writes it that cannot go back to the header: no total, no frame sizes, no checksum."""
    return with_bytes(flac, (12, bytes(6)), (21, bytes([flac[21] & 0xF0])), (22, bytes(20)))


def half(content):
    return content[: len(content) // 2]


UNKNOWN, PIPE, SOX, ARECORD = bytes(4), b"\xff" * 4, b"\x00\xf0\xff\x7f", b"\x00\x00\x00\x80"
ID3V1, ID3V2 = b"TAG" + bytes(125), b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\xff\xfb\x90\x00" * 64
LIST = b"LIST\x04\x00\x00\x00INFO"

# kind of file: (format, bytes from the two whole files, seconds or words of the message)
TABLE = {
    **{f"whole {form}": (form, lambda a, b: a, A_S) for form in FORMS},
    **{f"joined {form}": (form, lambda a, b: a + b, A_S + B_S) for form in FORMS},
    **{f"three joined {form}": (form, lambda a, b: b + a + b, A_S + 2 * B_S) for form in FORMS},
    **{f"half {form}": (form, lambda a, b: half(a), "cut short") for form in FORMS},
    **{f"half, then a whole {form}": (form, lambda a, b: half(a) + b, "cut short") for form in ("mp3", "flac")},
    **{f"a whole, then a half {form}": (form, lambda a, b: a + half(b), "cut short") for form in FORMS},
    **{f"whole {form}": (form, lambda a, b: a, A_S) for form in CHUNKED},
    **{f"half {form}": (form, lambda a, b: half(a), "cut short") for form in CHUNKED},
    **{f"{form} without its last 5 kB": (form, lambda a, b: a[:-5000], "cut short") for form in CHUNKED},
    "rf64 whose header has no length": ("rf64", lambda a, b: with_bytes(a, (28, bytes(8))), "no samples"),
    "aiff of a pipe": ("aiff", lambda a, b: half(with_bytes(a, (a.index(b"SSND") + 4, SOX[::-1]))), A_S / 2),
    "wav, data 0": ("wav", lambda a, b: with_bytes(a, (40, UNKNOWN)), A_S),
    "wav, RIFF 0, data 0": ("wav", lambda a, b: with_bytes(a, (4, UNKNOWN), (40, UNKNOWN)), A_S),
    "wav, data 0xFFFFFFFF": ("wav", lambda a, b: with_bytes(a, (4, PIPE), (40, PIPE)), A_S),
    "wav of sox in a pipe": ("wav", lambda a, b: with_bytes(a, (40, SOX)), A_S),
    "wav of arecord in a pipe": ("wav", lambda a, b: with_bytes(a, (40, ARECORD)), A_S),
    "half a wav of a pipe": ("wav", lambda a, b: half(with_bytes(a, (40, PIPE))), A_S / 2),
    "wav with a comment": ("wav", lambda a, b: a + LIST, A_S),
    "empty wav with a comment": ("wav", lambda a, b: with_bytes(a[:44], (40, UNKNOWN)) + LIST, "no samples"),
    "streamed flac": ("flac", lambda a, b: streamed_flac(a), A_S),
    "joined streamed flac": ("flac", lambda a, b: streamed_flac(a) + streamed_flac(b), A_S + B_S),
    "half a streamed flac": ("flac", lambda a, b: half(streamed_flac(a)), "cut short"),
    "wav of 67 MHz": ("wav", lambda a, b: with_bytes(a, (27, b"\x04")), "67124864 samples per second"),
    "flac cut in its header": ("flac", lambda a, b: a[:30], "cut short"),
    "flac with a damaged header": ("flac", lambda a, b: with_bytes(a, (5, PIPE)), "cannot be decoded"),
    "flac that promises a month": ("flac", lambda a, b: with_bytes(a, (21, bytes([a[21] | 15]))), "cut short"),
    "flac with ID3 tags": ("flac", lambda a, b: ID3V2 + a + ID3V1, A_S),
    "mp3 with ID3 tags": ("mp3", lambda a, b: ID3V2 + a + ID3V1, A_S),
    "joined mp3 with ID3 tags": ("mp3", lambda a, b: ID3V2 + a + ID3V1 + ID3V2 + b + ID3V1, A_S + B_S),
    # encoders add a delay, and without an Info frame the decoder does not know how much
    "mp3 without Info": ("mp3", lambda a, b: a[frame_bytes(a) :], 3.57),
    "mp3 joined without Info": ("mp3", lambda a, b: a + b[frame_bytes(b) :], A_S + 2.05),
    "ogg with a tag": ("ogg", lambda a, b: a + ID3V1, A_S),
}


def heard(path, as_command):
    """(seconds, samples [N]) by all functions that the commands use; they have to agree."""
    source = f"cat {path} |" if as_command else str(path)
    seconds = waveform.duration_s(source)
    (listed_s,) = waveform.durations_s([source], "test")
    samples = waveform.load(source)
    assert listed_s == seconds == pytest.approx(len(samples) / 16000, abs=1e-3)
    if not as_command:
        assert np.allclose(np.concatenate(list(waveform.blocks(Path(path), source, 1))), samples, atol=1e-5)
    return seconds, samples


@pytest.mark.parametrize("kind", TABLE)
def test_the_length_is_what_decodes(whole, tmp_path, kind):
    form, build, expected = TABLE[kind]
    path = tmp_path / f"a.{form}"
    path.write_bytes(build(*whole[form]))
    if isinstance(expected, str):
        calls = [waveform.duration_s, waveform.load, lambda source: list(waveform.blocks(path, source))]
        for call in calls[: 1 if expected == "no samples" else None]:
            with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{expected}"):
                call(str(path))
        return
    for as_command in (False, True):
        seconds, samples = heard(path, as_command)
        assert seconds == pytest.approx(expected, abs=0.03)
    if "joined" in kind and "Info" not in kind:  # the second stream begins with its own loud half second
        begin = round((B_S if kind.startswith("three") else A_S) * 16000)
        level = [np.abs(samples[begin + at : begin + at + 4000]).mean() for at in (2000, 10000)]
        assert level[0] > 0.1 and level[0] / level[1] == pytest.approx(4, rel=0.2)
        inside = waveform.load(str(path), begin / 16000 + 0.1, begin / 16000 + 0.4)  # a segment of the second stream
        assert np.abs(inside - samples[begin + 1600 : begin + 6400]).mean() < 0.01
        across = waveform.load(str(path), begin / 16000 - 0.2, begin / 16000 + 0.2)
        assert np.abs(across - samples[begin - 3200 : begin + 3200]).mean() < 0.01


def test_variable_bit_rate_without_an_info_frame_is_heard_whole(tmp_path):
    """The decoder estimates the length by the first frame's bit rate, here the highest of the file."""
    path, n = tmp_path / "a.mp3", 16000 * 4
    samples = np.concatenate([speech(4), np.zeros(n)])
    soundfile.write(path, samples, 16000, bitrate_mode="VARIABLE", compression_level=0.5)
    content = path.read_bytes()
    path.write_bytes(content[frame_bytes(content) :])
    assert heard(path, as_command=False)[0] == pytest.approx(8.1, abs=0.05)


def test_joined_files_of_different_rates_are_refused(tmp_path):
    for rate_hz in (16000, 24000):
        soundfile.write(tmp_path / f"{rate_hz}.mp3", speech(1, rate_hz), rate_hz)
    path = tmp_path / "a.mp3"
    path.write_bytes((tmp_path / "16000.mp3").read_bytes() + (tmp_path / "24000.mp3").read_bytes())
    with pytest.raises(UserError, match="a.mp3.*16000 Hz.*24000 Hz"):
        waveform.duration_s(str(path))
