"""Name by their content what a result is made from, so that a result of other content is refused or made again.

A record is {input: digest}, such as {"data.train: audio": "9f86d081884c7d65", …}. Digests of files are kept with the
files' sizes and times, in one database of the user; a file in which none has changed is not read again.
"""

import os
import re
import shlex
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

from hfftools.audio.command import parse
from hfftools.data import datadir
from hfftools.data.datadir import Utterance
from hfftools.disk import kept_for_user
from hfftools.expdir import changed_inputs, file_hash
from hfftools.log import UserError, log, progress

Files = tuple[str, ...]  # absolute paths of files that have one digest
MANY = 100  # files, above which their progress is shown
SETTLED_NS = 2 * 10**9  # a file may change again within the resolution of its modification time, 2 s in FAT


def file_digest(*paths: Path | str) -> str:
    """Return 16 hex digits of the content of a file, or of several, one after another; raise UserError if unreadable."""
    files = tuple(os.path.abspath(path) for path in paths)
    try:
        return _digests([files])[files]
    except OSError as error:
        raise UserError(f"{error.filename or files[0]} cannot be read: {error.strerror}") from None


def of_set(name: str, utterances: Sequence[Utterance], text: bool = True, speakers: bool = False) -> dict[str, str]:
    """Return the digests of the parts of a set: its audio, segments and, where they matter, transcripts and speakers.

    `name` alone is what older versions of hff recorded: locations of the audio in place of its content. Where audio files
    are missing, which has to be no error as long as no one reads them, the part `audio` is left out with a warning.
    """
    parts = {
        "segments": [(u.id, u.start_s, u.end_s, round(u.duration_s, 3)) for u in utterances],
        "text": [(u.id, u.text) for u in utterances] if text else None,
        "speakers": [(u.id, u.speaker) for u in utterances] if speakers else None,
    }
    try:
        recordings = _recordings({u.source for u in utterances})
        parts["audio"] = [(u.id, recordings[u.source]) for u in utterances]
    except OSError as error:
        log.warning(f"{name}: {error.filename}: {error.strerror}; whether its audio has changed is not checked")
    digests = {f"{name}: {part}": _text_digest(repr(rows)) for part, rows in parts.items() if rows is not None}
    return {name: datadir.digest(utterances, text), **digests}


def refuse_other_set(
    record: Mapping[str, str], directory: str, digests: Mapping[str, str], place: Path, fix: str
) -> None:
    """Raise UserError if `place` holds the results of another data directory, of other content, which would be lost."""
    other, mine = record.get("directory", ""), os.path.realpath(directory)
    if other not in ("", mine) and changed_inputs(record, digests):
        raise UserError(f"{place} holds the results of {other}, and those of {mine} would replace them; {fix}")


def _recordings(sources: Iterable[str]) -> dict[str, str]:
    """Return a digest for each entry of wav.scp: of the file or, of a command, of its words and the files among them."""
    files: dict[str, list[Files]] = {}
    for source in sources:
        command = parse(source)
        names = [source] if command is None else _files_in(command)
        files[source] = [(os.path.abspath(name),) for name in names]
    known = _digests([one for several in files.values() for one in several])
    digests = {}
    for source, several in files.items():
        contents = [known[one] for one in several]
        command = parse(source)
        digests[source] = contents[0] if command is None else _text_digest(repr((command, contents)))
    return digests


def _files_in(command: str) -> list[str]:
    """Return the words of a shell command that name files, but not the programs."""
    names = []
    for part in re.split("[|;&]", command):
        try:
            words = shlex.split(part)
        except ValueError:  # the bar was inside quotes
            words = part.split()
        names += [word for word in words[1:] if Path(word).is_file()]
    return names


def _text_digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _stamp(files: Files) -> str:
    """Return sizes and times of files; empty where one is too recent to tell the file from a later one by them.

    The time of the last change of status tells a file from one that was moved into its place: files of one archive may have
    the same size and time of modification.
    """
    stats = [os.stat(file) for file in files]
    if any(time.time_ns() - stat.st_mtime_ns < SETTLED_NS for stat in stats):
        return ""
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}" for stat in stats)


def _digests(groups: Iterable[Files]) -> dict[Files, str]:
    """Return the digest of each group of files; those whose stamps are as they were recorded are not read."""
    groups = list(dict.fromkeys(groups))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        stamps = dict(zip(groups, pool.map(_stamp, groups), strict=True))
        found = _recall(stamps)
        unknown = [files for files in groups if files not in found]
        hashes = pool.map(lambda files: file_hash(*map(Path, files)), unknown)
        shown = progress(hashes, len(unknown), "digests of files", "file") if len(unknown) > MANY else hashes
        found |= zip(unknown, shown, strict=True)
    _remember({files: (stamps[files], found[files]) for files in unknown if stamps[files]})
    return found


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    file = kept_for_user("~/.cache/hff") / "digests.sqlite"
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=60)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS digests (files TEXT PRIMARY KEY, stamp TEXT, digest TEXT)")
        yield database


def _recall(stamps: Mapping[Files, str]) -> dict[Files, str]:
    """Return {files: digest} of those that are recorded with these stamps; nothing where no database can be read."""
    found = {}
    try:
        with _database() as database:
            for files, stamp in stamps.items():
                row = database.execute("SELECT stamp, digest FROM digests WHERE files = ?", ("\0".join(files),))
                kept = row.fetchone()
                if stamp and kept and kept[0] == stamp:
                    found[files] = kept[1]
    except (sqlite3.Error, OSError, UserError) as error:  # it saves time, and nothing depends on it
        log.info(f"digests of files cannot be kept ({error}), so every file is read")
    return found


def _remember(digests: Mapping[Files, tuple[str, str]]) -> None:
    rows = [("\0".join(files), stamp, digest) for files, (stamp, digest) in digests.items()]
    try:
        with _database() as database:
            database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
    except (sqlite3.Error, OSError, UserError):
        pass  # _recall has logged the reason
