"""Run one training job: check its inputs, train in the experiment's folder, record what it cost."""

from contextlib import nullcontext
from pathlib import Path

import torch

from hfftools import dist
from hfftools.data import datadir
from hfftools.data.inputs import of_set
from hfftools.expdir import ExpDir, check_inputs, write_json
from hfftools.log import UserError, log, require, setup_logging
from hfftools.meter.flops import count_run
from hfftools.meter.resources import FORM, checkpoint_bytes, parameters
from hfftools.model import Model, check
from hfftools.recorded import compare_config, recorded_option, save_config
from hfftools.records import read_json
from hfftools.train import experiment
from hfftools.train.loop import Loop
from hfftools.upstream.names import pin
from hfftools.upstream.source import Source


def train(root: Path, sources: list[Path], overrides: list[str]) -> ExpDir:
    """Train the experiment in `root`, or resume it; do nothing if its final checkpoint exists.

    Without files and options the experiment's recorded configuration is used. Raises UserError if an option, or the content
    of its data, units or upstream, differs from what the experiment started with.
    """
    exp = ExpDir(root)
    if exp.config.exists() and not sources and not overrides:
        config = experiment.read_config(exp, [])
    else:
        config = experiment.configure(sources, overrides)
        config = recorded_option(config, "train.bf16", exp.config)
        config = pin(config, exp.config)
        compare_config(config, exp.config, may_differ=experiment.HARMLESS)
    source = check(config)
    device = experiment.device_of(config.device)
    batches, processes = config.train.accumulate, dist.world()
    require(
        batches % processes == 0,
        f"train.accumulate: the {batches} batches of a step cannot be divided among {processes} processes; "
        f"set train.accumulate={-(-batches // processes) * processes}, and data.batch_seconds to what fits into one",
    )
    if (
        not exp.final.exists()
    ):  # a finished experiment may have been trained in a precision that this machine does not have
        config = experiment.choose_precision(config, device)
    with exp.alone() if dist.is_main() else nullcontext():
        _train(exp, config, source, device)
    return exp


def _train(exp: ExpDir, config: experiment.Config, source: Source, device: torch.device) -> None:
    """Check the inputs against those recorded, train, and write what it cost; only the first process writes files."""
    task = experiment.task_of(config)
    sets = {
        f"data.{key}": datadir.read(getattr(config.data, key), reference=task.reference) for key in ("train", "dev")
    }
    for key, utterances in sets.items():
        empty = not any(u.text for u in utterances)
        require(not empty, f"{key}: every line of {getattr(config.data, key[5:])}/{task.reference} is empty")
    if exp.units.exists() and not Path(config.data.units).exists():
        targets = experiment.kept_targets(exp, config)
    else:
        targets = task.make_targets(Path(config.data.units), [u.text or "" for u in sets["data.train"]])
    inputs = {"data.units": targets.digest, **source.digests()}
    for key, utterances in sets.items():
        inputs |= of_set(key, utterances)
    inputs |= experiment.precision_of(config.data.features, [config.data.train, config.data.dev])
    perturb = experiment.perturbation(config)
    if perturb and perturb.recordings:
        inputs |= of_set("perturb.noise", perturb.recordings, text=False)
    check_inputs(exp.inputs, inputs)
    if exp.final.exists():
        log.info(f"{exp.final} exists already: nothing to train")
        return
    upstream = source.load()
    torch.manual_seed(config.seed)  # after the upstream, which may draw random numbers while it is built
    model = Model(config, targets, upstream)
    kept = experiment.usable_features(config, model)
    features = experiment.training_features(config, kept)
    if features and model.mask.wanted:
        raise UserError(
            "mask: with data.features the upstream is not run, so nothing in it is masked; set mask.time=0 mask.channel=0"
        )
    check_inputs(exp.inputs, upstream.digests)  # once more: its files may have been downloaded only now
    shape = (targets, upstream, model.layers)
    train = experiment.learnable(config.data.train, *shape, features, model.task.frames_needed, perturb, task.reference)
    dev = experiment.learnable(config.data.dev, *shape, kept, reference=task.reference)
    loop = Loop(exp, config, model, train, dev, device)
    if dist.is_main():
        save_config(config, exp.config)
        write_json(exp.inputs, {**inputs, **upstream.digests, **experiment.recorded_digest(exp)})
        experiment.keep_targets(exp, targets)
        setup_logging(exp.log)
    counts = parameters(model)
    log.info(f"{upstream.name}: layers {model.layers} of 0..{upstream.num_layers}")
    log.info(", ".join(f"{name} {count:,}" for name, count in counts.items()) + " parameters")
    used = loop.run()
    if not dist.is_main():
        return
    counted = count_run(loop.model, train, config.data.batch_seconds, config.seed, config.train.bf16)
    costs = {**counted, "checkpoint_bytes": checkpoint_bytes(loop.model)}
    facts = {"cached": bool(features), "device": str(device), "processes": dist.world(), "bf16": config.train.bf16}
    write_json(exp.resources, {"parameters": counts, **used, **costs, **facts})
    loop.keep_final()


def read_resources(exp: ExpDir) -> dict:
    """Return what the training cost, and its scores on dev; raise UserError where the record is damaged."""
    fix = f"remove it and {exp.final}, and run hff-train {exp.root} again, which writes both without training again"
    return read_json(exp.resources, FORM, fix)
