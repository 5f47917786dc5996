"""Audio: every format and rate gives the same 16 kHz samples, and every broken file is named."""

import io

import numpy as np
import pytest
import soundfile

from hfftools.audio import waveform
from hfftools.log import UserError

SECONDS = 2.0
LOSSLESS = {"wav": {}, "flac": {}}
LOSSY = {"mp3": {}, "ogg": {"format": "OGG", "subtype": "VORBIS"}, "opus": {"format": "OGG", "subtype": "OPUS"}}


def tone(rate_hz, seconds=SECONDS, frequency_hz=440.0):
    """A tone that fades in and out, float32 [N]."""
    n = round(seconds * rate_hz)
    return (0.5 * np.hanning(n) * np.sin(2 * np.pi * frequency_hz * np.arange(n) / rate_hz)).astype(np.float32)


def difference(a, b):
    """Root mean square of the difference over that of `b`, over the length both have."""
    n = min(len(a), len(b))
    return np.sqrt(np.mean((a[:n] - b[:n]) ** 2) / np.mean(b[:n] ** 2))


@pytest.mark.parametrize(("suffix", "options"), [*LOSSLESS.items(), *LOSSY.items()])
def test_formats_agree(tmp_path, suffix, options):
    path = str(tmp_path / f"a.{suffix}")
    soundfile.write(path, tone(16000), 16000, **options)
    samples = waveform.load(path)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) - 32000) <= 1600
    assert difference(samples, tone(16000)) < (1e-4 if suffix in LOSSLESS else 0.1)
    assert waveform.duration_s(path) == pytest.approx(len(samples) / 16000, abs=0.1)
    assert np.array_equal(waveform.load(f"cat {path} |"), samples)
    # reading a segment is cutting the whole
    assert difference(waveform.load(path, 0.75, 1.25), samples[12000:20000]) < 1e-2
    assert len(waveform.load(path, 0.75, 1.25)) == 8000


@pytest.mark.parametrize("rate_hz", [8000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_rates_and_channels_agree(tmp_path, rate_hz, channels):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.stack([tone(rate_hz)] * channels, axis=1), rate_hz, subtype="FLOAT")
    samples = waveform.load(path)
    assert len(samples) == 32000
    assert difference(samples, tone(16000)) < 1e-2
    assert waveform.duration_s(path) == pytest.approx(SECONDS)
    assert len(waveform.load(path, 0.5, 1.0)) == 8000


def test_channels_are_averaged(tmp_path):
    left, right = tone(16000, frequency_hz=300), tone(16000, frequency_hz=700)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    assert np.allclose(waveform.load(str(tmp_path / "a.wav")), (left + right) / 2, atol=1e-6)


def test_a_segment_without_an_end_goes_to_the_end(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, tone(16000), 16000, subtype="FLOAT")
    assert np.array_equal(waveform.load(path, 1.5), tone(16000)[24000:])


def broken(folder):
    """{file: words of its error} of files that are all wrong in another way."""
    good = tone(16000)
    soundfile.write(folder / "good.wav", good, 16000)
    soundfile.write(folder / "good.flac", good, 16000)
    soundfile.write(folder / "good.mp3", good, 16000)
    soundfile.write(folder / "zero.wav", good[:0], 16000)
    for name, value in (("nan.wav", np.nan), ("inf.wav", np.inf), ("huge.wav", -1e30)):
        bad = good.copy()
        bad[1000] = value
        soundfile.write(folder / name, bad, 16000, subtype="FLOAT")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("not audio at all, but words")
    (folder / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(4000))
    (folder / "samples.raw").write_bytes(bytes(4000))
    (folder / "talk.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    for suffix in ("flac", "mp3"):
        content = (folder / f"good.{suffix}").read_bytes()
        (folder / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    return {
        "missing.wav": "does not exist",
        "zero.wav": "no samples",
        "nan.wav": "not finite",
        "inf.wav": "not finite",
        "huge.wav": "not finite numbers, or beyond 1e+10",
        "empty.wav": "empty",
        "text.wav": "cannot be decoded",
        "noise.mp3": "cannot be decoded",
        "talk.m4a": "convert it by: ffmpeg -i ",
        "samples.raw": "cannot be decoded",
        "cut.flac": "cut short",
        "cut.mp3": "cut short",
    }


def test_broken_files_are_named_with_their_fault(tmp_path):
    for name, words in broken(tmp_path).items():
        with pytest.raises(UserError) as error:
            waveform.load(str(tmp_path / name))
        assert str(tmp_path / name) in str(error.value) and words in str(error.value)
    for name in ("missing.wav", "zero.wav", "empty.wav", "text.wav"):
        with pytest.raises(UserError, match=name):
            waveform.duration_s(str(tmp_path / name))


def test_segments_outside_the_recording_are_refused(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, tone(16000), 16000)
    with pytest.raises(UserError, match="no samples between 3.0"):
        waveform.load(path, 3.0, 4.0)
    with pytest.raises(UserError, match="no samples between 0.5 s and 0.50001 s"):
        waveform.load(path, 0.5, 0.50001)
    with pytest.raises(UserError, match="segment is too long"):
        waveform.load(path, 1.0, 3.0)
    # rounding in a segments file is no fault
    assert len(waveform.load(path, 1.0, 2.01)) == 16000


@pytest.mark.parametrize(
    ("command", "words"), [("exit 3 |", "exit code 3"), ("true |", "no output"), ("no_such_command_here |", "127")]
)
def test_failing_commands_are_named(command, words):
    with pytest.raises(UserError, match=words) as error:
        waveform.load(command)
    assert command in str(error.value)


def test_a_command_runs_once_for_all_segments_of_its_recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    source = f"echo run >> {tmp_path}/count; cat {tmp_path}/a.wav |"
    pieces = [waveform.load(source, start, start + 0.5) for start in (0.0, 0.5, 1.0, 1.5)]
    assert np.array_equal(np.concatenate(pieces), waveform.load(str(tmp_path / "a.wav")))
    assert (tmp_path / "count").read_text() == "run\n"


def test_saved_audio_comes_back_and_clips(tmp_path):
    waveform.save(tmp_path / "a.wav", np.concatenate([tone(16000), [3.0, -3.0]]))
    samples = waveform.load(str(tmp_path / "a.wav"))
    assert np.allclose(samples[:-2], tone(16000), atol=1e-4)
    assert samples[-2] == pytest.approx(1, abs=1e-4) and samples[-1] == -1
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 44100, 48000])
def test_blocks_side_by_side_are_the_whole(tmp_path, rate_hz):
    path = tmp_path / "a.wav"
    wav_N = np.random.default_rng(0).uniform(-0.5, 0.5, round(7.3 * rate_hz)).astype(np.float32)
    soundfile.write(path, np.stack([wav_N, wav_N], 1), rate_hz, subtype="FLOAT")
    found = list(waveform.blocks(path, str(path), block_s=2))
    assert len(found) == 4
    assert np.allclose(np.concatenate(found), waveform.load(str(path)), atol=1e-5)


def test_blocks_of_an_open_file_whose_header_does_not_know_its_length(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000)
    streamed = bytearray(path.read_bytes())
    streamed[4:8] = streamed[40:44] = b"\xff" * 4  # as programs write that cannot go back to the header
    (found,) = waveform.blocks(io.BytesIO(bytes(streamed)), "standard input")
    assert np.allclose(found, waveform.load(str(path)), atol=1e-4)


def test_blocks_take_no_path_for_a_command(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list(waveform.blocks(tmp_path / "touch hacked |", "it"))


def test_channels_in_opposite_phase_are_named_once_and_one_can_be_chosen(tmp_path, caplog):
    left = tone(16000)
    for name, right in (("opposite", -left), ("other", tone(16000, frequency_hz=700)), ("one-sided", 0 * left)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.stack([left, right], axis=1), 16000, subtype="FLOAT")
        with caplog.at_level("WARNING", "hff"):
            waveform.load(str(path))
            list(waveform.blocks(path, str(path), block_s=1))
        for number, wanted in ((1, left), (2, right)):
            found = np.concatenate(list(waveform.blocks(path, str(path), channel=number)))
            assert np.array_equal(found, wanted.astype(np.float32))
        with pytest.raises(UserError, match="--channel 3: audio .* has 2"):
            list(waveform.blocks(path, str(path), channel=3))
    (record,) = caplog.records
    assert "opposite.wav" in record.getMessage() and "--channel 1" in record.getMessage()
