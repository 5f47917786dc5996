"""Whole jobs on an experiment's folder: configuration in, a trained model out; data directories in, scored text out."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from hfftools import score
from hfftools.config import save_config
from hfftools.data import datadir
from hfftools.expdir import ExpDir, write_json, write_text
from hfftools.log import log
from hfftools.model import Model
from hfftools.train import checkpoint, evaluate, experiment
from hfftools.train.ledger import parameters
from hfftools.train.loop import Loop
from hfftools.upstream.names import load_upstream


def train(root: Path, sources: list[Path], overrides: list[str]) -> ExpDir:
    """Train the experiment in `root`, or go on with it; nothing happens where its final checkpoint is there already.

    With neither files nor options the experiment's frozen configuration is used. Raises UserError where an option differs
    from those the experiment was begun with.
    """
    exp = ExpDir(root)
    if exp.config.exists() and not sources and not overrides:
        config = experiment.read_config(exp, [])
    else:
        config = experiment.configure(sources, overrides)
    device = experiment.device_of(config.device)
    save_config(config, exp.config, may_differ=experiment.HARMLESS)
    if exp.final.exists():
        log.info(f"{exp.final} is there already: nothing to train")
        return exp
    units, upstream = experiment.experiment_units(exp, config), load_upstream(config.upstream)
    torch.manual_seed(config.seed)  # after the upstream, whose building may draw numbers of its own
    model = Model(config, units, upstream)
    counts = parameters(model)
    log.info(
        f"{model.upstream.name}: layers {model.layers} of 0..{model.upstream.num_layers}, width {model.upstream.dim}"
    )
    log.info(", ".join(f"{name} {count:,}" for name, count in counts.items()) + " parameters")
    train_data = experiment.trainable_speech(config, config.data.train, units, model)
    dev_data = experiment.trainable_speech(config, config.data.dev, units, model)
    loop = Loop(exp, config, model, train_data, dev_data, device)
    used = loop.run()
    write_json(
        exp.resources, {"parameters": counts, **used, "cached": bool(config.data.features), "device": str(device)}
    )
    loop.keep_final()
    return exp


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
    model = None
    folders = []
    for directory in sets or list(config.data.test):
        out = exp.decode(Path(directory).name)
        folders.append(out)
        utterances = datadir.read(directory, need_text=False)
        wanted = {"checkpoint": digest, "data": directory, "utterances": len(utterances)}
        if _done(out, wanted):
            log.info(f"{out} is there already, from this checkpoint")
            continue
        if model is None:
            model = Model(config, units)
            checkpoint.load(exp.final, model)
            model.to(device)
        data = experiment.speech(config, directory, units, model)
        start = time.monotonic()
        hypotheses = evaluate.transcribe(model, data, config.data.batch_seconds, device, f"decoding {out.name}")
        seconds, audio = time.monotonic() - start, sum(data.durations_s)
        (out / "decode.json").unlink(missing_ok=True)
        write_text(out / "text", "".join(f"{utt} {hypotheses[utt]}".rstrip() + "\n" for utt in sorted(hypotheses)))
        scores = {}
        if all(u.text is not None for u in utterances):
            write_text(out / "ref", "".join(f"{u.id} {u.text}\n" for u in utterances))
            write_text(out / "utt2spk", "".join(f"{u.id} {u.speaker}\n" for u in utterances))
            scores = {metric: asdict(found) for metric, found in score.score_dir(out, units).items()}
        write_json(out / "decode.json", {**wanted, "seconds": seconds, "audio_seconds": audio, "scores": scores})
        log.info(f"{out}: {len(hypotheses)} utterances, real-time factor {seconds / audio:.3f}")
    return folders


def read_scores(folder: Path) -> dict[str, score.Score]:
    """The scores of a decoded set by metric (wer, cer, ter); none where it has no transcripts."""
    stored = json.loads((folder / "decode.json").read_text())["scores"]
    return {metric: score.Score(**counts) for metric, counts in stored.items()}


def _done(out: Path, wanted: dict) -> bool:
    path = out / "decode.json"
    return path.exists() and wanted.items() <= json.loads(path.read_text()).items()
