"""Recordings of any kind give the texts of their pieces; a broken one is named, and the others go on."""

import io
import json
import os
import shutil
import subprocess
import sys
import termios
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import soundfile

from hfftools.audio import waveform
from hfftools.config import conf_file
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.infer import transcribe
from hfftools.infer.bank import Bank
from hfftools.infer.transcribe import Options
from hfftools.log import UserError
from hfftools.train import job


@pytest.fixture(scope="module")
def trained(corpus, encoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("transcribed") / "exp"
    options = [
        f"upstream={encoder}", f"data.train={corpus}/train", f"data.dev={corpus}/dev", f"data.test=[{corpus}/test]",
        f"data.units={corpus}/units", "data.batch_seconds=12", "task.head=linear", "train.epochs=3", "data.workers=0",
        "device=cpu", "optim.head.lr=0.1", "optim.fuse.lr=0.05",
    ]  # fmt: skip
    job.train(root, [conf_file("method", "hff")], options)
    return root


def test_the_options_that_may_be_set_are_shown(trained):
    shown = transcribe.show_options(trained, ["data.batch_seconds=7"])
    assert [line.split("#")[0].split() for line in shown.splitlines()] == [
        ["device:", "cpu"],
        ["data:"],
        ["batch_seconds:", "7.0"],
    ]


@pytest.fixture(scope="module")
def speech(corpus):
    """Waveforms of the test set."""
    data = Speech(datadir.read(corpus / "test"), None)
    return [wav.numpy() for _, wav in (data[row] for row in range(len(data)))]


def command(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "hfftools.bin.transcribe", *map(str, words)], capture_output=True, **options
    )


def test_files_folders_and_standard_input_of_any_kind(trained, speech, tmp_path):
    wav_N = np.concatenate([speech[0], np.zeros(16000, np.float32), speech[1]])
    (tmp_path / "in" / "deep").mkdir(parents=True)
    waveform.save(tmp_path / "in" / "deep" / "a.flac", wav_N)
    soundfile.write(tmp_path / "in" / "b.ogg", wav_N, 16000, format="OGG", subtype="VORBIS")
    (tmp_path / "in" / "notes.txt").write_text("no recording")
    waveform.save(tmp_path / "c.wav", wav_N)
    stereo = np.repeat(wav_N, 3)[:, None] * np.ones(2, np.float32)  # 48 kHz
    soundfile.write(stream := io.BytesIO(), stereo, 48000, format="WAV")
    done = command(trained, tmp_path / "c.wav", tmp_path / "in", "-", "device=cpu", input=stream.getvalue())
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [name for name, _ in lines] == [
        f"{tmp_path}/c.wav",
        f"{tmp_path}/in/b.ogg",
        f"{tmp_path}/in/deep/a.flac",
        "-",
    ]
    assert lines[0][1] == lines[2][1] != ""


def test_the_text_is_that_of_the_pieces_whatever_the_batch(trained, speech, tmp_path):
    pause = np.zeros(20000, np.float32)
    waveform.save(tmp_path / "long.wav", np.concatenate([part for wav_N in speech for part in (pause, wav_N, pause)]))
    waveform.save(tmp_path / "one.wav", speech[0])
    found = []
    for seconds, name in ((2, "narrow"), (100, "wide")):
        options = Options(form="json", out=tmp_path / name)
        words = [str(tmp_path / "long.wav"), str(tmp_path / "one.wav")]
        overrides = ["device=cpu", f"data.batch_seconds={seconds}"]
        assert transcribe.transcribe(trained, words, overrides, options) == (2, 0)
        found.append([json.loads((tmp_path / name / f"{stem}.json").read_text()) for stem in ("long", "one")])
    assert [f["segments"] for f in found[0]] == [f["segments"] for f in found[1]]
    segments = found[0][0]["segments"]
    assert len(segments) >= 3
    assert all(a["end_s"] <= b["start_s"] for a, b in zip(segments, segments[1:], strict=False))
    samples = waveform.load(str(tmp_path / "long.wav"))
    model = Bank().add(trained)
    for segment in segments[:3]:
        piece = transcribe.Piece(0, samples[round(segment["start_s"] * 16000) : round(segment["end_s"] * 16000)])
        assert model.predict(transcribe._batch([piece])) == [segment["text"]]


def test_segments_in_python_are_those_of_the_command(trained, speech, tmp_path):
    pause = np.zeros(20000, np.float32)
    path = tmp_path / "all.wav"
    waveform.save(path, np.concatenate([part for wav_N in speech for part in (pause, wav_N, pause)]))
    options = Options(form="json", out=tmp_path / "json", max_s=1.0)
    transcribe.transcribe(trained, [str(path)], ["device=cpu"], options)
    wanted = json.loads((tmp_path / "json" / "all.json").read_text())["segments"]
    model = Bank().add(trained)
    written = [
        {"start_s": round(s.start_s, 3), "end_s": round(s.end_s, 3), "text": s.text}
        for s in transcribe.segments(model, path, options, batch_seconds=2)
    ]
    assert written == wanted and len(wanted) >= 2
    with pytest.raises(UserError, match="none.wav: no such file"):
        transcribe.segments(model, tmp_path / "none.wav")


def test_empty_silent_and_very_short_recordings_have_no_text(trained, tmp_path):
    for name, samples in (("empty", 0), ("short\nname", 5), ("silent", 48000)):
        waveform.save(tmp_path / f"{name}.wav", np.zeros(samples, np.float32))
    waveform.save(tmp_path / "click.wav", np.full(3, 0.5, np.float32))
    done = command(trained, tmp_path, "device=cpu", text=True)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition("\t")[2] for line in done.stdout.splitlines()] == ["", "", "", ""]


def test_what_cannot_be_read_is_named_and_the_others_go_on(trained, speech, tmp_path):
    waveform.save(tmp_path / "good.wav", speech[0])
    (tmp_path / "bad.wav").write_bytes(b"RIFF this is none")
    (tmp_path / "zero.flac").write_bytes(b"")
    whole = io.BytesIO()
    soundfile.write(whole, np.concatenate(speech), 16000, format="FLAC")
    (tmp_path / "cut.flac").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    names = ["bad.wav", "cut.flac", "good.wav", "none.wav", "zero.flac"]
    done = command(
        trained, *(tmp_path / name for name in names), "touch hacked |", "device=cpu", text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and not (tmp_path / "hacked").exists()
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [f"{tmp_path}/good.wav"]
    lines = [line for line in done.stderr.splitlines() if "transcribing:" not in line]
    for name in ("bad.wav", "cut.flac", "none.wav", "zero.flac", "hacked |"):
        assert sum(name in line for line in lines) == 1, done.stderr
    assert "5 of 6 recordings could not be transcribed" in lines[-1] and "Traceback" not in done.stderr


def test_what_is_wrong_before_the_start_is_said_at_once(trained, tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "sub/a.wav"):
        waveform.save(tmp_path / name, np.zeros(100, np.float32))
    words = [str(tmp_path / "a.wav"), str(tmp_path / "sub" / "a.wav")]
    for given, options, what in (
        (words, Options(out=tmp_path / "out"), "would both be written to"),
        (words, Options(form="srt"), "need a file each; give --out"),
        (["-", "-"], Options(), "only once"),
        ([str(tmp_path / "out2")], Options(), None),
    ):
        if what:
            with pytest.raises(UserError, match=what):
                transcribe.transcribe(trained, given, [], options)
    (tmp_path / "a.txt").write_text("a transcript of the user\n")
    (tmp_path / "link").symlink_to(".")
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(UserError, match="a.txt is there already, next to its recording"):
            transcribe.transcribe(trained, [str(tmp_path / "a.wav")], [], Options(out=out))
    assert (tmp_path / "a.txt").read_text() == "a transcript of the user\n"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="nothing: no recordings in it"):
        transcribe.transcribe(trained, [str(tmp_path / "nothing")], [], Options())
    with pytest.raises(UserError, match="not an experiment"):
        transcribe.transcribe(tmp_path / "none", words, [], Options())
    wrong = [{"max_s": 0.5}, {"pause_s": 0.0}, {"channel": 0}]
    for given in [*wrong, *({name: float(value)} for name in ("max_s", "pause_s") for value in ("inf", "nan"))]:
        with pytest.raises(UserError, match="is not a number of seconds from|is below 1"):
            Options(**given)


def test_a_name_in_other_bytes_and_files_of_other_formats_stop_nothing(trained, speech, tmp_path, capsys, caplog):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    waveform.save(folder / "a.wav", speech[0])
    waveform.save(folder / "z.wav", speech[1])
    shutil.copy(folder / "a.wav", os.fsencode(folder) + b"/caf\xe9.wav")
    (folder / "talk 1.M4A").write_bytes(b"\0\0\0 ftypM4A ")
    (folder / "notes.txt").write_text("no recording")
    with caplog.at_level("WARNING", "hff"):
        assert transcribe.transcribe(trained, [str(folder)], ["device=cpu"], Options()) == (3, 0)
    names = [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [f"{folder}/a.wav", f"{folder}/caf\\xe9.wav", f"{folder}/z.wav"]
    convert = f"talk 1.M4A: skipped; .M4A files are not read; convert it by: ffmpeg -i '{folder}/talk 1.M4A'"
    assert caplog.text.count(convert) == 1 and "notes.txt" not in caplog.text
    options = Options(form="json", out=out)
    assert transcribe.transcribe(trained, [str(folder)], ["device=cpu"], options) == (3, 0)
    assert sorted(os.listdir(os.fsencode(out))) == [b"a.json", b"caf\xe9.json", b"z.json"]
    assert transcribe.transcribe(trained, [str(folder / "talk 1.M4A")], ["device=cpu"], options) == (1, 1)


def test_on_a_terminal_each_transcript_is_a_line_of_its_own(trained, speech, tmp_path):
    names = [f"{n}.wav" for n in range(4)]
    for name in names:
        waveform.save(tmp_path / name, speech[0])
    words = [sys.executable, "-m", "hfftools.bin.transcribe", trained, *names, "device=cpu", "data.batch_seconds=0.5"]
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    done = subprocess.Popen(words, cwd=tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # so ends what a terminal has shown
        while part := os.read(ours, 1 << 16):
            written += part
    os.close(ours)
    assert done.wait() == 0 and b"transcribing:" in written, written
    lines = [line.rpartition("\r")[2] for line in written.decode().replace("\r\n", "\n").split("\n")]
    texts = [line.partition("\t") for line in lines if "\t" in line]
    assert [name for name, _, _ in texts] == names
    assert len({text for _, _, text in texts}) == 1  # nothing of the bar is in one of them


def test_memory_does_not_grow_with_the_length(tmp_path):
    peaks = []
    for minutes in (4, 16):
        path = tmp_path / f"{minutes}.wav"
        rng = np.random.default_rng(0)
        with soundfile.SoundFile(path, "w", 22050, 2) as file:
            for _ in range(minutes * 30):
                file.write(np.concatenate([0.1 * rng.standard_normal((22050, 2)), np.zeros((22050, 2))]))
        tracemalloc.start()
        pieces = sum(1 for _ in transcribe.cut(waveform.blocks(path, str(path)), 20.0, 0.6))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pieces == minutes * 30
    assert peaks[1] < 1.1 * peaks[0]
