"""A corpus by name in, validated data directories out; downloaded first where its module knows from where."""

import json
import tarfile
from pathlib import Path

from hfftools.config import plugin
from hfftools.data import datadir
from hfftools.data.download import fetch
from hfftools.expdir import write_json
from hfftools.log import UserError, log


def prepare(corpus: str, source: Path | None, out: Path, limit: int | None = None) -> None:
    """Write out/<set> for each set of `corpus`; nothing happens where that was done before with the same arguments.

    `source` is the corpus in its own layout; without it, it is downloaded or, where it makes itself, made. At most `limit`
    utterances a set are taken. UserError where the corpus is not there or not whole.
    """
    module = plugin("data.corpora", corpus)
    done_file = out / f".{corpus}.json"
    wanted = {"source": str(source.resolve()) if source else None, "limit": limit}
    if done_file.exists() and (done := json.loads(done_file.read_text()))["from"] == wanted:
        try:
            for name in done["sets"]:
                datadir.validate(out / name)
            log.info(f"{out}: {', '.join(done['sets'])} are there already")
            return
        except UserError as error:
            log.info(f"preparing {corpus} again: {error}")
    if source is None and hasattr(module, "URL"):
        source = _download(module.URL, out.parent / "downloads" / corpus)
    elif source is None and corpus != "mini":
        raise UserError(f"--source: where is {corpus}? Give the folder it was unpacked to")
    if source is not None and not source.is_dir():
        raise UserError(f"--source {source} is not a folder")
    done_file.unlink(missing_ok=True)
    names = []
    for name, utterances in module.sets(source, out, limit).items():
        datadir.write(out / name, utterances)
        count = datadir.validate(out / name)
        hours, speakers = sum(u.duration_s for u in utterances) / 3600, len({u.speaker for u in utterances})
        log.info(f"{out / name}: {count} utterances, {speakers} speakers, {hours:.2f} h")
        names.append(name)
    write_json(done_file, {"from": wanted, "sets": names})


def _download(url: str, folder: Path) -> Path:
    """The one folder inside the archive at `url`, unpacked into `folder`."""
    archive = fetch(url, folder / Path(url).name)
    unpacked = folder / "unpacked"
    if not unpacked.exists():
        aside = folder / ".unpacking"
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(aside, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"{archive} cannot be unpacked ({error}); delete it and run again") from None
        aside.rename(unpacked)
    found = sorted(path for path in unpacked.iterdir() if path.is_dir())
    if len(found) != 1:
        raise UserError(f"{archive} holds {len(found)} folders, not one; delete {folder} and run again")
    return found[0]
