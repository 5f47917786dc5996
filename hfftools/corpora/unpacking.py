"""A Common Voice release, a tarball or an unpacked folder, in; its language folder, the rows of its tables, lengths out."""

import csv
import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hfftools.expdir import write_aside
from hfftools.log import UserError, progress, suggest

WHERE = (
    "It has no open download: get the tarball of a language at https://datacollective.mozillafoundation.org (a free "
    "account is needed) and give it, or the folder it was unpacked to"
)


def rows(tsv: Path) -> Iterator[dict[str, str | None]]:
    with open(tsv, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        lost = {"client_id", "path", "sentence"} - set(reader.fieldnames or ())
        if lost and reader.fieldnames:
            raise UserError(f"{tsv}: no column {' or '.join(sorted(lost))}; is it of Common Voice?")
        try:
            yield from reader
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"{tsv}: line {reader.line_num + 1} cannot be read ({error}); unpack the release again"
            ) from None


def seconds(folder: Path) -> dict[str, float]:
    """{clip: s} of clip_durations.tsv, which newer releases have; its second column counts milliseconds."""
    known = {}
    tsv = folder / "clip_durations.tsv"
    if tsv.exists():
        for line in tsv.read_text(encoding="utf-8-sig").splitlines()[1:]:
            name, _, ms = line.partition("\t")
            if ms.isdigit() and int(ms):  # what is not known here is looked up in the clip itself
                known[name] = int(ms) / 1000
    return known


def locale(folder: Path) -> str:
    for part in ("train", "validated", "dev", "test"):
        tsv = folder / f"{part}.tsv"
        if tsv.exists() and (row := next(rows(tsv), None)) and row.get("locale"):
            return row["locale"]
    return folder.name


def _is_language(folder: Path) -> bool:
    return any((folder / f"{part}.tsv").exists() for part in ("train", "dev", "test", "validated"))


def language_folder(source: Path, lang: str) -> Path:
    """The folder of the tables: `source`, or one below it, such as cv-corpus-17.0/fr."""
    if _is_language(source):
        if lang and lang not in (locale(source), source.name):
            raise UserError(f"lang: {source} is of {locale(source)}, not of {lang}")
        return source
    found = {p.name: p for depth in ("*", "*/*") for p in sorted(source.glob(depth)) if p.is_dir() and _is_language(p)}
    if not found:
        raise UserError(
            f"{source} holds no train.tsv or validated.tsv; give the folder that has them and clips/. {WHERE}"
        )
    if not lang and len(found) > 1:
        raise UserError(f"{source} holds several languages, {', '.join(found)}; say which, as lang={min(found)}")
    lang = lang or next(iter(found))
    if lang not in found:
        raise UserError(f"lang: {source} has no '{lang}'; {suggest(lang, found)}")
    return found[lang]


def extract(archive: Path, place: Callable[[PurePosixPath], Path | None], what: str) -> None:
    """Write each file of the archive that `place` has a place for; read as a stream, since it holds millions."""
    bar = progress((), None, f"{what} of {archive.name}", "file")
    try:
        with bar, _unzipped(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would remember them all
                path = place(PurePosixPath(member.name)) if member.isfile() else None
                if path is not None:
                    with write_aside(path) as aside, open(aside, "wb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file)
                        if file.tell() != member.size:
                            raise EOFError(f"it ends inside {member.name}")
                bar.update()
            while stream.read(1 << 20):  # to the end, where gzip keeps the sum of it all
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{archive} cannot be unpacked ({' '.join(str(error).split())}); download it again") from None


def _unzipped(archive: Path) -> BinaryIO:
    """By gzip itself, which notices that a file is cut short, as tarfile's streams do not."""
    with open(archive, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(archive) if zipped else open(archive, "rb")
