"""Unpack archives safely, and read the files of a Common Voice release: language folders, tables, clip lengths."""

import csv
import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from hfftools.disk import check_room, writing
from hfftools.expdir import write_aside
from hfftools.log import UserError, progress, suggest
from hfftools.textfile import read_lines

WHERE = (
    "It has no open download: get the tarball of a language at https://datacollective.mozillafoundation.org (a free "
    "account is needed) and give it, or the folder it was unpacked to"
)

MOST_MS = 10**9  # no clip is longer, in milliseconds

# What unpacks to more than this is made to fill the disk: gzip hardly makes speech smaller, and zeros 1000 times.
MOST_BYTES, MOST_TIMES = 1 << 30, 20  # the larger of a size and of a multiple of the archive's size


def rows(tsv: Path) -> Iterator[dict[str, str | None]]:
    """Yield {column: value} of each row, None for a column that a short row lacks; raise UserError for a broken table."""
    # quotation marks are plain characters here: sentences hold single ones, which csv would read on to the next
    reader = csv.DictReader(read_lines(tsv), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        lost = {"client_id", "path", "sentence"} - set(reader.fieldnames or ())
        if lost and reader.fieldnames is not None:  # None: an empty file
            raise UserError(f"{tsv}: no column {' or '.join(sorted(lost))}; is it of Common Voice?")
        yield from reader
    except csv.Error as error:
        raise UserError(f"{tsv}:{reader.line_num + 1} cannot be read ({error}); unpack the release again") from None


def seconds(folder: Path) -> dict[str, float]:
    """Return {clip: seconds} of clip_durations.tsv, which newer releases have; its second column is in milliseconds."""
    known = {}
    tsv = folder / "clip_durations.tsv"
    if tsv.exists():
        for line in read_lines(tsv):  # the line of the columns' names has no number in it
            name, _, ms = line.partition("\t")
            if (
                ms.isascii() and ms.isdigit() and 0 < int(ms) < MOST_MS
            ):  # what is not known here is looked up in the clip itself
                known[name] = int(ms) / 1000
    return known


def locale(folder: Path) -> str:
    """Return the language code that the tables name, or the folder's name where they name none."""
    for part in ("train", "validated", "dev", "test"):
        tsv = folder / f"{part}.tsv"
        first = next(rows(tsv), {}) if tsv.exists() else {}
        code = first.get("locale")
        if code:
            return code
    return folder.name


def _is_language(folder: Path) -> bool:
    return any((folder / f"{part}.tsv").exists() for part in ("train", "dev", "test", "validated"))


def language_folder(source: Path, lang: str) -> Path:
    """Return the folder with the tables: `source`, or one in it, such as cv-corpus-17.0/fr; raise UserError otherwise."""
    if _is_language(source):
        if lang and lang not in (locale(source), source.name):
            raise UserError(f"lang: {source} is of {locale(source)}, not of {lang}")
        return source
    folders = [*sorted(source.glob("*")), *sorted(source.glob("*/*"))]
    languages = {folder.name: folder for folder in folders if _is_language(folder)}
    if not languages:
        raise UserError(
            f"{source} holds no train.tsv or validated.tsv; give the folder that has them and clips/. {WHERE}"
        )
    if not lang and len(languages) > 1:
        names = ", ".join(languages)
        raise UserError(f"{source} holds several languages, {names}; say which, as lang={min(languages)}")
    lang = lang or next(iter(languages))
    if lang not in languages:
        raise UserError(f"lang: {source} has no '{lang}'; {suggest(lang, languages)}")
    return languages[lang]


def unpack(archive: Path, folder: Path) -> None:
    """Write all files of an archive into `folder`; raise UserError if it is damaged or holds anything but files."""
    folder.mkdir(parents=True, exist_ok=True)
    # speech hardly gets smaller in an archive, so its size is about what its files take
    check_room(folder, archive.stat().st_size, f"what is in {archive.name}")
    with _open_tar(archive) as tar, writing(folder):
        tar.extractall(folder, filter=_plain)


def extract(archive: Path, place: Callable[[PurePosixPath], Path | None], what: str) -> None:
    """Write each file of the archive for which `place` returns a path; `what` names the files in the progress bar.

    The archive is read once, as a stream, because it may hold millions of files. Raise UserError if it is damaged.
    """
    with progress((), None, f"{what} of {archive.name}", "file") as bar, _open_tar(archive) as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep a record of every file in memory
            path = place(PurePosixPath(_plain(member, str(archive.parent)).name)) if member.isfile() else None
            content = tar.extractfile(member) if path is not None else None
            if path is not None and content is not None:
                with write_aside(path) as aside, open(aside, "wb") as file:
                    shutil.copyfileobj(content, file)
                    if file.tell() != member.size:
                        raise EOFError(f"it ends inside {member.name}")
            bar.update()


@contextmanager
def _open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive for one pass; raise UserError, on leaving, where it is damaged, unsafe or far too large."""
    try:
        with _unzipped(archive) as unzipped:
            stream = _Bounded(unzipped, max(MOST_BYTES, MOST_TIMES * archive.stat().st_size))
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
                yield tar
            while stream.read(1 << 20):  # gzip checks its sum only at the very end
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk is full: the archive is not to blame
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{archive} cannot be unpacked ({reason}); delete it and download it again") from None


class _Bounded:
    """Read a stream up to a number of bytes, and raise TarError beyond it."""

    def __init__(self, stream: IO[bytes], most: int):
        self.stream, self.most, self.left = stream, most, most

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.TarError(f"it unpacks to more than {self.most >> 20} MiB, {MOST_TIMES} times its size")
        return content


def _plain(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Return a file or folder that stays in `folder`; raise TarError for all else, and for names that are a command.

    Without links, no later member can leave the folder through an earlier one. A name that ends in | would be run as a
    command where it gets into wav.scp.
    """
    if not (member.isdir() or member.isreg()) or member.issparse() or member.name.rstrip().endswith("|"):
        raise tarfile.TarError(f"{member.name!r} in it is not a plain file")
    return tarfile.data_filter(member, folder)


def _unzipped(archive: Path) -> IO[bytes]:
    """Open an archive, unzipped by gzip itself: unlike tarfile's own streams, it notices that a file is cut short."""
    with open(archive, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(archive)) if zipped else open(archive, "rb")
