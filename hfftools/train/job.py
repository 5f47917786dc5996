"""Whole jobs on an experiment's folder: configuration in, a trained model out; data directories in, scored text out."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hfftools import score
from hfftools.config import compare_config, save_config
from hfftools.data import datadir
from hfftools.data.table import write_table
from hfftools.data.units import Units
from hfftools.data.units import load as load_units
from hfftools.expdir import ExpDir, check_inputs, write_json
from hfftools.log import UserError, log, setup_logging
from hfftools.model import Model
from hfftools.train import checkpoint, evaluate, experiment
from hfftools.train.ledger import parameters
from hfftools.train.loop import Loop
from hfftools.upstream.names import load_upstream


def train(root: Path, sources: list[Path], overrides: list[str]) -> ExpDir:
    """Train the experiment in `root`, or go on with it; nothing happens where its final checkpoint is there already.

    With neither files nor options the experiment's frozen configuration is used. Raises UserError where an option
    or a content of its data, units or upstream differs from those the experiment was begun with.
    """
    exp = ExpDir(root)
    if exp.config.exists() and not sources and not overrides:
        config = experiment.read_config(exp, [])
    else:
        config = experiment.configure(sources, overrides)
        compare_config(config, exp.config, may_differ=experiment.HARMLESS)
    device = experiment.device_of(config.device)
    with exp.alone():
        _train(exp, config, device)
    return exp


def _train(exp: ExpDir, config: Any, device: torch.device) -> None:
    gone = exp.units.exists() and not Path(config.data.units).exists()
    units = load_units(exp.units if gone else Path(config.data.units))
    inputs = {"data.units": units.digest}
    for key in ("train", "dev"):
        inputs[f"data.{key}"] = datadir.digest(datadir.read(config.data[key]))
    check_inputs(exp.inputs, inputs)
    if exp.final.exists():
        log.info(f"{exp.final} is there already: nothing to train")
        return
    upstream = load_upstream(config.upstream)
    torch.manual_seed(config.seed)  # after the upstream, whose building may draw numbers of its own
    model = Model(config, units, upstream)
    if config.data.features and model.upstream_trains:
        raise UserError(
            f"data.features: tune '{config.tune.name}' changes the upstream, so its states cannot be cached"
        )
    check_inputs(exp.inputs, {"upstream": upstream.hash})
    sets = {
        key: experiment.learnable(config.data[key], units, upstream, model.layers, config.data.features, key == "train")
        for key in ("train", "dev")
    }
    loop = Loop(exp, config, model, sets["train"], sets["dev"], device)
    save_config(config, exp.config)
    write_json(exp.inputs, {**inputs, "upstream": upstream.hash})
    experiment.keep_units(exp, config)
    setup_logging(exp.log)
    counts = parameters(model)
    log.info(f"{upstream.name}: layers {model.layers} of 0..{upstream.num_layers}, width {upstream.dim}")
    log.info(", ".join(f"{name} {count:,}" for name, count in counts.items()) + " parameters")
    used = loop.run()
    write_json(
        exp.resources, {"parameters": counts, **used, "cached": bool(config.data.features), "device": str(device)}
    )
    loop.keep_final()


def decode(root: Path, sets: list[str], overrides: list[str]) -> list[Path]:
    """Decode data directories (those of data.test where none is given) with an experiment's final checkpoint, and score.

    Each set's folder exp/<name>/decode/<set> gets text, ref (where there are transcripts), scores and decode.json; a set
    that is there, whole and of this checkpoint, is not decoded again.
    """
    exp = ExpDir(root)
    config = experiment.read_config(exp, overrides)
    device = experiment.device_of(config.device)
    digest = checkpoint.digest(exp.final)
    units = experiment.experiment_units(exp, config)
    model, folders = None, []
    directories = sets or list(config.data.test)
    names = [Path(directory).name for directory in directories]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"two data directories are called {twice[0]}, and both would be decoded to {exp.decode(twice[0])}"
        )
    for directory in directories:
        out = exp.decode(Path(directory).name)
        folders.append(out)
        utterances = datadir.read(directory, need_text=False)
        wanted = {"checkpoint": digest, "data": datadir.digest(utterances)}
        info = out / "decode.json"
        if info.exists() and wanted.items() <= json.loads(info.read_text()).items():
            log.info(f"{out} is there already, from this checkpoint")
            continue
        if model is None:
            model = Model(config, units)
            checkpoint.load(exp.final, model)
            model.to(device)
        data = experiment.speech(config, directory, units, model)
        start = time.monotonic()
        hypotheses, _ = evaluate.transcribe(model, data, config.data.batch_seconds, device, f"decoding {out.name}")
        seconds, audio = time.monotonic() - start, sum(data.durations_s)
        info.unlink(missing_ok=True)
        write_table(out / "text", hypotheses)
        write_table(out / "utt2spk", {u.id: u.speaker for u in utterances})
        if all(u.text is not None for u in utterances):
            write_table(out / "ref", {u.id: u.text for u in utterances})
        write_json(info, {**wanted, "seconds": seconds, "audio_seconds": audio, "scores": _scores(out, units)})
        log.info(f"{out}: {len(hypotheses)} utterances, real-time factor {seconds / audio:.3f}")
    return folders


def rescore(folder: Path) -> dict[str, score.Score]:
    """Score a decoded set exp/<name>/decode/<set> anew, from its text and ref as they stand now."""
    if not (folder / "text").exists():
        raise UserError(f"{folder}/text is missing: not a decoded set exp/<name>/decode/<set>; run hff-decode")
    scores = score.score_dir(folder, load_units(ExpDir(folder.absolute().parents[1]).units))
    info = folder / "decode.json"
    if info.exists():
        write_json(info, {**json.loads(info.read_text()), "scores": {m: asdict(found) for m, found in scores.items()}})
    return scores


def _scores(folder: Path, units: Units) -> dict[str, dict]:
    if not (folder / "ref").exists():
        return {}
    return {metric: asdict(found) for metric, found in score.score_dir(folder, units).items()}


def read_scores(folder: Path) -> dict[str, score.Score]:
    """The scores of a decoded set by metric (wer, cer, ter); none where it has no transcripts."""
    stored = json.loads((folder / "decode.json").read_text())["scores"]
    return {metric: score.Score(**counts) for metric, counts in stored.items()}
