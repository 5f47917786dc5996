"""Validate Kaldi data directories; utils/fix_data_dir.sh repairs most of what is refused here."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from hfftools.audio import waveform
from hfftools.audio.stream import SPARE_S
from hfftools.data.datadir import FILES, PER_UTTERANCE, by_speaker, check_ids, parse_seconds, read_spans
from hfftools.data.table import listed, read_table
from hfftools.log import UserError

Table = dict[str, str]
Tables = dict[str, Table]  # by file name
Span = tuple[str, float, float | None]  # recording, start and end in s, None for the end of the recording


def validate(directory: Path | str, need_text: bool = True) -> int:
    """Check a data directory as Kaldi's validate_data_dir.sh does; return the number of utterances or raise UserError."""
    directory = Path(directory)
    _check_files(directory, need_text)
    tables = {name: read_table(directory / name, name != "text") for name in FILES if listed(directory, name)}
    for name, table in tables.items():
        _check_order(directory, name, table)
    spans = read_spans(directory, tables["wav.scp"])
    for name in PER_UTTERANCE:
        if name in tables:
            check_ids(directory, name, spans, tables[name])
    for utt, value in tables.get("utt2dur", {}).items():
        parse_seconds(directory, utt, value)
    _check_speakers(directory, tables)
    if need_text:
        _check_transcripts(directory, tables["text"])
    wavs = tables["wav.scp"]
    _check_existence(directory, wavs)
    _check_lengths(directory, spans, lengths_s(directory, wavs), tables.get("utt2dur", {}))
    return len(spans)


def _repair_command(directory: Path) -> str:
    return f"run utils/fix_data_dir.sh {directory}"


def _check_files(directory: Path, need_text: bool) -> None:
    """Raise UserError unless the files that every data directory has are there."""
    if not directory.is_dir():
        raise UserError(f"data directory {directory} does not exist")
    if need_text and not (directory / "text").exists():
        raise UserError(f"{directory}/text is missing; where a set has no transcripts, say --no-text")
    if not (directory / "wav.scp").exists():  # nothing can be repaired without it
        raise UserError(f"{directory}/wav.scp is missing")
    for name in ("utt2spk", "spk2utt"):
        if not (directory / name).exists():
            raise UserError(f"{directory}/{name} is missing; {_repair_command(directory)}")


def _check_order(directory: Path, name: str, table: dict[str, str]) -> None:
    """Raise UserError if a file is empty or its keys are not in C-locale order."""
    if not table:
        raise UserError(f"{directory}/{name} is empty")
    for key, following in pairwise(table):
        # Python compares code points, which is the order of UTF-8 bytes and so of the C locale
        if key > following:
            raise UserError(
                f"{directory}/{name} is not sorted as in the C locale, first at '{following}'; "
                f"{_repair_command(directory)}"
            )


def _check_speakers(directory: Path, tables: Tables) -> None:
    """Raise UserError unless speakers are prefixes of their utterances and spk2utt agrees with utt2spk.

    Kaldi's scripts sort by utterance and by speaker, and rely on both orders being the same; prefixes make them so.
    """
    speakers, fix = tables["utt2spk"], _repair_command(directory)
    for utt, speaker in speakers.items():
        if len(speaker.split()) != 1 or not utt.startswith(speaker):
            raise UserError(
                f"{directory}/utt2spk: speaker '{speaker}' is not a prefix of utterance '{utt}'; name utterances "
                f"<speaker>-<name>, or remove utt2spk and spk2utt and {fix}, which makes each its own speaker"
            )
    listed = {speaker: " ".join(sorted(utts.split())) for speaker, utts in tables["spk2utt"].items()}
    if by_speaker(speakers) != listed:
        raise UserError(f"{directory}/spk2utt disagrees with utt2spk; {fix}")


def _check_transcripts(directory: Path, texts: dict[str, str]) -> None:
    """Raise UserError if a transcript is empty."""
    empty = sorted(utt for utt, text in texts.items() if not text.strip())
    if empty:
        raise UserError(
            f"{directory}/text: {len(empty)} empty transcripts, first {empty[0]}; {_repair_command(directory)}"
        )


def _check_existence(directory: Path, wavs: dict[str, str]) -> None:
    """Raise UserError if audio files do not exist; commands are not run."""
    lost = [recording for recording, source in wavs.items() if not waveform.exists(source)]
    if lost:
        raise UserError(
            f"{directory}/wav.scp: {len(lost)} audio files do not exist, first {wavs[lost[0]]}; "
            f"correct the paths, or {_repair_command(directory)}, which drops them"
        )


def lengths_s(directory: Path, wavs: dict[str, str]) -> dict[str, float | UserError]:
    """Return {recording: seconds that can be decoded, or why none can} of the entries of wav.scp that are files.

    Commands are not run. The headers and the ends of files are read, which takes far less time than decoding them.
    """
    files = {recording: source for recording, source in wavs.items() if not waveform.is_command(source)}
    return dict(zip(files, waveform.durations_s(list(files.values()), f"audio of {directory.name}"), strict=True))


def _check_lengths(
    directory: Path, spans: dict[str, Span], lengths: dict[str, float | UserError], durations: Table
) -> None:
    """Raise UserError if audio cannot be decoded, a segment ends after its recording, or utt2dur is wrong."""
    broken = [error for error in lengths.values() if isinstance(error, UserError)]
    if broken:
        raise UserError(
            f"{directory}/wav.scp: {len(broken)} recordings cannot be used, first: {broken[0]}; "
            f"{_repair_command(directory)}, which drops them"
        )
    for utt, span in spans.items():
        length_s = lengths.get(span[0])
        if isinstance(length_s, float):
            for name, reason in faults_of_length(span, length_s, durations.get(utt)):
                raise UserError(f"{directory}/{name}: '{utt}' {reason}; {_repair_command(directory)}")


def faults_of_length(span: Span, length_s: float, duration: str | None) -> Iterator[tuple[str, str]]:
    """Yield (file, reason) for what is wrong with an utterance whose recording is `length_s` long."""
    recording, start_s, end_s = span
    if max(start_s, end_s or 0.0) > length_s + SPARE_S or start_s >= length_s:
        end = "the end" if end_s is None else f"{end_s} s"
        yield "segments", f"is from {start_s} s to {end}, but recording '{recording}' ends at {length_s:.2f} s"
        return
    there_s = (length_s if end_s is None else end_s) - start_s
    if there_s * waveform.RATE_HZ < 1:
        yield "segments", f"is from {start_s} s to {end_s} s, which is less than a sample"
        return
    if duration is not None and abs(float(duration) - there_s) > SPARE_S:
        yield "utt2dur", f"has {duration} s, but {there_s:.2f} s of audio are there"
