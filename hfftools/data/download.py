"""A URL in, its file out, downloaded whole or not at all, once among all processes that ask for it."""

import http.client
from pathlib import Path
from urllib.request import Request, urlopen

from filelock import FileLock

from hfftools.expdir import write_aside
from hfftools.log import UserError, log, progress

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0  # without a single byte, not for the whole file


def fetch(url: str, path: Path) -> Path:
    """`path`, with the file of `url` in it; UserError that names both where it is not there and cannot be had."""
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # of several processes one downloads, and the others wait for it
            if not path.is_file():
                log.info("downloading %s to %s", url, path)
                _download(url, path)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {url} ({error}); put the file in place by hand, as {path}") from None
    return path


def _download(url: str, path: Path) -> None:
    request = Request(url, headers={"User-Agent": "hff"})
    with urlopen(request, timeout=TIMEOUT_S) as response, write_aside(path) as aside:
        expected = int(response.headers.get("Content-Length") or 0)
        chunks = iter(lambda: response.read(CHUNK_BYTES), b"")
        with open(aside, "wb") as file:
            for chunk in progress(chunks, -(-expected // CHUNK_BYTES) or None, Path(url).name, "MiB"):
                file.write(chunk)
            received = file.tell()
        if expected and received != expected:
            raise OSError(f"{received} of {expected} bytes came")
