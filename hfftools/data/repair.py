"""Repair a data directory: keep the utterances that are valid in all files, with a backup of the files in .backup/."""

import shutil
from pathlib import Path

from hfftools.audio import waveform
from hfftools.data.datadir import FILES, PER_UTTERANCE, by_speaker, is_positive, parse_span
from hfftools.data.table import format_table, listed, read_loosely, read_table
from hfftools.data.validation import Table, faults_of_length, lengths_s
from hfftools.expdir import write_aside, write_text
from hfftools.log import UserError, log
from hfftools.text.normalise import Options, normalise


def fix(directory: Path | str, texts: dict[str, str] | None = None) -> tuple[int, int]:
    """Keep the utterances with a valid entry in every file, sort all files, rebuild spk2utt; return (kept, total).

    `texts`, {utterance: text}, replaces the transcripts. A directory that is already valid is not changed, and neither
    is its .backup/. Other files (intent, slots) are never changed, so they may still list dropped utterances. Raise
    UserError and write nothing if no utterance would be left.
    """
    directory = Path(directory)
    if not (directory / "wav.scp").exists():
        raise UserError(f"{directory}/wav.scp is missing; there is nothing to fix")
    tables = {name: read_loosely(directory / name) for name in FILES if listed(directory, name)}
    if texts is not None:
        tables["text"] = texts
    speaker_lists = tables.pop("spk2utt", {})
    if "utt2spk" not in tables and speaker_lists:
        tables["utt2spk"] = _by_utterance(speaker_lists)
    base = "segments" if "segments" in tables else "wav.scp"
    names = [name for name in {base, *PER_UTTERANCE} if name in tables]
    total = len(set().union(*(tables[name] for name in names)))

    wavs = tables["wav.scp"] = _wavs_that_exist(directory, tables["wav.scp"])
    lengths = lengths_s(directory, wavs)
    wavs = tables["wav.scp"] = _wavs_that_decode(directory, wavs, lengths)
    kept = set.intersection(*(_usable_utterances(name, tables[name], wavs) for name in names))
    kept = _correct_lengths(directory, tables, kept, lengths)
    if not kept:
        raise UserError(f"{directory}: no utterance is usable in every file; nothing was changed")

    used = {parse_span(tables["segments"][u])[0] for u in kept} if base == "segments" else kept
    for name, table in tables.items():
        tables[name] = _restrict(table, kept)
    tables["wav.scp"] = _restrict(wavs, used)
    tables.setdefault("utt2spk", {u: u for u in kept})  # as in Kaldi: without speakers, each utterance is its own
    tables["spk2utt"] = by_speaker(tables["utt2spk"])
    _replace(directory, {name: format_table(table) for name, table in tables.items()})
    return len(kept), total


def _wavs_that_exist(directory: Path, wavs: dict[str, str]) -> dict[str, str]:
    """Return the entries of wav.scp, {recording: source}, whose audio exists, and log how many were dropped."""
    there = {recording: source for recording, source in wavs.items() if source and waveform.exists(source)}
    lost = sorted(wavs.keys() - there.keys())
    if lost:
        log.info(f"{directory}/wav.scp: the audio of {len(lost)} recordings does not exist, first {lost[0]}; dropped")
    return there


def _wavs_that_decode(directory: Path, wavs: Table, lengths: dict[str, float | UserError]) -> Table:
    """Return the entries of wav.scp without those that cannot be decoded, and log how many were dropped."""
    broken = [error for error in lengths.values() if isinstance(error, UserError)]
    if broken:
        log.info(f"{directory}/wav.scp: {len(broken)} recordings cannot be used, first: {broken[0]}; dropped")
    return {
        recording: source for recording, source in wavs.items() if not isinstance(lengths.get(recording), UserError)
    }


def _correct_lengths(
    directory: Path, tables: dict[str, Table], kept: set[str], lengths: dict[str, float | UserError]
) -> set[str]:
    """Correct utt2dur where the audio has another length; return `kept` without segments beyond their recordings."""
    beyond, left = [], set(kept)
    for utt in sorted(kept):
        span = parse_span(tables["segments"][utt]) if "segments" in tables else (utt, 0.0, None)
        length_s = lengths.get(span[0])
        if not isinstance(length_s, float):
            continue
        for name, reason in faults_of_length(span, length_s, tables.get("utt2dur", {}).get(utt)):
            if name == "segments":
                beyond.append(f"{utt} {reason}")
                left.remove(utt)
            else:
                log.info(f"{directory}/utt2dur: {utt} {reason}; corrected")
                seconds = (length_s if span[2] is None else span[2]) - span[1]
                tables[name][utt] = f"{seconds:.6f}"
                if "utt2num_samples" in tables:
                    tables["utt2num_samples"][utt] = str(round(seconds * waveform.RATE_HZ))
    if beyond:
        count = f"{len(beyond)} segments cannot be cut from their recordings"
        log.info(f"{directory}/segments: {count}, first {beyond[0]}; dropped")
    return left


def _restrict(table: dict[str, str], keys: set[str]) -> dict[str, str]:
    """Return the entries of a table whose key is in `keys`."""
    return {key: value for key, value in table.items() if key in keys}


def _by_utterance(speaker_lists: dict[str, str]) -> dict[str, str]:
    """Convert spk2utt {speaker: utterances separated by spaces} to utt2spk {utterance: speaker}."""
    speakers: dict[str, str] = {}
    for speaker, utts in speaker_lists.items():
        speakers |= dict.fromkeys(utts.split(), speaker)
    return speakers


def _usable_utterances(name: str, table: dict[str, str], wavs: dict[str, str]) -> set[str]:
    """Return the utterances of the file `name` whose value is valid."""
    return {utt for utt, value in table.items() if _usable(name, value, wavs)}


def _usable(name: str, value: str, wavs: dict[str, str]) -> bool:
    """Return whether `value` is valid in the file `name`, given the recordings of wav.scp that exist."""
    if name in ("utt2dur", "utt2num_samples"):
        return is_positive(value)
    if name == "utt2spk":
        return len(value.split()) == 1
    if name == "segments":
        try:
            return parse_span(value)[0] in wavs
        except ValueError:
            return False
    return bool(value.strip())


def _replace(directory: Path, texts: dict[str, str]) -> None:
    """Write the files that changed; if any did, first copy all current files to .backup/."""
    old = {name: (directory / name).read_bytes() for name in FILES if listed(directory, name)}
    changed = [name for name, text in texts.items() if old.get(name) != text.encode()]
    if changed:
        for name in old:
            with write_aside(directory / ".backup" / name) as aside:
                shutil.copy2(directory / name, aside)
    for name in changed:
        write_text(directory / name, texts[name])


def normalise_dir(directory: Path, options: Options) -> tuple[int, int]:
    """Normalise directory/text in place, with a backup, and drop transcripts that become empty; return (kept, total)."""
    old = read_table(directory / "text", value_required=False)
    return fix(directory, {utt: normalise(text, options) for utt, text in old.items()})
