"""A corpus by name in, validated data directories out; downloaded or unpacked first where its module knows how."""

import json
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hfftools.config import plugin, resolve
from hfftools.corpora.download import fetch
from hfftools.data import datadir
from hfftools.expdir import write_json
from hfftools.log import UserError, log


def prepare(
    corpus: str, source: Path | None, out: Path, limit: int | None = None, options: Sequence[str] = ()
) -> list[str]:
    """Write out/<set> for each set of `corpus`, and return their names; what was done before with these arguments stays.

    `source` is the corpus in its own layout; without it, it is downloaded or, where it makes itself, made. At most `limit`
    utterances a set are taken; `options` are `key=value` of the corpus' own Config. UserError where the corpus is not
    there or not whole.
    """
    module = plugin("corpora", corpus)
    if options and not hasattr(module, "Config"):
        raise UserError(f"'{options[0]}': {corpus} has no options of its own")
    if source is None:
        options = [*getattr(module, "WITHOUT_SOURCE", ()), *options]
    config = [OmegaConf.to_object(resolve(module.Config, [], options))] if hasattr(module, "Config") else []
    done_file = out / f".{corpus}.json"
    wanted = {"source": str(source.resolve()) if source else None, "limit": limit}
    wanted |= {"options": asdict(config[0]) if config else {}}
    if done_file.exists() and (done := json.loads(done_file.read_text()))["from"] == wanted:
        try:
            for name in done["sets"]:
                datadir.validate(out / name)
            log.info(f"{out}: {', '.join(done['sets'])} are there already")
            return done["sets"]
        except UserError as error:
            log.info(f"preparing {corpus} again: {error}")
    source = _folder(module, corpus, source, out.parent / "downloads" / corpus, config, limit)
    done_file.unlink(missing_ok=True)
    names = []
    for name, utterances in module.sets(source, out, limit, *config).items():
        datadir.write(out / name, utterances)
        count = datadir.validate(out / name)
        hours, speakers = sum(u.duration_s for u in utterances) / 3600, len({u.speaker for u in utterances})
        log.info(f"{out / name}: {count} utterances, {speakers} speakers, {hours:.2f} h")
        names.append(name)
    write_json(done_file, {"from": wanted, "sets": names})
    return names


def _folder(
    module: Any, corpus: str, source: Path | None, downloads: Path, config: list, limit: int | None
) -> Path | None:
    """Where the corpus lies, once it is downloaded or unpacked; None for one that makes itself."""
    if source is None:
        if hasattr(module, "archives"):
            for url, checksum in module.archives(*config).items():
                _unpacked(url, checksum, downloads)
            return downloads / "unpacked"
        if corpus == "mini":
            return None
        raise UserError(
            f"--source: where is {corpus}? {getattr(module, 'WHERE', 'Give the folder it was unpacked to')}"
        )
    if source.is_file() and hasattr(module, "unpack"):
        return module.unpack(source, downloads, limit, *config)
    if not source.is_dir():
        raise UserError(f"--source {source} is not a folder")
    return source


def _unpacked(url: str, checksum: str, downloads: Path) -> None:
    """downloads/unpacked/<name of the archive>/, whole; the archive may be deleted once it is there."""
    name = Path(url).name
    folder = downloads / "unpacked" / name.partition(".")[0]
    if folder.exists():
        return
    archive = fetch(url, downloads / name, checksum)
    aside = downloads / f".unpacking-{name}"
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    log.info(f"unpacking {archive}")
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(aside, filter="data")
            while tar.fileobj.read(1 << 20):  # to the end, where gzip keeps the sum of it all
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{archive} cannot be unpacked ({reason}); delete it and run again") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(folder)
