"""Read an experiment's configuration, targets and data: what training, decoding and probing all start from."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch

from hfftools import dist
from hfftools.config import flat, plugin, resolve, with_option
from hfftools.data import datadir
from hfftools.data.batch import Speech, Targets
from hfftools.data.datadir import Utterance
from hfftools.data.inputs import of_set
from hfftools.data.perturb import Perturb
from hfftools.expdir import ExpDir, check_inputs
from hfftools.log import UserError, log
from hfftools.model import ROOMS, Model
from hfftools.nn.precision import use_bf16
from hfftools.nn.rate import RATE_HZ
from hfftools.recorded import read_recorded
from hfftools.task.base import Task
from hfftools.train.config import Config
from hfftools.upstream.base import Upstream
from hfftools.upstream.state_cache import HiddenCache

MANY_TOO_LONG = 0.1  # share of utterances with too few frames for their labels at which training is refused

# Options that may change from one call to the next, since they do not change what is learned.
HARMLESS = ("device", "data.workers", "data.test", "train.save_minutes")
# Options that may differ when a trained experiment is used.
CHANGEABLE = (*HARMLESS, "data.features", "data.batch_seconds")


def configure(sources: list[Path], overrides: list[str]) -> Config:
    """Return the defaults with yaml files, then `key=value` arguments, merged over them; plug-ins add their options."""
    return resolve(Config, sources, overrides, ROOMS)


def read_config(exp: ExpDir, overrides: list[str]) -> Config:
    """Return an experiment's recorded configuration with `overrides`.

    Raise UserError for an override that could change a result, and where the recorded options were edited after training.
    """
    for word in overrides:
        if word.partition("=")[0] not in CHANGEABLE:
            raise UserError(f"'{word}': after training only {', '.join(CHANGEABLE)} can be chosen")
    if not exp.config.exists():
        raise UserError(f"{exp.config} is missing: {exp.root} is not an experiment that hff-train made")
    if "task" not in read_recorded(exp.config):  # the folder of a probing or of a pre-training
        raise UserError(f"{exp.config} names no task: {exp.root} is not an experiment that hff-train made")
    check_inputs(exp.inputs, recorded_digest(exp))
    return configure([exp.config], overrides)


def recorded_digest(exp: ExpDir) -> dict[str, str]:
    """Return the digest of the recorded options, without those that say where things are or that change no result."""
    options = flat(read_recorded(exp.config))  # without the defaults of options that it does not name
    free = (*CHANGEABLE, "upstream", "perturb.noise")
    kept = {key: value for key, value in options.items() if key not in free and not key.startswith("data.")}
    return {"the options in config.yaml": sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]}


def device_of(wanted: str) -> torch.device:
    """Return the device of that name; `auto` is a GPU if there is one. Each of several processes gets a GPU of its own."""
    wanted = wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and dist.world() > 1:
        wanted = f"cuda:{dist.local_rank()}"
    try:
        zero = torch.zeros(1, device=wanted)  # torch.device alone accepts devices that do not exist
        zero.item()  # the device `meta` holds no values
        return zero.device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={wanted}: {str(error).splitlines()[0]}") from None


def choose_precision(config: Config, device: torch.device) -> Config:
    """Return the configuration with train.bf16 as true or false in place of auto.

    Raises UserError where train.bf16 is true and the device cannot compute in bfloat16.
    """
    return with_option(config, "train.bf16", use_bf16(config.train.bf16, device, "train.bf16"))


def task_of(config: Config) -> type[Task]:
    """Return the class of the experiment's task, which states what is known of the task without a model."""
    return plugin("task", config.task.name).Task


def kept_targets(exp: ExpDir, config: Config) -> Targets:
    """Return the targets that the experiment keeps: the units of a recogniser, the labels of a classifier.

    Raise UserError where they are not those of the training.
    """
    targets = task_of(config).load_targets(exp.units)
    check_inputs(exp.inputs, {"data.units": targets.digest})
    return targets


def keep_targets(exp: ExpDir, targets: Targets) -> None:
    """Write the targets into the experiment, unless that was done before."""
    if not exp.units.exists():
        aside = exp.units.with_name(".units")
        shutil.rmtree(aside, ignore_errors=True)
        targets.save(aside)
        aside.rename(exp.units)


def open_cache(features: str, directory: str) -> HiddenCache:
    """Return the cache of a data directory's hidden states."""
    return HiddenCache(features, datadir.set_name(directory))


def precision_of(features: str, directories: list[str]) -> dict[str, str]:
    """Return in how many bits the hidden states are that the cache `features` may hold: an input of what is made of them.

    States in 16 bits give the transcripts of those in 32, or of those that are computed; states in 8 bits differ.
    """
    caches = [open_cache(features, directory) for directory in directories] if features else []
    coarse = any(cache.info_file.exists() and cache.form() == "int8" for cache in caches)
    return {"hidden states": "8 bits" if coarse else "16 bits or more"}


def states_from(upstream: Upstream, utterances: list[Utterance]) -> dict[str, str]:
    """Return the digests of what the hidden states of a set have to be made from."""
    return {**upstream.digests, **of_set("data", utterances, text=False)}


def usable_features(config: Config, model: Model) -> str:
    """Return data.features, or "" if the method changes the upstream, since cached states would then be outdated."""
    if config.data.features and model.upstream_trains:
        log.info(f"tune '{config.tune.name}' changes the upstream: it is run, and {config.data.features} is not used")
        return ""
    return config.data.features


def training_features(config: Config, features: str) -> str:
    """Return `features`, or "" if the training waveforms change each epoch; dev and test may still use the cache."""
    if features and config.perturb.wanted:
        log.info(f"perturb changes the training speech: the upstream is run on it, and {features} is not used for it")
        return ""
    return features


def perturbation(config: Config) -> Perturb | None:
    """Return what perturbs the waveforms of the training speech; None if nothing does."""
    return Perturb(config.perturb, config.seed) if config.perturb.wanted else None


def speech(config: Config, directory: str, targets: Targets, model: Model, only: set[str] | None = None) -> Speech:
    """Return the utterances of a data directory, or some of them, from the cache of hidden states where it has them all."""
    utterances = datadir.read(directory, need_text=False, reference=model.task.reference)
    cache = None
    if features := usable_features(config, model):
        cache = open_cache(features, directory)
        if lacks := cache.lacks(model.layers, states_from(model.upstream, utterances)):
            log.info(f"{cache.folder} lacks {', '.join(lacks)} of {directory}: running the upstream")
            cache = None
    _report_unknown(Path(directory) / model.task.reference, utterances, targets)
    chosen = [utt for utt in utterances if only is None or utt.id in only]
    return Speech(chosen, targets, cache, model.layers)


def learnable(
    directory: str,
    targets: Targets,
    upstream: Upstream,
    layers: list[int],
    features: str,
    frames_needed: Callable[[list[int]], int] | None = None,
    perturb: Perturb | None = None,
    reference: str = "text",
) -> Speech:
    """Return speech with references to choose by or, with `frames_needed`, to learn from; from the cache `features`, if any.

    `frames_needed` returns how many frames an utterance's labels take, as a task does. For training, references that the
    targets do not cover are refused, and utterances with fewer frames, at the highest speed of `perturb`, are named and
    left out. References are read from the file `reference` of the directory.
    """
    utterances = datadir.read(directory, reference=reference)
    cache = None
    if features:
        cache = open_cache(features, directory)
        cache.check(layers, states_from(upstream, utterances))
    if frames_needed is not None:
        _refuse_unknown(Path(directory) / reference, utterances, targets)
        fastest = max(perturb.config.speeds) if perturb else 1.0
        utterances = _long_enough(directory, utterances, targets, upstream, frames_needed, fastest)
    else:
        _report_unknown(Path(directory) / reference, utterances, targets)
    return Speech(utterances, targets, cache, layers, perturb)


def _unknown(file: Path, utterances: list[Utterance], targets: Targets) -> str:
    """Return a clause that says how many references have symbols that the targets lack; empty where none has."""
    symbols_of = {u.id: targets.unknown(u.text or "") for u in utterances}
    unknown = {utt: symbols for utt, symbols in symbols_of.items() if symbols}
    if not unknown:
        return ""
    utt, symbols = next(iter(unknown.items()))
    first = f"first {utt}: {' '.join(repr(s) for s in symbols)}"
    return f"{file}: {len(unknown)} of {len(utterances)} utterances have symbols that the units lack, {first}"


def _refuse_unknown(file: Path, utterances: list[Utterance], targets: Targets) -> None:
    """Raise UserError if references have symbols that the targets lack."""
    if clause := _unknown(file, utterances, targets):
        raise UserError(f"{clause}; make the units from this text, or normalise it")


def _report_unknown(file: Path, utterances: list[Utterance], targets: Targets) -> None:
    """Warn of references that no hypothesis can equal, as where case or Unicode form is not that of the training text."""
    if clause := _unknown(file, utterances, targets):
        log.warning(
            f"{clause}; these count as errors: write the text as that of the training set (hff-datadir normalise)"
        )


def _long_enough(
    directory: str,
    utterances: list[Utterance],
    targets: Targets,
    upstream: Upstream,
    frames_needed: Callable[[list[int]], int],
    fastest: float,
) -> list[Utterance]:
    """Return the utterances that have as many frames as their labels need at the speed `fastest`; log the others.

    Raises UserError if the others are more than MANY_TOO_LONG of all, which points to units that are too small.
    """
    frames = upstream.out_lens(torch.tensor([round(u.duration_s * RATE_HZ / fastest) for u in utterances])).tolist()
    when, slower = ("", "") if fastest == 1 else (f" at speed {fastest:g}", ", lower perturb.speeds")
    needed = [frames_needed(targets.encode(u.text or "")) for u in utterances]
    too_long = {u.id: (n, f) for u, n, f in zip(utterances, needed, frames, strict=True) if n > f}
    for utt, (n, f) in list(too_long.items())[:10]:
        log.warning(f"{directory}: {utt} needs {n} frames for its labels and has {f}{when}; left out")
    if len(too_long) > MANY_TOO_LONG * len(utterances):
        raise UserError(
            f"{directory}: {len(too_long)} of {len(utterances)} utterances have too few frames for their labels{when}, "
            f"first {next(iter(too_long))}; use larger units (hff-units --kind bpe){slower} or an upstream with more "
            "frames/s"
        )
    if too_long:
        log.warning(
            f"{directory}: {len(too_long)} of {len(utterances)} utterances left out: too few frames for their labels{when}"
        )
    return [u for u in utterances if u.id not in too_long]
