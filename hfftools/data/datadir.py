"""Read and write Kaldi data directories (wav.scp, text, utt2spk, spk2utt, segments, utt2dur)."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np

from hfftools.audio import waveform
from hfftools.audio.stream import SPARE_S
from hfftools.data.table import listed, read_table, write_table
from hfftools.expdir import each_once
from hfftools.log import UserError, progress

PER_UTTERANCE = ("text", "utt2spk", "utt2dur", "utt2num_samples", "segments", "feats.scp")
FILES = ("wav.scp", "spk2utt", *PER_UTTERANCE)


@dataclass(frozen=True)
class Utterance:
    """Describe one utterance: the location of its audio, its speaker and its transcript."""

    id: str
    speaker: str
    source: str  # a path, or a command that ends in "|", as in wav.scp
    text: str | None = None  # or another reference, such as a label; None where the set has none
    start_s: float = 0.0
    end_s: float | None = None  # None: to the end of the recording
    duration_s: float = 0.0


def read(directory: Path | str, need_text: bool = True, reference: str = "text") -> list[Utterance]:
    """Return the utterances of a data directory in C-locale order; transcript words are separated by single spaces.

    With another `reference`, the name of a file in the directory, their `text` is what that file says, such as a label.

    Durations come from utt2dur or segments; if neither gives one, the audio header is read, once per recording.
    Raise UserError with the file and the first affected utterance if the directory is invalid.
    """
    if not str(directory):
        raise UserError("a data directory has no name; give its path, such as data/train")
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"data directory {directory} does not exist; stage 1 of a recipe makes it")
    wavs = read_table(directory / "wav.scp")
    spans = read_spans(directory, wavs)
    if not spans:
        raise UserError(f"{directory}/{_base(directory)} is empty")
    texts = _optional(directory, reference, value_required=False)
    if texts is None and need_text:
        raise UserError(f"{directory}/{reference} is missing")
    speakers = _optional(directory, "utt2spk")
    for name, table in ((reference, texts), ("utt2spk", speakers)):
        if table is not None:
            check_ids(directory, name, spans, table)
    durations = _durations(directory, spans, wavs)
    utterances = []
    for utt in sorted(spans):
        recording, start_s, end_s = spans[utt]
        text = " ".join(texts[utt].split()) if texts is not None else None
        speaker = speakers[utt] if speakers is not None else utt
        utterances.append(Utterance(utt, speaker, wavs[recording], text, start_s, end_s, durations[utt]))
    return utterances


def _optional(directory: Path, name: str, value_required: bool = True) -> dict[str, str] | None:
    """Return the table of a file that a data directory may lack; None where it does."""
    return read_table(directory / name, value_required) if listed(directory, name) else None


def _base(directory: Path) -> str:
    """Return the name of the file that lists the utterances."""
    return "segments" if listed(directory, "segments") else "wav.scp"


def read_spans(directory: Path, wavs: dict[str, str]) -> dict[str, tuple[str, float, float | None]]:
    """Return {utterance: (recording, start in s, end in s or None for the end of the recording)}."""
    segments = _optional(directory, "segments")
    if segments is None:
        return {utt: (utt, 0.0, None) for utt in wavs}
    spans = {}
    for utt, value in segments.items():
        try:
            recording, start_s, end_s = parse_span(value)
        except ValueError as error:
            raise UserError(f"{directory}/segments: '{utt} {value}' {error}") from None
        if recording not in wavs:
            raise UserError(f"{directory}/segments: recording '{recording}' of '{utt}' is missing from wav.scp")
        spans[utt] = recording, start_s, end_s
    return spans


def parse_span(value: str) -> tuple[str, float, float | None]:
    """Parse `recording start end`; an end of -1 becomes None (end of recording). Raise ValueError if it is malformed."""
    try:
        recording, start, end = value.split()
        start_s, end_s = float(start), float(end)
    except ValueError:
        raise ValueError("is not `utt recording start end`") from None
    if not (0 <= start_s < math.inf and (end_s == -1 or start_s < end_s < math.inf)):
        raise ValueError("does not end after it starts")
    return recording, start_s, None if end_s == -1 else end_s


def _durations(directory: Path, spans: dict, wavs: dict[str, str]) -> dict[str, float]:
    """Return {utterance: seconds}, from utt2dur, else from segments, else from the audio."""
    known = {}
    for utt, value in (_optional(directory, "utt2dur") or {}).items():
        if utt in spans:
            known[utt] = parse_seconds(directory, utt, value)
    for utt, (_, start_s, end_s) in spans.items():
        if utt not in known and end_s is not None:
            known[utt] = end_s - start_s
    # run each command, or read each header, once per recording: many segments may share it
    sources = sorted({wavs[recording] for utt, (recording, _, _) in spans.items() if utt not in known})
    bar = progress(sources, len(sources), f"durations of {directory.name}", "file") if sources else ()
    whole = {source: waveform.duration_s(source) for source in bar}
    for utt in spans.keys() - known.keys():
        recording, start_s, _ = spans[utt]
        known[utt] = whole[wavs[recording]] - start_s
        if known[utt] <= 0:
            raise UserError(f"{directory}/segments: '{utt}' starts at {start_s} s, after the end of '{recording}'")
    return known


def parse_seconds(directory: Path, utt: str, value: str) -> float:
    """Return a value of utt2dur as a number; raise UserError if it is not a duration."""
    if not is_positive(value):
        raise UserError(f"{directory}/utt2dur: '{utt} {value}' is not a number of seconds above 0")
    return float(value)


def load(utterance: Utterance) -> np.ndarray:
    """Return an utterance's samples [N] at 16 kHz; raise UserError unless they last as long as the directory says."""
    samples = waveform.load(utterance.source, utterance.start_s, utterance.end_s)
    there_s = len(samples) / waveform.RATE_HZ
    if abs(there_s - utterance.duration_s) > SPARE_S:
        raise UserError(
            f"utterance '{utterance.id}': its data directory says {utterance.duration_s:g} s, but {there_s:.2f} s of "
            f"audio are there, in {utterance.source}; run utils/fix_data_dir.sh on the directory, which corrects utt2dur"
        )
    return samples


def is_positive(value: str) -> bool:
    """Return whether `value` is a finite number above 0."""
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False


def check_ids(directory: Path, name: str, ids: Iterable[str], table: dict) -> None:
    """Raise UserError unless the file `name` lists exactly the utterances `ids`."""
    base = _base(directory)
    missing, extra = sorted(set(ids) - set(table)), sorted(set(table) - set(ids))
    for here, there, lost in ((name, base, extra), (base, name, missing)):
        if lost:
            raise UserError(
                f"{directory}/{here}: {len(lost)} utterances missing from {there}, first {lost[0]}; "
                f"run utils/fix_data_dir.sh {directory}"
            )


def set_name(directory: Path | str) -> str:
    """Return the name of the set in a data directory: that of the folder, also where it is written as `.` or `..`."""
    name = Path(os.path.abspath(directory)).name
    if not name:
        raise UserError(f"data directory {directory} has no name, by which its results could be kept; use another one")
    return name


def of_different_names(directories: Iterable[str], where: str) -> list[str]:
    """Return data directories, each once; raise UserError if two of them have one name in the folder `where`."""
    kept = each_once(directories)
    names = [set_name(directory) for directory in kept]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two data directories are called {twice[0]}, and both would be written to {where}; rename one")
    return kept


def write(directory: Path | str, utterances: Iterable[Utterance]) -> None:
    """Write a data directory of whole recordings or segments, in C-locale order; each file is replaced atomically.

    Remove files of an earlier set that no longer apply. Raise UserError for an id that is duplicated or contains spaces.
    """
    directory = Path(directory)
    utterances = sorted(utterances, key=lambda u: u.id)
    _check_writable(directory, utterances)
    tables: dict[str, dict[str, str]] = {}
    if any(u.start_s or u.end_s is not None for u in utterances):
        recordings: dict[str, str] = {}
        for u in utterances:
            recordings.setdefault(u.source, f"rec-{len(recordings):06d}")
        tables["wav.scp"] = {recording: source for source, recording in recordings.items()}
        ends = {u.id: -1 if u.end_s is None else f"{u.end_s:.4f}" for u in utterances}
        tables["segments"] = {u.id: f"{recordings[u.source]} {u.start_s:.4f} {ends[u.id]}" for u in utterances}
    else:
        tables["wav.scp"] = {u.id: u.source for u in utterances}
    if utterances[0].text is not None:
        tables["text"] = {u.id: " ".join((u.text or "").split()) for u in utterances}
    tables["utt2spk"] = {u.id: u.speaker for u in utterances}
    tables["spk2utt"] = by_speaker(tables["utt2spk"])
    tables["utt2dur"] = {u.id: f"{u.duration_s:.6f}" for u in utterances}
    tables["utt2num_samples"] = {u.id: str(round(u.duration_s * waveform.RATE_HZ)) for u in utterances}
    directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if name in tables:
            write_table(directory / name, tables[name])
        else:
            (directory / name).unlink(missing_ok=True)


def _check_writable(directory: Path, utterances: list[Utterance]) -> None:
    """Raise UserError for utterances, sorted by id, that a data directory cannot hold."""
    if not utterances:
        raise UserError(f"{directory}: no utterances to write; is the corpus directory the right one?")
    for u in utterances:
        for word in (u.id, u.speaker):
            if len(word.split()) != 1:
                raise UserError(f"{directory}: '{word}' of {u.source} cannot be an id: it is empty or has spaces")
    for a, b in pairwise(utterances):
        if a.id == b.id:
            raise UserError(f"{directory}: utterance '{a.id}' is there twice, as {a.source} and as {b.source}")
    bare = [u.id for u in utterances if u.text is None]
    if 0 < len(bare) < len(utterances):
        raise UserError(f"{directory}: {len(bare)} utterances have no transcript while others have, first {bare[0]}")


def by_speaker(speakers: dict[str, str]) -> dict[str, str]:
    """Convert utt2spk {utterance: speaker} to spk2utt {speaker: utterances separated by spaces}."""
    lists: dict[str, list[str]] = {}
    for utt in sorted(speakers):
        lists.setdefault(speakers[utt], []).append(utt)
    return {speaker: " ".join(utts) for speaker, utts in lists.items()}


def digest(utterances: Iterable[Utterance], with_text: bool = True) -> str:
    """Return 16 hex digits that identify the utterances: their ids, audio locations, durations and transcripts."""
    whole = sha256()
    for u in utterances:
        text = u.text if with_text else None
        whole.update(repr((u.id, u.source, u.start_s, u.end_s, round(u.duration_s, 3), text)).encode())
    return whole.hexdigest()[:16]
