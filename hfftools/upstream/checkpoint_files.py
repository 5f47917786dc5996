"""Return the file of a checkpoint's URL, from s3prl's own cache or downloaded into it."""

import hashlib
from pathlib import Path

from hfftools.corpora import download
from hfftools.disk import kept_for_user


def cache_file(url: str) -> Path:
    """Where a URL's file is kept: $HFF_CACHE, or s3prl's own folder, under the name that s3prl gives it."""
    return kept_for_user("~/.cache/s3prl/download") / f"{hashlib.sha256(url.encode()).hexdigest()}.{Path(url).name}"


def fetch(url: str) -> Path:
    """Return the file of a URL, downloaded on first use.

    Raise UserError, which names its place in the cache, where it cannot be downloaded.
    """
    return download.fetch(url, cache_file(url))
