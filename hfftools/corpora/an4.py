"""Read CMU AN4 in its own layout (etc/*.fileids, etc/*.transcription, wav/ or flac/) into train, dev and test.

The corpus has no dev part: every tenth training speaker becomes one, so that dev and train share no speaker.
"""

from pathlib import Path

from hfftools.audio.waveform import duration_s
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, progress
from hfftools.textfile import read_lines

URL = "https://github.com/cmusphinx/an4/archive/HEAD.tar.gz"
DEV_EVERY = 10


def archives() -> dict[str, str]:
    """Return {URL: checksum}; the head of a repository has no lasting checksum, but unpacking checks the gzip sum."""
    return {URL: ""}


def sets(source: Path, out: Path, limit: int | None = None) -> dict[str, list[Utterance]]:
    """Return at most `limit` utterances each of train, dev and test; nothing is converted, so `out` is not used.

    Raise UserError if a file list, a transcript or a recording is missing.
    """
    for place in (source, *sorted(source.glob("*/*"))):  # an archive is unpacked to <its name>/<the folder in it>
        if (place / "etc").is_dir():
            source = place
            break
    if not (source / "etc" / "an4_train.fileids").exists():
        raise UserError(
            f"{source}/etc/an4_train.fileids is missing; give the folder that holds etc/ and wav/, by --source "
            "(--corpus of a recipe)"
        )
    train, test = _part(source, "train"), _part(source, "test")
    dev_speakers = sorted({u.speaker for u in train})[DEV_EVERY // 2 :: DEV_EVERY]
    return {
        "train": [u for u in train if u.speaker not in dev_speakers][:limit],
        "dev": [u for u in train if u.speaker in dev_speakers][:limit],
        "test": test[:limit],
    }


def _part(source: Path, part: str) -> list[Utterance]:
    """Return all utterances of `part`, train or test."""
    texts = {}
    # a line is `<s> WORDS </s> (name)` in train, and lacks the two marks in test
    for line in read_lines(source / "etc" / f"an4_{part}.transcription"):
        words, _, name = line.rpartition("(")
        texts[name.strip(" )")] = words.replace("<s>", "").replace("</s>", "").strip()
    utterances = []
    lines = " ".join(read_lines(source / "etc" / f"an4_{part}.fileids")).split()
    for line in progress(lines, len(lines), f"an4 {part}"):
        if "/" not in line:
            raise UserError(
                f"{source}/etc/an4_{part}.fileids: '{line}' has no slash, as in an4_clstk/<speaker>/<name>; "
                "unpack the corpus again"
            )
        speaker, name = line.split("/")[-2:]
        if name not in texts:
            raise UserError(f"{source}/etc/an4_{part}.transcription has no line for {name}; unpack the corpus again")
        path = _audio(source, line)
        utterances.append(Utterance(f"{speaker}-{name}", speaker, path, texts[name], duration_s=duration_s(path)))
    return utterances


def _audio(source: Path, line: str) -> str:
    """Return the path of the recording of a line of a file list."""
    for folder, suffix in (("wav", "wav"), ("flac", "flac")):
        path = source / folder / f"{line}.{suffix}"
        if path.exists():
            return str(path.resolve())
    raise UserError(f"{source}/wav/{line}.wav is missing, and so is flac/{line}.flac; unpack the corpus again")
