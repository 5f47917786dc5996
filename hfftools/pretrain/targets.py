"""Keep the targets of a pre-training in one file, made once, in pieces that resume, which serves without their teacher.

The file can be copied to another machine: it knows what it was made from by content, so that the teacher's weights need
not be there. S is the number of targets of each frame.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hfftools.config import plugin
from hfftools.expdir import write_aside
from hfftools.log import UserError, log, progress
from hfftools.pretrain.config import Config
from hfftools.pretrain.features import Corpus, read_arrays
from hfftools.records import AGAIN, check, readable

PIECE = 200  # utterances in a piece: a minute or two of a large teacher on a processor


@dataclass(frozen=True)
class Targets:
    """Targets of every frame of the encoder, all utterances end to end [sum T/4, S] int16; `about` is for the model card."""

    frames: np.ndarray
    classes: int
    about: dict[str, Any]


def source_digests(config: Config, file: Path) -> dict[str, str]:
    """Return the digests of what the targets are made from, apart from the speech.

    Where that is not on this machine, they are those that `file`, the kept targets, records; UserError without it.
    """
    try:
        return plugin("pretrain", config.targets.name).digests(config.targets)
    except UserError as error:
        recorded = _read(file)[1] if file.exists() else None
        if recorded is None or recorded[:2] != _recipe(config):
            raise
        log.info(f"{error}: training goes on with the targets kept in {file}")
        return {name: digest for name, digest in recorded[2].items() if name.startswith("targets.")}


def obtain(file: Path, corpus: Corpus, config: Config, digests: dict[str, str], device: torch.device) -> Targets:
    """Return the targets in `file`, which are made unless they are there, of the same inputs, {name: digest}.

    The configuration is recorded only after this, so that of a run killed in between the file alone says what it is of.
    """
    # the digest of a whole set names places, and not content
    parts = {name: digest for name, digest in digests.items() if ": " in name and not name.startswith("init: ")}
    made_from = [*_recipe(config), parts]
    if file.exists():
        kept, recorded = _read(file)
        if recorded in (None, made_from):  # older versions did not record it
            if len(kept.frames) != corpus.sub_lens.sum():
                raise UserError(f"{file} belongs to other data; remove {file.parent} and begin again")
            return kept
        log.info(f"{file} was made from other data, teacher or options, and is made again")
    return _make(file, corpus, config, made_from, device)


def _recipe(config: Config) -> list:
    return [asdict(config.targets), config.seed]


def _read(file: Path) -> tuple[Targets, list | None]:
    """Return kept targets and what they were made from; an option that they do not name had its default."""
    stored = read_arrays(file, ("targets", "classes"), AGAIN, ("made_from", "about"))
    with readable(file):
        about = check(json.loads(str(stored.get("about", "{}"))), dict)
        recorded = check(json.loads(str(stored.get("made_from", "null"))), list | None)
        if recorded is not None:
            options, seed, parts = recorded
            recorded = [asdict(plugin("pretrain", options["name"]).Config()) | options, seed, check(parts, {...: str})]
    return Targets(stored["targets"], int(stored["classes"]), about), recorded


def _make(file: Path, corpus: Corpus, config: Config, made_from: list, device: torch.device) -> Targets:
    """Make the targets piece by piece; pieces of an earlier call that was stopped are used if made from the same."""
    module, folder, pieces = plugin("pretrain", config.targets.name), file.with_suffix(""), []
    maker = module.Maker(corpus, config.targets, device)
    centres_KD = _piece(folder / "centres.npz", made_from, partial(maker.fit, config.seed))
    starts = range(0, len(corpus), PIECE)
    for number, start in enumerate(progress(starts, len(starts), "targets", f"{PIECE} utt")):
        rows = range(start, min(start + PIECE, len(corpus)))
        pieces.append(_piece(folder / f"{number:05d}.npz", made_from, partial(maker.assign, rows, centres_KD)))
    made = Targets(np.concatenate(pieces), len(centres_KD), {**module.about(config.targets), **_sources(made_from[2])})
    with write_aside(file) as aside, open(aside, "wb") as opened:
        about, record = json.dumps(made.about), json.dumps(made_from)
        np.savez_compressed(opened, targets=made.frames, classes=made.classes, made_from=record, about=about)
    shutil.rmtree(folder)
    return made


def _sources(parts: dict[str, str]) -> dict[str, str]:
    """Return the digests of the teacher for the model card."""
    start = "targets.source: "
    return {f"digest of the {n.removeprefix(start)}": digest for n, digest in parts.items() if n.startswith(start)}


def _piece(file: Path, made_from: list, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array in `file`, which is made by `make` unless it is there, of the same inputs."""
    record = json.dumps(made_from, sort_keys=True)
    if file.exists():
        stored = read_arrays(file, ("array", "made_from"), AGAIN)
        if str(stored["made_from"]) == record:
            return stored["array"]
    array = make()
    with write_aside(file) as aside, open(aside, "wb") as opened:
        np.savez(opened, array=array, made_from=record)
    return array
