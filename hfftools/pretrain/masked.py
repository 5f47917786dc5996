"""Masked prediction pre-training: data directories and a target plug-in in, an encoder.safetensors out.

HuBERT's loss (arXiv:2106.07447, eq. 3): alpha times the cross entropy of the targets at masked frames, and 1 - alpha of
that at the others. It stops and goes on by the same command; crops and masks follow from (seed, step).
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hfftools.config import (
    above,
    at_least,
    between,
    compare_config,
    plugin,
    recorded_option,
    resolve,
    save_config,
    with_option,
)
from hfftools.expdir import (
    ExpDir,
    append_json_line,
    check_inputs,
    read_json_lines,
    write_aside,
    write_json,
    write_text,
)
from hfftools.log import UserError, log, progress, require, setup_logging
from hfftools.nn.mask import valid_mask
from hfftools.nn.precision import check_bf16, use_bf16
from hfftools.pretrain.features import Corpus, corpus
from hfftools.train.checkpoint import read_state
from hfftools.train.optim import Group, shape
from hfftools.train.update import NotFinite, Updater
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig, save, subsampled_len
from hfftools.upstream.names import load_conformer


@dataclass(frozen=True)
class Config:
    """One pre-training."""

    data: list[str] = field(default_factory=list)  # data directories, transcripts not needed
    features: str = ""  # folder of the log-mel cache; inside the experiment where empty
    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # sizes of the encoder
    targets: Any = field(default_factory=lambda: {"name": "kmeans"})  # what is predicted
    init: str = ""  # an encoder to start from, in place of random weights
    seed: int = 0  # of weights, masks and order
    steps: int = 10_000  # updates of the weights
    batch_seconds: float = 160.0  # seconds of audio in a batch
    crop_seconds: float = 10.0  # longest excerpt of an utterance
    mask_prob: float = 0.13  # chance that a masked span starts at a frame
    mask_frames: int = 5  # 200 ms
    alpha: float = 0.5  # share of the masked frames in the loss; from random weights, 1 stays at the plateau for long
    lr: float = 1e-3  # peak learning rate of AdamW
    warmup: float = 0.08  # share of the steps
    weight_decay: float = 0.01  # of AdamW
    clip: float = 5.0  # largest norm of the gradient
    bf16: Any = "auto"  # autocast to bfloat16: true, false, or auto: where the processor multiplies it natively
    threads: int = 0  # 0: as many as torch finds
    log_steps: int = 50  # steps between lines in the log
    save_steps: int = 250  # steps between saves of the state

    def __post_init__(self):
        at_least(self, 1, "steps", "mask_frames", "log_steps", "save_steps")
        at_least(self, 0, "seed", "weight_decay", "threads")
        above(self, 0, "lr", "clip", "batch_seconds", "crop_seconds")
        between(self, 0, 1, "mask_prob", "alpha", "warmup")
        check_bf16(self.bf16, "bf16")


def _batches(lens: np.ndarray, config: Config, epoch: int) -> list[np.ndarray]:
    """Utterances of like length together, at most `batch_seconds` of 10 ms frames each, in random order."""
    rng = np.random.default_rng([config.seed, epoch])
    crop = min(int(config.crop_seconds * 100), int(config.batch_seconds * 100))
    cost = np.minimum(lens, crop)
    order = np.lexsort((rng.random(len(lens)), cost // 40))
    order = order[cost[order] >= 50]  # below half a second there is nothing to mask
    batches, start = [], 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and cost[order[stop]] * (stop + 1 - start) <= config.batch_seconds * 100:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    rng.shuffle(batches)
    return batches


def _span_mask(lens_B: Tensor, max_len: int, config: Config, rng: np.random.Generator) -> Tensor:
    """True on random spans of valid frames, at least one span an utterance."""
    starts_BT = rng.random((len(lens_B), max_len)) < config.mask_prob
    for row, length in zip(starts_BT, lens_B.tolist(), strict=True):
        row[rng.integers(max(1, length - config.mask_frames + 1))] = True
    masked_BT = torch.from_numpy(starts_BT.copy())
    for shift in range(1, config.mask_frames):
        masked_BT[:, shift:] |= torch.from_numpy(starts_BT[:, :-shift])
    return masked_BT & valid_mask(lens_B, max_len)


class _Task:
    """The corpus, its targets and the model: a step's loss from a batch of utterance numbers."""

    def __init__(self, config: Config, exp: ExpDir):
        self.config = config
        self.corpus: Corpus = corpus(list(config.data), Path(config.features or exp.root / "features"))
        check_inputs(exp.inputs, {"data": self.corpus.digest})
        module = plugin("pretrain", config.targets.name)
        if not exp.targets.exists():
            targets, classes = module.compute(self.corpus, config.targets, config.seed)
            with write_aside(exp.targets) as aside, open(aside, "wb") as file:
                np.savez(file, targets=targets, classes=classes)
        stored = np.load(exp.targets)
        self.targets, self.classes = stored["targets"], int(stored["classes"])
        sub_lens = subsampled_len(torch.from_numpy(self.corpus.lens)).numpy()
        if len(self.targets) != sub_lens.sum():
            raise UserError(f"{exp.targets} belongs to other data; remove {exp.root} and begin again")
        self.target_starts = np.concatenate([[0], np.cumsum(sub_lens)[:-1]])
        torch.manual_seed(config.seed)
        self.model = ConformerUpstream(config.encoder)
        if config.init:
            first = load_conformer(config.init)
            require(first.config == self.model.config, f"init: {config.init} has other sizes, {first.config}")
            self.model.load_state_dict(first.state_dict())
        self.head = nn.Linear(self.model.dim, self.targets.shape[1] * self.classes)

    def loss(self, batch: np.ndarray, step: int) -> tuple[Tensor, float, float]:
        """(the loss, the accuracy at masked frames, seconds of audio)."""
        rng = np.random.default_rng([self.config.seed, 1, step])
        crop = int(self.config.crop_seconds * 100)
        mels, targets = [], []
        for index in batch:
            length = self.corpus.lens[index]
            start = 4 * int(rng.integers(max(0, length - crop) // 4 + 1))
            mels.append(torch.from_numpy(self.corpus.mel(index)[start : start + crop]))
            frames = int(subsampled_len(torch.tensor(len(mels[-1]))))
            first = self.target_starts[index] + start // 4
            targets.append(torch.from_numpy(self.targets[first : first + frames].astype(np.int64)))
        mel_BTM = nn.utils.rnn.pad_sequence(mels, batch_first=True)
        target_BTS = nn.utils.rnn.pad_sequence(targets, batch_first=True)
        lens_B = torch.tensor([len(t) for t in targets])
        masked_BT = _span_mask(lens_B, target_BTS.shape[1], self.config, rng)
        last = self.model.num_layers
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
            mel_lens_B = torch.tensor([len(m) for m in mels])
            states, _ = self.model.encode(mel_BTM, mel_lens_B, [last], masked_BT)
            logits_BTSC = self.head(states[last]).float().unflatten(-1, (-1, self.classes))
        masked = nn.functional.cross_entropy(logits_BTSC[masked_BT].flatten(0, 1), target_BTS[masked_BT].flatten())
        seen_BT = valid_mask(lens_B, masked_BT.shape[1]) & ~masked_BT
        seen = nn.functional.cross_entropy(logits_BTSC[seen_BT].flatten(0, 1), target_BTS[seen_BT].flatten())
        accuracy = (logits_BTSC[masked_BT].argmax(-1) == target_BTS[masked_BT]).float().mean().item()
        return self.config.alpha * masked + (1 - self.config.alpha) * seen, accuracy, sum(map(len, mels)) / 100


def configure(sources: list[Path], overrides: list[str]) -> Config:
    """Merge yaml files, then `key=value` arguments, over the defaults; the targets bring their own options."""
    return resolve(Config, sources, overrides, {"targets": "pretrain"})


def pretrain(folder: Path, sources: list[Path], overrides: list[str]) -> Path:
    """Run or go on with the pre-training in `folder`; the path of its encoder.safetensors."""
    config = configure(sources, overrides)
    require(bool(config.data), "data: name at least one data directory, as in 'data=[data/train]'")
    exp = ExpDir(folder)
    config = recorded_option(config, "bf16", exp.config)
    config = with_option(config, "bf16", use_bf16(config.bf16, torch.device("cpu"), "bf16"))
    compare_config(config, exp.config, may_differ=("threads", "log_steps", "save_steps"))
    if config.threads:
        torch.set_num_threads(config.threads)
    with exp.alone():
        _pretrain(exp, config)
    return exp.encoder


def _pretrain(exp: ExpDir, config: Config) -> None:
    task = _Task(config, exp)
    save_config(config, exp.config)
    write_json(exp.inputs, {"data": task.corpus.digest})
    setup_logging(exp.log)
    modules = nn.ModuleDict({"encoder": task.model, "head": task.head})
    optimizer = torch.optim.AdamW(modules.parameters(), config.lr, (0.9, 0.98), weight_decay=config.weight_decay)
    rise = shape(Group(schedule="cosine", warmup=config.warmup), config.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rise)
    updater = Updater(optimizer, schedule, config.clip)
    step = epoch = position = 0
    if exp.state.exists():
        state = read_state(exp.state)
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, epoch, position = state["step"], state["epoch"], state["position"]
        log.info(f"going on at step {step}")
    log.info(
        f"{len(task.corpus)} utterances, {task.corpus.hours:.2f} h; {task.classes} targets x {task.targets.shape[1]}"
    )

    history = [record for record in read_json_lines(exp.history) if record["step"] <= step]
    write_text(exp.history, "".join(json.dumps(record) + "\n" for record in history))

    def keep() -> None:
        card = {"steps": step, "hours": round(task.corpus.hours, 2), "last": history[-1] if history else {}}
        save(task.model, exp.encoder, card)
        with write_aside(exp.state) as aside:
            parts = {"modules": modules, "optimizer": optimizer, "schedule": schedule}
            numbers = {"step": step, "epoch": epoch, "position": position}
            torch.save({**{k: v.state_dict() for k, v in parts.items()}, **numbers}, aside)

    modules.train()
    sums, since = np.zeros(4), time.monotonic()
    batches = _batches(task.corpus.lens, config, epoch)
    bar = progress(None, config.steps, "pre-training", "step")
    bar.update(step)
    while step < config.steps:
        if position == len(batches):
            epoch, position = epoch + 1, 0
            batches = _batches(task.corpus.lens, config, epoch)
        torch.manual_seed(config.seed + step)
        loss, accuracy, seconds = task.loss(batches[position], step)
        try:
            updater.step([loss])
        except NotFinite as error:
            raise UserError(f"{exp.root}: {error} at step {step}; lower lr (now {config.lr})") from None
        step, position = step + 1, position + 1
        bar.update()
        sums += (loss.item(), accuracy, seconds, 1)
        if step % config.log_steps == 0 or step == config.steps:
            now = time.monotonic()
            record = {
                "step": step, "epoch": epoch, "loss": round(sums[0] / sums[3], 4), "accuracy": round(sums[1] / sums[3], 4),
                "lr": schedule.get_last_lr()[0], "audio_seconds_per_second": round(sums[2] / (now - since), 1),
            }  # fmt: skip
            history.append(record)
            append_json_line(exp.history, record)
            bar.set_postfix_str(f"loss {record['loss']:.3f} acc {record['accuracy']:.3f}", refresh=False)
            sums, since = np.zeros(4), now
        if step % config.save_steps == 0 or step == config.steps:
            keep()
    bar.close()
