"""Transcribe recordings of any length with a trained experiment, as whole texts or timed segments.

Recordings are read block by block and cut at their silences; pieces of several recordings share a batch. Apart from its
text, the memory needed does not grow with the length of a recording. B pieces of at most N samples make a batch.
"""

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os.path import realpath
from pathlib import Path
from tempfile import TemporaryFile

import torch

from hfftools import memory
from hfftools.audio import waveform
from hfftools.audio.decoder import display
from hfftools.audio.segment import Piece, cut
from hfftools.data.batch import Batch, plan, waveform_batch
from hfftools.expdir import ExpDir, write_text
from hfftools.infer.bank import Bank
from hfftools.log import UserError, log, progress, put_out, require
from hfftools.model import Model
from hfftools.show import show
from hfftools.task.base import Recognition
from hfftools.text.transcript import Segment, render
from hfftools.train import experiment

STDIN = "-"
# pieces worth this many batches are cut before the next ones are recognised, so that pieces of similar length share a batch
AHEAD = 4
COPY_BYTES = 1 << 20


@dataclass
class Options:
    """State how recordings are cut and where their text goes."""

    max_s: float = 20.0  # the longest piece
    pause_s: float = 0.6  # silence that ends a piece
    form: str = "text"  # one of FORMATS of text/transcript.py
    out: Path | None = None  # a folder that gets one file for each recording; None: standard output
    channel: int | None = None  # the channel that is heard, from 1 on; None: the mean of all

    def __post_init__(self):
        for value, least, option in ((self.max_s, 1, "--max-seconds"), (self.pause_s, 0.1, "--pause")):
            require(least <= value < math.inf, f"{option}: {value} is not a number of seconds from {least} on")
        require(self.channel is None or self.channel >= 1, f"--channel: {self.channel} is below 1, the first channel")


@dataclass
class Recording:
    """Hold the state of one recording.

    `path` is None for standard input; `stem` is the name of its file in the output folder, without the suffix.
    """

    name: str
    path: Path | None
    stem: str
    segments: list[Segment] = field(default_factory=list)
    failed: bool = False


def show_options(root: Path, overrides: list[str]) -> str:
    """Return, as yaml, the options of an experiment that may be set for transcribing."""
    lines = show(experiment.read_config(ExpDir(root), overrides)).splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith(("device:", "data:", "  batch_seconds:")))


def transcribe(root: Path, words: Sequence[str], overrides: list[str], options: Options) -> tuple[int, int]:
    """Transcribe the recordings that `words` name, write their texts, and return (their number, how many failed).

    `words` are files, folders, which are searched, and `-` for standard input. A recording that cannot be read is named in a
    line of the log and has no text; the others are transcribed. Raises UserError for what is wrong before any of them is
    opened: no experiment, a word that names nothing, two recordings with one output file, an output file that is there
    next to its recording.
    """
    config = experiment.read_config(ExpDir(Path(root)), overrides)
    recordings = find(words)
    _refuse_collisions(recordings, options)
    recognises = issubclass(experiment.task_of(config), Recognition)
    require(recognises, f"{root}: task {config.task.name} does not predict text; hff-decode writes what it predicts")
    model = Bank().add(Path(root), config)
    bar = progress(None, None, "transcribing", unit="s")
    waiting = list(recordings)
    for pool in _pools(recordings, options, AHEAD * config.data.batch_seconds):
        _recognise(model, pool, config.data.batch_seconds, bar.update)
        last = pool[-1][0] if pool else None  # more of its pieces may follow; those before it are complete
        while waiting and waiting[0] is not last:
            _write(waiting.pop(0), options)
    for recording in waiting:
        _write(recording, options)
    bar.close()
    return len(recordings), sum(recording.failed for recording in recordings)


def segments(
    model: Model, path: str | Path, options: Options | None = None, batch_seconds: float = 120.0
) -> list[Segment]:
    """Return the timed text of one recording, for use from Python; pieces in which nothing is recognised are left out.

    `model` is what `Bank().add(experiment)` returns. Of `options`, `max_s`, `pause_s` and `channel` matter. At most
    `batch_seconds` of padded audio are decoded at a time, but the whole recording is in memory, which is 230 MB an hour.
    Raises UserError where the recording cannot be read.
    """
    options, recording = options or Options(), Recording(display(path), Path(path), Path(path).stem)
    pool = [(recording, piece) for piece in cut(_blocks(recording, options.channel), options.max_s, options.pause_s)]
    _recognise(model, pool, batch_seconds, lambda done_s: None)
    return recording.segments


def find(words: Sequence[str]) -> list[Recording]:
    """Return the recordings that `words` name, in their order; those of a folder are sorted."""
    recordings = []
    for word in words:
        path = Path(word)
        if word == STDIN:
            recordings.append(Recording(STDIN, None, "stdin"))
        elif path.is_dir():
            inside = waveform.find_files(path)
            require(len(inside) > 0, f"{word}: no recordings in it; their names end in {', '.join(waveform.SUFFIXES)}")
            recordings += [Recording(display(p), p, str(p.relative_to(path).with_suffix(""))) for p in inside]
        else:
            recordings.append(Recording(display(word), path, path.stem))
    return recordings


def _refuse_collisions(recordings: list[Recording], options: Options) -> None:
    require(sum(r.path is None for r in recordings) <= 1, "standard input can be read only once; give a single -")
    require(
        options.out is not None or options.form != "srt" or len(recordings) == 1,
        "--format srt: the subtitles of several recordings need a file each; give --out",
    )
    stems: dict[str, str] = {}
    for recording in recordings if options.out is not None else []:
        other = stems.setdefault(recording.stem, recording.name)
        if other is not recording.name:
            raise UserError(f"{other} and {recording.name} would both be written to {recording.stem} in {options.out}")
        text = _text_file(recording, options)
        next_to_it = recording.path is not None and realpath(text.parent) == realpath(recording.path.parent)
        if next_to_it and text.exists():
            raise UserError(
                f"{text} is there already, next to its recording, and may be a transcript of yours; give another --out, "
                "or remove it"
            )


def _pools(recordings: list[Recording], options: Options, pool_s: float) -> Iterator[list[tuple[Recording, Piece]]]:
    """Yield the pieces of all recordings, in their order, about `pool_s` seconds of them at a time."""
    pool: list[tuple[Recording, Piece]] = []
    seconds = 0.0
    for recording in recordings:
        try:
            for piece in cut(_blocks(recording, options.channel), options.max_s, options.pause_s):
                pool.append((recording, piece))
                seconds += len(piece.wav_N) / waveform.RATE_HZ
                if seconds >= pool_s:
                    yield pool
                    pool, seconds = [], 0.0
        except (UserError, OSError) as error:
            recording.failed = True
            log.error(error if isinstance(error, UserError) else f"{recording.name}: {error.strerror or error}")
    yield pool


def _blocks(recording: Recording, channel: int | None) -> Iterator:
    if recording.path is not None:
        require(recording.path.is_file(), f"{recording.name}: no such file")
        yield from waveform.blocks(recording.path, recording.name, channel=channel)
        return
    with TemporaryFile() as kept:  # on disk, since a decoder seeks in a file
        shutil.copyfileobj(sys.stdin.buffer, kept, COPY_BYTES)
        kept.seek(0)
        yield from waveform.blocks(kept, "standard input", channel=channel)


def _recognise(
    model: Model, pool: list[tuple[Recording, Piece]], batch_seconds: float, done_s: Callable[[float], object]
) -> None:
    """Add a segment to its recording for each piece in which something is recognised."""
    device = next(model.parameters()).device
    texts = [""] * len(pool)
    for rows in plan([len(piece.wav_N) / waveform.RATE_HZ for _, piece in pool], batch_seconds):
        chosen = [pool[row] for row in rows]
        names = [f"{recording.name} at {piece.start_s:.1f} s" for recording, piece in chosen]
        memory.work_on(names, [len(piece.wav_N) / waveform.RATE_HZ for _, piece in chosen])
        batch = _batch([piece for _, piece in chosen]).to(device)
        for row, text in zip(rows, model.predict(batch), strict=True):
            texts[row] = text
        done_s(round(batch.seconds))
    for (recording, piece), text in zip(pool, texts, strict=True):
        if text:
            recording.segments.append(Segment(piece.start_s, piece.end_s, text))


def _batch(pieces: list[Piece]) -> Batch:
    wavs = [torch.from_numpy(piece.wav_N) for piece in pieces]
    ids = [str(number) for number in range(len(pieces))]
    return waveform_batch(wavs, sum(len(wav) for wav in wavs) / waveform.RATE_HZ, ids)


def _write(recording: Recording, options: Options) -> None:
    if recording.failed:
        return
    text = render(recording.name, recording.segments, options.form)
    if options.out is None:
        put_out(text)
    else:
        write_text(_text_file(recording, options), text)
    recording.segments.clear()


def _text_file(recording: Recording, options: Options) -> Path:
    """Return the file that a recording's text is written to, where there is an output folder."""
    ending = {"text": "txt"}.get(options.form, options.form)
    return (options.out or Path()) / f"{recording.stem}.{ending}"
