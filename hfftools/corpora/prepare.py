"""Prepare a corpus by name: download or unpack it where its module knows how, and write validated data directories."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from hfftools.config import plugin, resolve
from hfftools.corpora.download import fetch
from hfftools.corpora.unpacking import unpack
from hfftools.data import datadir
from hfftools.data.table import listed
from hfftools.data.validation import validate
from hfftools.disk import alone
from hfftools.expdir import write_json
from hfftools.log import UserError, log, require
from hfftools.records import read_json


def configure(corpus: str, options: Sequence[str] = ()) -> Any:
    """Return the checked configuration of a corpus with its `key=value` options; None for one without options.

    Raise UserError for an unknown corpus or option.
    """
    module = plugin("corpora", corpus)
    if hasattr(module, "Config"):
        return resolve(module.Config, [], options)
    if options:
        raise UserError(f"'{options[0]}': {corpus} has no options of its own; leave it out")
    return None


def prepare(
    corpus: str, source: Path | None, out: Path, limit: int | None = None, options: Sequence[str] = ()
) -> list[str]:
    """Write out/<set> for each set of `corpus` and return the names of the sets; skip what is there already.

    `source` is the corpus in its own layout; without it, the corpus is downloaded or generated if its module can. At most
    `limit` utterances per set are taken; `options` are `key=value` arguments for the Config of the corpus. Raise UserError
    if the corpus is missing or incomplete, or if a set is there that another corpus, or the user, has put there.
    """
    require(limit is None or limit > 0, f"--limit: {limit} is not above 0; leave it out for all utterances")
    module = plugin("corpora", corpus)
    if source is None:
        options = [*getattr(module, "WITHOUT_SOURCE", ()), *options]
    options_of_corpus = configure(corpus, options)
    config: list[Any] = [] if options_of_corpus is None else [options_of_corpus]  # the functions' last argument, if any
    wanted: dict[str, Any] = {"source": str(source.resolve()) if source else None, "limit": limit}
    wanted["options"] = asdict(config[0]) if config else {}
    with alone(out, waits=True):
        return _prepare(corpus, source, out, limit, module, config, wanted)


def _prepare(
    corpus: str,
    source: Path | None,
    out: Path,
    limit: int | None,
    module: ModuleType,
    config: list[Any],
    wanted: dict[str, Any],
) -> list[str]:
    """Do what `prepare` does in a folder that is locked; `wanted` is the record of what the sets are made from."""
    done_file = out / f".{corpus}.json"
    # the sets that earlier calls have made; None: they were calls of an older hff, which did not say
    ours: list[str] | None = []
    if done_file.exists():
        done = read_json(done_file, {"from": dict, "sets": [str], "made?": [str]})
        if done["from"] == wanted and _is_whole(corpus, out, done["sets"]):
            return done["sets"]
        ours = done.get("made")
    found = _find(module, corpus, source, out.parent / "downloads" / corpus, config, limit)
    if ours is not None:  # before the module writes into them
        _refuse_others(corpus, out, set(getattr(module, "GENERATED", ())) - set(ours))
    sets = module.sets(found, out, limit, *config)
    if ours is not None:
        _refuse_others(corpus, out, set(sets) - set(ours))
    made = sorted({*(ours or ()), *sets})
    write_json(done_file, {"from": {}, "sets": [], "made": made})  # a run that is killed from here on is done again
    names = []
    for name, utterances in sets.items():
        datadir.write(out / name, utterances)
        count = validate(out / name)
        hours, speakers = sum(u.duration_s for u in utterances) / 3600, len({u.speaker for u in utterances})
        log.info(f"{out / name}: {count} utterances, {speakers} speakers, {hours:.2f} h")
        names.append(name)
    write_json(done_file, {"from": wanted, "sets": names, "made": made})
    return names


def _refuse_others(corpus: str, out: Path, names: set[str]) -> None:
    """Raise UserError where there is a set of one of these names, which earlier calls have not made."""
    for name in sorted(names):
        if listed(out / name, "wav.scp"):
            raise UserError(
                f"{out / name} is there already, and hff-prepare {corpus} did not make it; give another --out, or remove it"
            )


def _is_whole(corpus: str, out: Path, names: list[str]) -> bool:
    """Return whether all sets of an earlier run are still valid data directories, and log what was found."""
    try:
        for name in names:
            validate(out / name)
    except UserError as error:
        log.info(f"preparing {corpus} again: {error}")
        return False
    log.info(f"{out}: {', '.join(names)} are there already")
    return True


def _find(
    module: ModuleType, corpus: str, source: Path | None, downloads: Path, config: list, limit: int | None
) -> Path | None:
    """Return the folder of the corpus after download or unpacking; None for a corpus that is generated."""
    if source is None:
        if hasattr(module, "archives"):
            with alone(downloads, waits=True):
                for url, checksum in module.archives(*config).items():
                    _unpack(url, checksum, downloads)
            return downloads / "unpacked"
        if getattr(module, "GENERATED", ()):
            return None
        raise UserError(
            f"--source: where is {corpus}? {getattr(module, 'WHERE', 'Give the folder it was unpacked to')}"
        )
    if source.is_file() and hasattr(module, "unpack"):
        with alone(downloads, waits=True):
            return module.unpack(source, downloads, limit, *config)
    if not source.is_dir():
        raise UserError(f"--source {source} is not a folder; give the folder that the corpus was unpacked to")
    return source


def _unpack(url: str, checksum: str, downloads: Path) -> None:
    """Download an archive and unpack it to downloads/unpacked/<its name>/, unless that is there already.

    The folder appears only when it is complete, so the archive may be deleted then.
    """
    name = Path(url).name
    folder = downloads / "unpacked" / name.partition(".")[0]
    if folder.exists():
        return
    archive = fetch(url, downloads / name, checksum)
    aside = downloads / f".unpacking-{name}"
    shutil.rmtree(aside, ignore_errors=True)  # left by a run that was killed
    log.info(f"unpacking {archive}")
    unpack(archive, aside)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(folder)
