"""Pre-train an encoder by masked prediction: from data directories and a target plug-in to encoder.safetensors.

HuBERT's loss (arXiv:2106.07447, eq. 3): alpha times the cross entropy of the targets at masked frames, and 1 - alpha of
that at the others. The same command resumes a run that was stopped; crops and masks follow from (seed, step).
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hfftools import memory
from hfftools.config import resolve, with_option
from hfftools.expdir import ExpDir, append_json_line, check_inputs, each_once, write_json, write_text
from hfftools.log import UserError, log, progress, require, setup_logging
from hfftools.nn.mask import valid_mask
from hfftools.nn.precision import use_bf16
from hfftools.pretrain.config import SHORTEST_S, Config
from hfftools.pretrain.features import Corpus, corpus
from hfftools.pretrain.targets import obtain, source_digests
from hfftools.recorded import compare_config, recorded_option, save_config
from hfftools.records import read_json_lines
from hfftools.train.checkpoint import read_state, write_state
from hfftools.train.experiment import device_of
from hfftools.train.optim import Group, shape
from hfftools.train.update import NotFinite, Updater
from hfftools.upstream.conformer import ConformerUpstream, Door, save, subsampled_len


def _batches(lens: np.ndarray, config: Config, epoch: int) -> list[np.ndarray]:
    """Return batches of utterances of similar length, at most `batch_seconds` of 10 ms frames each, in random order."""
    rng = np.random.default_rng([config.seed, epoch])
    crop = min(int(config.crop_seconds * 100), int(config.batch_seconds * 100))
    cost = np.minimum(lens, crop)
    order = np.lexsort((rng.random(len(lens)), cost // 40))
    order = order[cost[order] >= int(SHORTEST_S * 100)]
    require(len(order) > 0, f"data: no utterance of {', '.join(config.data)} lasts {SHORTEST_S} s; name longer ones")
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
    """Return a mask [B, T], true on random spans of valid frames, with at least one span in each utterance."""
    starts_BT = rng.random((len(lens_B), max_len)) < config.mask_prob
    for row, length in zip(starts_BT, lens_B.tolist(), strict=True):
        row[rng.integers(max(1, length - config.mask_frames + 1))] = True
    masked_BT = torch.from_numpy(starts_BT.copy())
    for shift in range(1, config.mask_frames):
        masked_BT[:, shift:] |= torch.from_numpy(starts_BT[:, :-shift])
    return masked_BT & valid_mask(lens_B, max_len)


def _near(frames: Tensor, device: torch.device) -> Tensor:
    """Return frames on the device, where they take less than half of the memory that is free there."""
    fits = device.type == "cuda" and frames.nbytes < torch.cuda.mem_get_info(device)[0] / 2
    return frames.to(device) if fits else frames


class _Objective:
    """The corpus, its targets and the model, which make the loss of a batch of utterances."""

    def __init__(self, config: Config, exp: ExpDir, device: torch.device):
        self.config, self.device = config, device
        self.corpus: Corpus = corpus(each_once(config.data), Path(config.features or exp.root / "features"))
        self.digests = {**self.corpus.digests, **source_digests(config, exp.targets)}
        if config.init:
            self.digests |= {f"init: {name}": digest for name, digest in Door(config.init).digests().items()}
        check_inputs(exp.inputs, self.digests)
        made = obtain(exp.targets, self.corpus, config, self.digests, device)
        self.classes, self.about = made.classes, made.about
        self.frames, self.targets = (_near(torch.from_numpy(a), device) for a in (self.corpus.frames, made.frames))
        self.target_starts = np.concatenate([[0], np.cumsum(self.corpus.sub_lens)[:-1]])
        torch.manual_seed(config.seed)
        with memory.building(vars(config.encoder), "encoder."):
            self.model = ConformerUpstream(config.encoder)
        if config.init:
            first = Door(config.init).load()
            require(first.config == self.model.config, f"init: {config.init} has other sizes, {first.config}")
            self.model.load_state_dict(first.state_dict())
        self.head = nn.Linear(self.model.dim, self.targets.shape[1] * self.classes)
        self.model.to(device)
        self.head.to(device)

    def loss(self, batch: np.ndarray, step: int) -> tuple[Tensor, Tensor, float]:
        """Return the loss (HuBERT, eq. 3), the accuracy at masked frames, and the seconds of audio of one batch.

        batch: numbers of utterances; each is cropped, and masked, at random by (seed, step).
        """
        rng = np.random.default_rng([self.config.seed, 1, step])
        crop = int(self.config.crop_seconds * 100)
        whole_lens, mel_lens = self.corpus.lens[batch], np.minimum(self.corpus.lens[batch], crop)
        memory.work_on([f"utterance {index + 1} of the data" for index in batch], (mel_lens / 100).tolist())
        # a multiple of the encoder's stride, so that the targets of whole utterances fit the crop too
        starts = 4 * rng.integers(np.maximum(0, whole_lens - crop) // 4 + 1)
        lens_B = subsampled_len(torch.from_numpy(mel_lens))
        mel_BTM = self._rows(self.frames, self.corpus.starts[batch] + starts, mel_lens).float()
        target_BTS = self._rows(self.targets, self.target_starts[batch] + starts // 4, lens_B.numpy()).long()
        masked_BT = _span_mask(lens_B, target_BTS.shape[1], self.config, rng).to(self.device)
        last = self.model.num_layers
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            states, lens_B = self.model.encode(mel_BTM, torch.from_numpy(mel_lens).to(self.device), [last], masked_BT)
            logits_BTSC = self.head(states[last]).float().unflatten(-1, (-1, self.classes))
        masked = nn.functional.cross_entropy(logits_BTSC[masked_BT].flatten(0, 1), target_BTS[masked_BT].flatten())
        seen_BT = valid_mask(lens_B, masked_BT.shape[1]) & ~masked_BT
        seen = nn.functional.cross_entropy(logits_BTSC[seen_BT].flatten(0, 1), target_BTS[seen_BT].flatten())
        accuracy = (logits_BTSC[masked_BT].argmax(-1) == target_BTS[masked_BT]).float().mean()
        loss = self.config.alpha * masked + (1 - self.config.alpha) * seen
        return loss, accuracy, float(mel_lens.sum()) / 100

    def _rows(self, frames: Tensor, starts_B: np.ndarray, lens_B: np.ndarray) -> Tensor:
        """Return `lens_B` frames from `starts_B` on of those of the corpus [sum T, M], padded by the last one, [B, T, M]."""
        at_BT = np.minimum(np.arange(lens_B.max()), lens_B[:, None] - 1) + starts_B[:, None]
        return frames[torch.from_numpy(at_BT).to(frames.device)].to(self.device)


def configure(sources: list[Path], overrides: list[str]) -> Config:
    """Merge yaml files, then `key=value` arguments, over the defaults; the targets bring their own options."""
    return resolve(Config, sources, overrides, {"targets": "pretrain"})


def pretrain(folder: Path, sources: list[Path], overrides: list[str], targets_only: bool = False) -> Path:
    """Run or resume the pre-training in `folder`; return the path of its encoder.safetensors.

    With `targets_only` stop before the training, and return the path of the targets, for use on another machine.

    Raises UserError where no data are named, or where options or data changed since the folder was begun.
    """
    config = configure(sources, overrides)
    require(bool(config.data), "data: name at least one data directory, as in 'data=[data/train]'")
    exp = ExpDir(folder)
    device = device_of(config.device)
    config = recorded_option(config, "bf16", exp.config)
    config = with_option(config, "bf16", use_bf16(config.bf16, device, "bf16"))
    compare_config(config, exp.config, may_differ=("device", "threads", "log_steps", "save_steps"))
    if config.threads:
        torch.set_num_threads(config.threads)
    with exp.alone():
        objective = _Objective(config, exp, device)
        if targets_only:
            return exp.targets
        save_config(config, exp.config)
        write_json(exp.inputs, objective.digests)
        setup_logging(exp.log)
        hours, outputs = f"{objective.corpus.hours:.2f} h", objective.targets.shape[1]
        log.info(f"{len(objective.corpus)} utterances, {hours}; {objective.classes} targets x {outputs}; {device}")
        _Run(exp, config, objective).run()
    return exp.encoder


class _Run:
    """One pre-training in its folder, from its last saved state, or from the beginning, to the last step."""

    def __init__(self, exp: ExpDir, config: Config, objective: _Objective):
        self.exp, self.config, self.objective = exp, config, objective
        self.step = self.epoch = self.position = 0
        self.seconds, self.since = 0.0, time.monotonic()  # of training in earlier calls; begin of this one
        self.sums = np.zeros(4)  # of loss, accuracy, seconds of audio, steps since the last record
        self.recorded_s = 0.0  # trained seconds at that record
        self.modules = nn.ModuleDict({"encoder": objective.model, "head": objective.head})
        parameters, betas = self.modules.parameters(), (0.9, 0.98)  # betas as in HuBERT
        optimizer = torch.optim.AdamW(parameters, config.lr, betas, weight_decay=config.weight_decay)
        share = shape(Group(schedule="cosine", warmup=config.warmup), config.steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(self._place(step)))
        self.updater = Updater(optimizer, schedule, config.clip)
        self.parts: dict[str, Any] = {
            "modules": self.modules,
            "optimizer": optimizer,
            "schedule": self.updater.schedule,
        }
        if exp.state.exists():
            self._restore()
        # a killed run may have written lines after its last saved state; those steps are made again
        self.history = [record for record in read_json_lines(exp.history, {"step": int}) if record["step"] <= self.step]
        write_text(exp.history, "".join(json.dumps(record) + "\n" for record in self.history))

    def _restore(self) -> None:
        numbers = {**dict.fromkeys(("step", "epoch", "position"), int), "sums?": [float]}
        numbers |= {"seconds?": float, "recorded_seconds?": float}
        state = read_state(self.exp.state, dict.fromkeys(self.parts, dict) | numbers)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        self.seconds, self.recorded_s = state.get("seconds", 0.0), state.get("recorded_seconds", 0.0)
        self.sums = np.array(state.get("sums", [0.0] * 4))
        log.info(f"resuming at step {self.step}")

    def _trained_s(self) -> float:
        """Return the seconds of training, of all calls together."""
        return self.seconds + time.monotonic() - self.since

    def _place(self, step: int) -> int:
        """Return the place in the schedule, in steps: that of the step or, where it is further, that of the time."""
        allowed = 60 * self.config.minutes
        return max(step, int(self.config.steps * self._trained_s() / allowed)) if allowed else step

    def _save(self) -> None:
        """Write the encoder, which can be used as it is at any step, and the state to resume from."""
        hours, last = round(self.objective.corpus.hours, 2), self.history[-1] if self.history else {}
        facts = {"steps": self.step, "hours": hours, "last": last, "targets": self.objective.about}
        save(self.objective.model, self.exp.encoder, facts)
        numbers = {"step": self.step, "epoch": self.epoch, "position": self.position, "seconds": self._trained_s()}
        record = {"sums": self.sums.tolist(), "recorded_seconds": self.recorded_s}
        write_state(self.exp.state, {name: part.state_dict() for name, part in self.parts.items()} | numbers | record)

    def run(self) -> None:
        """Make the remaining steps; log, record and save at the intervals of the configuration."""
        self.modules.train()
        batches = _batches(self.objective.corpus.lens, self.config, self.epoch)
        bar = progress((), self.config.steps, "pre-training", "step")
        bar.update(self.step)
        last = self.step >= self.config.steps
        self.since = time.monotonic()
        while not last:
            if self.position == len(batches):
                self.epoch, self.position = self.epoch + 1, 0
                batches = _batches(self.objective.corpus.lens, self.config, self.epoch)
            self.sums += (*self._update(batches[self.position]), 1)
            bar.update()
            last = self._place(self.step) >= self.config.steps
            if self.step % self.config.log_steps == 0 or last:
                loss, accuracy, _, _ = self.sums / self.sums[3]
                speed = self.sums[2] / (self._trained_s() - self.recorded_s)
                bar.set_postfix_str(f"loss {loss:.3f} acc {accuracy:.3f}", refresh=False)
                self._record(loss=round(loss, 4), accuracy=round(accuracy, 4), audio_seconds_per_second=round(speed, 1))
                self.sums, self.recorded_s = np.zeros(4), self._trained_s()
            if self.step % self.config.save_steps == 0 or last:
                self._save()
        bar.close()

    def _update(self, batch: np.ndarray) -> tuple[float, float, float]:
        """Make one step; return its loss, its accuracy at masked frames, and the seconds of audio."""
        # dropout follows from the step, so that a resumed run is the same
        torch.manual_seed(self.config.seed + self.step)
        loss, accuracy, seconds = self.objective.loss(batch, self.step)
        try:
            loss_value, _ = self.updater.step([loss])  # a mean over the masked frames already
        except NotFinite as error:
            lr = self.config.lr
            raise UserError(f"{self.exp.root}: {error} at step {self.step}; lower lr (now {lr})") from None
        self.step, self.position = self.step + 1, self.position + 1
        return loss_value, accuracy.item(), seconds

    def _record(self, **figures: float) -> None:
        """Append a line to history.jsonl."""
        lr = self.updater.schedule.get_last_lr()[0]
        speed = figures.pop("audio_seconds_per_second")
        record = {"step": self.step, "epoch": self.epoch, **figures, "lr": lr, "audio_seconds_per_second": speed}
        self.history.append(record)
        append_json_line(self.exp.history, record)
