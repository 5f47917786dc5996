"""An experiment's configuration in, its units, data and model out: what training, decoding and probing all start from."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hfftools.config import resolve
from hfftools.data import datadir
from hfftools.data.ark import HiddenCache
from hfftools.data.batch import Speech
from hfftools.data.units import Units
from hfftools.data.units import load as load_units
from hfftools.expdir import ExpDir
from hfftools.log import UserError, log
from hfftools.model import ROOMS
from hfftools.model import Config as ModelConfig
from hfftools.model import Model
from hfftools.train.loop import Config as LoopConfig
from hfftools.train.optim import Config as OptimConfig

MANY_TOO_LONG = 0.1  # share of utterances with more labels than frames at which training is refused


@dataclass
class DataConfig:
    """Which data, and how much of it at a time."""

    train: str = "data/train"
    dev: str = "data/dev"
    test: list[str] = field(default_factory=lambda: ["data/test"])
    units: str = "data/units"
    features: str = ""  # folder of cached hidden states, one folder a set in it; empty: run the upstream
    batch_seconds: float = 120.0  # count times longest utterance
    workers: int = 1  # processes that load audio


@dataclass
class Config(ModelConfig):
    """One experiment."""

    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:1 …
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: LoopConfig = field(default_factory=LoopConfig)


# What may change from one call to the next, since it changes nothing that is learned.
HARMLESS = ("device", "data.workers", "data.test", "train.save_minutes")


def configure(sources: list[Path], overrides: list[str]) -> Any:
    """Yaml files, then `key=value` arguments, over the defaults; plug-ins bring their own options."""
    return resolve(Config, sources, overrides, ROOMS)


def read_config(exp: ExpDir, overrides: list[str]) -> Any:
    """The frozen configuration of an experiment, `overrides` (such as device=cpu) over it."""
    if not exp.config.exists():
        raise UserError(f"{exp.config} is missing: {exp.root} is not an experiment that hff-train made")
    return configure([exp.config], overrides)


def device_of(wanted: str) -> torch.device:
    """The device asked for; `auto` is the GPU where there is one."""
    wanted = wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={wanted}: {str(error).splitlines()[0]}") from None


def experiment_units(exp: ExpDir, config: Any) -> Units:
    """The experiment's own units, copied from data.units when it begins."""
    if not exp.units.exists():
        source = Path(config.data.units)
        load_units(source)  # refuses what is not whole
        aside = exp.units.with_name(".units.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
        aside.rename(exp.units)
    return load_units(exp.units)


def speech(config: Any, directory: str, units: Units, model: Model) -> Speech:
    """The utterances of a data directory, read from the cache of hidden states where it has all of them."""
    utterances = datadir.read(directory, need_text=False)
    cache = HiddenCache(config.data.features, Path(directory).name) if config.data.features else None
    if cache is not None and not cache.matches(model.upstream.hash, model.layers, [u.id for u in utterances]):
        log.info(f"{cache.folder} does not hold {directory}: running the upstream")
        cache = None
    return Speech(utterances, units, cache, model.layers)


def trainable_speech(config: Any, directory: str, units: Units, model: Model) -> Speech:
    """The same for training: unknown symbols and labels longer than frames are named; the latter are left out."""
    utterances = datadir.read(directory)
    unknown = {u.id: symbols for u in utterances if (symbols := units.unknown(u.text))}
    if unknown:
        utt, symbols = next(iter(unknown.items()))
        raise UserError(
            f"{directory}/text: {len(unknown)} utterances have symbols that {config.data.units} lacks, first {utt}: "
            f"{' '.join(repr(s) for s in symbols)}; train the units on this text, or normalise it"
        )
    cache = None
    if config.data.features:
        if model.upstream_trains:
            raise UserError(
                f"data.features: tune '{config.tune.name}' changes the upstream, so its states cannot be cached"
            )
        cache = HiddenCache(config.data.features, Path(directory).name)
        cache.check(model.upstream.hash, model.layers, [u.id for u in utterances])
    data = Speech(utterances, units, cache, model.layers)
    samples = torch.tensor([round(d * 16000) for d in data.durations_s])
    frames = model.upstream.out_lens(samples).tolist()
    needed = [model.task.frames_needed(ids) for ids in data.targets]
    too_long = [i for i, (f, n) in enumerate(zip(frames, needed, strict=True)) if n > f]
    for i in too_long[:10]:
        log.warning(
            f"{directory}: {data.utterances[i].id} needs {needed[i]} frames for its labels, has {frames[i]}; left out"
        )
    if len(too_long) > MANY_TOO_LONG * len(frames):
        raise UserError(
            f"{directory}: {len(too_long)} of {len(frames)} utterances have more labels than frames, first "
            f"{data.utterances[too_long[0]].id}; use larger units (hff-units --kind bpe) or an upstream of a higher frame rate"
        )
    gone = set(too_long)
    kept = [u for i, u in enumerate(data.utterances) if i not in gone]
    return Speech(kept, units, cache, model.layers)
