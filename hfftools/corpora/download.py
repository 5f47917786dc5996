"""Download a URL to a file, complete and checked or not at all; resume after an interruption; one process at a time."""

import hashlib
import http.client
import os
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from hfftools.disk import check_room, writing
from hfftools.expdir import write_json
from hfftools.log import UserError, log, progress
from hfftools.records import read_json

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0  # of waiting for more bytes, not for the whole file
TRIES, WAIT_S = 5, 2.0  # connections per call, each of which must add bytes; and the pause between two of them


def fetch(url: str, path: Path, checksum: str = "") -> Path:
    """Return `path` after the file of `url` is downloaded to it; a file that is there already is used as it is.

    `checksum` is `md5:<hex>` or `sha256:<hex>` of the file. An interrupted download is kept as `<path>.part`, and resumed
    if the server can confirm that its file is still the same. Raise UserError if the download fails.
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
        if _of_disk(error):
            raise
        raise UserError(f"cannot download {url} ({error}); put the file in place by hand, as {path}") from None
    return path


def _of_disk(error: Exception) -> bool:
    """Return whether an error is of the disk, such as one that is full, and not of the connection."""
    return isinstance(error, OSError) and not isinstance(error, URLError) and error.filename is not None


def _note(part: Path) -> Path:
    """Return the path of the record of a partial file: its URL, the server's version mark, and the complete length."""
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _download(url: str, part: Path) -> None:
    """Download `part` to its full length, over up to TRIES connections as long as each adds bytes."""
    for attempt in range(1, TRIES + 1):
        had = _size(part)
        try:
            return _connect(url, part)
        except (OSError, http.client.HTTPException) as error:
            if (
                isinstance(error, HTTPError) and error.code == 416 and had
            ):  # range not satisfiable: the file is now shorter than this part
                part.unlink()
            elif attempt == TRIES or _of_disk(error) or _size(part) <= had:
                raise
            log.info("%s: %s; resuming at byte %d", url, error, _size(part))
            time.sleep(WAIT_S)


def _connect(url: str, part: Path) -> None:
    """Receive the rest of `part` over one connection, or all of it if the server ignores ranges or its file changed."""
    note, had = _note(part), _size(part)
    known = read_json(note, {"url": str, "version": str, "bytes": int}) if had and note.exists() else {}
    if known.get("url") != url:
        had, known = 0, {}
    if had and had == known["bytes"]:
        return
    headers = {"User-Agent": "hff"}
    if had:
        # If-Range: the server sends the range only if its file is the version that `part` began with, else all of it (200)
        headers |= {"Range": f"bytes={had}-", "If-Range": known["version"]}
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        expected = int(response.headers.get("Content-Length") or 0)
        if response.status == 206:  # partial content
            if response.headers.get("Content-Range", "") != f"bytes {had}-{had + expected - 1}/{known['bytes']}":
                part.unlink()
                raise OSError("the server sent another range than the requested one")
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
                part.unlink(missing_ok=True)  # without a version mark, the rest might be of another file


def _version(headers: http.client.HTTPMessage) -> str:
    """Return what If-Range accepts: a strong ETag or the date of the last change; empty if the server sends neither."""
    # a weak ETag (W/"…") marks files that are equivalent, but not equal byte by byte
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _receive(response: http.client.HTTPResponse, part: Path, had: int, expected: int) -> None:
    """Append the body to the first `had` bytes of `part`; raise OSError if it ends before `expected` bytes in all."""
    chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
    check_room(part.parent, expected - had, f"the rest of {part.name.removesuffix('.part')}")
    with writing(part), open(part, "ab" if had else "wb") as file:
        total = -(-(expected - had) // CHUNK_BYTES) or None  # chunks, rounded up; None: the server named no length
        for chunk in progress(chunks, total, part.name.removesuffix(".part"), "MiB"):
            file.write(chunk)
        received = file.tell()
    if expected and received != expected:
        raise OSError(f"{received} of {expected} bytes were received")


def _check(part: Path, checksum: str, url: str, path: Path) -> None:
    """Remove `part` and raise UserError if it does not have the checksum."""
    if not checksum:
        return
    kind, _, wanted = checksum.partition(":")
    with open(part, "rb") as file:
        actual = hashlib.file_digest(file, kind).hexdigest()
    if actual != wanted:
        part.unlink()
        _note(part).unlink(missing_ok=True)
        raise UserError(
            f"{url}: the {kind} sum of the download is {actual}, not {wanted}, so it was removed; run again to download "
            f"it again, or put a good copy in place by hand, as {path}"
        )
