"""A URL in, its file out, whole and checked or not at all, once among all processes that ask; a cut download goes on."""

import hashlib
import http.client
import json
import os
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

from hfftools.expdir import write_json
from hfftools.log import UserError, log, progress

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0  # without a single byte, not for the whole file
TRIES, WAIT_S = 5, 2.0  # a connection that broke after some bytes is taken up again


def fetch(url: str, path: Path, checksum: str = "") -> Path:
    """`path`, with the file of `url` in it; UserError that names both where it is not there and cannot be had.

    `checksum` is `md5:<hex>` or `sha256:<hex>` of what is downloaded; a file that lies there already is taken as it is.
    What came before a cut is kept as `<path>.part` and gone on from, where the server can tell that its file is the same.
    """
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # of several processes one downloads, and the others wait for it
            if not path.is_file():
                log.info("downloading %s to %s", url, path)
                _download(url, part)
                _check(part, checksum, url, path)
                os.replace(part, path)
                _note(part).unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {url} ({error}); put the file in place by hand, as {path}") from None
    return path


def _note(part: Path) -> Path:
    """Beside a part: whose it is, the server's mark of that version, and how long the whole is."""
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _download(url: str, part: Path) -> None:
    """Bring `part` to its full length, over as many connections as it takes while each brings something."""
    for attempt in range(1, TRIES + 1):
        had = _size(part)
        try:
            return _connect(url, part)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, HTTPError) and error.code == 416 and had:  # the file there is shorter than this part
                part.unlink()
            elif attempt == TRIES or _size(part) <= had:
                raise
            log.info("%s: %s; going on from byte %d", url, error, _size(part))
            time.sleep(WAIT_S)


def _connect(url: str, part: Path) -> None:
    """One connection: the rest of `part`, or all of it where the server does no ranges or has another file by now."""
    note, had = _note(part), _size(part)
    known = json.loads(note.read_text()) if had and note.exists() else {}
    if known.get("url") != url:
        had, known = 0, {}
    if had and had == known["bytes"]:
        return
    headers = {"User-Agent": "hff"}
    if had:
        headers |= {"Range": f"bytes={had}-", "If-Range": known["version"]}
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        expected = int(response.headers.get("Content-Length") or 0)
        if response.status == 206:
            if response.headers.get("Content-Range", "") != f"bytes {had}-{had + expected - 1}/{known['bytes']}":
                part.unlink()
                raise OSError("the server sent another range than the one asked for")
            expected = known["bytes"]
        else:
            had = 0
            note.unlink(missing_ok=True)
            version = _version(response.headers)
            if version and expected:
                write_json(note, {"url": url, "version": version, "bytes": expected})
        try:
            _receive(response, part, had, expected)
        finally:
            if not note.exists() and (not expected or _size(part) != expected):
                part.unlink(missing_ok=True)  # nobody could say whether the rest would be of the same file


def _version(headers: http.client.HTTPMessage) -> str:
    """What If-Range takes: a strong ETag, or the date of the last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _receive(response: http.client.HTTPResponse, part: Path, had: int, expected: int) -> None:
    chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
    with open(part, "ab" if had else "wb") as file:
        total = -(-(expected - had) // CHUNK_BYTES) or None
        for chunk in progress(chunks, total, part.name.removesuffix(".part"), "MiB"):
            file.write(chunk)
        received = file.tell()
    if expected and received != expected:
        raise OSError(f"{received} of {expected} bytes came")


def _check(part: Path, checksum: str, url: str, path: Path) -> None:
    """UserError, and the part removed, where it is not what it should be."""
    if not checksum:
        return
    kind, _, wanted = checksum.partition(":")
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != wanted:
        part.unlink()
        _note(part).unlink(missing_ok=True)
        raise UserError(
            f"{url}: the {kind} sum of what came is {found}, not {wanted}, so it was removed; run again to download it "
            f"afresh, or put a good copy in place by hand, as {path}"
        )
