"""The training loop: a model, its data and an experiment's folder in, checkpoints, history and resources out.

It stops at any moment and goes on by the same command, with the same weights in the end: the state holds parameters,
optimizer and position, and all randomness follows from (seed, epoch, batch) and (seed, epoch, utterance). On a GPU the
weights are the same up to the order in which its kernels add, which torch leaves open for the CTC loss.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch.utils.tensorboard import SummaryWriter

from hfftools import score
from hfftools.data.batch import Batch, Speech, plan
from hfftools.expdir import ExpDir, write_aside, write_text
from hfftools.log import UserError, log, progress, require
from hfftools.model import Model
from hfftools.nn.ctc import frames_needed
from hfftools.train import checkpoint, evaluate, optim
from hfftools.train.ledger import Ledger


@dataclass
class Config:
    """How long to train, and what to keep."""

    epochs: int = 40
    accumulate: int = 1  # batches whose gradients make one step
    bf16: bool = False  # autocast to bfloat16
    average: int = 5  # best epochs by dev WER whose mean is the final checkpoint
    patience: int = 0  # epochs without a better dev WER after which to stop; 0: never
    blank_epochs: int = 15  # epochs of all-empty hypotheses after which the run is given up; 0: never
    minutes: float = 0.0  # of training steps, all calls together, after which to stop with what there is; 0: never
    save_minutes: float = 5.0  # between saves within an epoch; 0: after each step

    def __post_init__(self):
        for name in ("epochs", "accumulate", "average"):
            require(getattr(self, name) >= 1, f"train.{name}: {getattr(self, name)} is below 1")
        for name in ("patience", "blank_epochs", "minutes", "save_minutes"):
            require(getattr(self, name) >= 0, f"train.{name}: {getattr(self, name)} is below 0")


class Diverged(UserError):
    """A run that went wrong for what it was told to do, not for how it was told."""


class Loop:
    """One run; `run` goes from wherever the state is to the end."""

    def __init__(self, exp: ExpDir, config: Any, model: Model, train: Speech, dev: Speech, device: torch.device):
        self.exp, self.config, self.device = exp, config, device
        self.model, self.train_data, self.dev_data = model.to(device), train, dev
        every = config.train.accumulate
        counts = [len(self._plan(epoch)) for epoch in range(config.train.epochs)]
        self.steps = sum(-(-n // every) for n in counts)
        self.optimizer, self.schedule = optim.build(model, config.optim, self.steps)
        self.epoch, self.position, self.history = 0, 0, []
        self.sums = {"loss": 0.0, "utterances": 0, "grad_norm": 0.0, "steps": 0, "audio": 0.0, "seconds": 0.0}
        before = self._restore() if exp.state.exists() else None
        self.ledger = Ledger(device, before)
        self.board = SummaryWriter(str(exp.tensorboard), purge_step=self.epoch + 1)

    def _plan(self, epoch: int) -> list[list[int]]:
        data = self.config.data
        return plan(self.train_data.at(epoch).durations_s, data.batch_seconds, self.config.seed, epoch)

    def _restore(self) -> dict:
        state = checkpoint.read_state(self.exp.state)
        if state["upstream_hash"] != self.model.upstream.hash:
            raise UserError(f"{self.exp.state}: the upstream's weights changed since; use another folder")
        self.model.load_trained(state["trained"], str(self.exp.state))
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.position, self.history = state["epoch"], state["position"], state["history"]
        self.sums = state["sums"]
        log.info(f"going on at epoch {self.epoch + 1}, batch {self.position}")
        return state["ledger"]

    def _save(self) -> None:
        state = {
            "trained": self.model.trained_state(),
            "upstream_hash": self.model.upstream.hash,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "position": self.position,
            "history": self.history,
            "sums": self.sums,
            "ledger": self.ledger.read(),
        }
        with write_aside(self.exp.state) as aside:
            torch.save(state, aside)

    def run(self) -> dict:
        """Train to the end, average the best epochs into the final checkpoint; the resources used."""
        last_save = time.monotonic()
        self._check_blank()
        while self.epoch < self.config.train.epochs and not self._out_of_patience():
            if self._out_of_time() and self.position == 0:
                break
            order = self._plan(self.epoch)
            bar = progress(None, len(order), f"epoch {self.epoch + 1}/{self.config.train.epochs}", "batch")
            bar.update(self.position)
            every = self.config.train.accumulate
            batches = self.train_data.at(self.epoch).batches(order[self.position :], self.config.data.workers)
            self.model.train()
            while self.position < len(order) and not self._out_of_time():
                group = order[self.position : self.position + every]
                self._step([next(batches) for _ in group])
                self.position += len(group)
                bar.update(len(group))
                wer = f" dev WER {100 * self.history[-1]['dev_wer']:.1f}" if self.history else ""
                bar.set_postfix_str(f"loss {self.sums['loss'] / self.sums['utterances']:.2f}{wer}", refresh=False)
                if self.position < len(order) and time.monotonic() - last_save >= 60 * self.config.train.save_minutes:
                    self._save()
                    last_save = time.monotonic()
            bar.close()
            self._end_epoch()
            last_save = time.monotonic()
        return self._finish()

    def _step(self, batches: list) -> None:
        start = time.monotonic()
        count = sum(len(batch.ids) for batch in batches)
        self.model.hold(self.schedule.last_epoch < self.config.optim.upstream.freeze_steps)
        for offset, batch in enumerate(batches):
            torch.manual_seed(crc32(f"{self.config.seed} {self.epoch} {self.position + offset}".encode()))
            seeds = batch.random_seeds(self.config.seed, self.epoch)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.bf16):
                loss_B = self.model.loss(batch.to(self.device), seeds)
            loss = loss_B.sum()
            self._check_finite(loss_B, batch)
            (loss / count).backward()
            self.sums["loss"] += loss.item()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.optim.clip).item()
        if not norm < float("inf"):
            raise Diverged(f"{self.exp.root}: the gradient is not finite in epoch {self.epoch + 1}; {_ADVICE}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        seconds = time.monotonic() - start
        self.ledger.add(sum(batch.seconds for batch in batches), seconds)
        for key, value in (("utterances", count), ("grad_norm", norm), ("steps", 1), ("seconds", seconds)):
            self.sums[key] += value
        self.sums["audio"] += sum(batch.seconds for batch in batches)

    def _check_finite(self, loss_B: torch.Tensor, batch: Batch) -> None:
        if torch.isfinite(loss_B).all():
            return
        row = int((~torch.isfinite(loss_B)).nonzero()[0])
        lens_B = batch.lens_B if batch.lens_B is not None else self.model.upstream.out_lens(batch.num_samples_B)
        frames, needed = int(lens_B[row]), frames_needed(batch.targets_BL[row, : batch.target_lens_B[row]].tolist())
        where = f"{self.exp.root}: utterance {batch.ids[row]}"
        if needed > frames:
            raise UserError(
                f"{where}: its labels need {needed} frames, its audio has {frames}; mend its utt2dur or drop it"
            )
        raise Diverged(f"{where}: its loss is {loss_B[row].item()} in epoch {self.epoch + 1}; {_ADVICE}")

    def _end_epoch(self) -> None:
        sums, self.epoch, self.position = self.sums, self.epoch + 1, 0
        wer, dev_loss, empty = self._dev()
        record = {
            "epoch": self.epoch,
            "loss": sums["loss"] / sums["utterances"],
            "dev_loss": dev_loss,
            "dev_wer": wer,
            "empty": empty,
            "grad_norm": sums["grad_norm"] / sums["steps"],
            "lr": {
                g["name"]: lr for g, lr in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True)
            },
            "audio_seconds_per_second": sums["audio"] / sums["seconds"],
            "layer_weights": getattr(self.model.fuse, "layer_weights", dict)(),
        }
        self.history.append(record)
        self.sums = dict.fromkeys(self.sums, 0)
        log.info(
            f"epoch {self.epoch}: loss {record['loss']:.3f}, dev loss {record['dev_loss']:.3f}, dev WER {100 * wer:.2f} %, "
            f"{record['audio_seconds_per_second']:.0f} s of audio/s"
        )
        checkpoint.save(
            self.exp.epoch(self.epoch), self.model.trained_state(), self.model, epoch=self.epoch, dev_wer=wer
        )
        self._record(record)
        self._save()
        for old in self.exp.checkpoints.glob("epoch_*.safetensors"):
            if old not in self._best():
                old.unlink()
        self._check_blank()

    def _dev(self) -> tuple[float, float, float]:
        """Error rate of the dev set, its mean loss, and the share of empty hypotheses."""
        hypotheses, loss = evaluate.transcribe(
            self.model, self.dev_data, self.config.data.batch_seconds, self.device, "dev", with_loss=True
        )
        pairs = [(u.text, hypotheses[u.id]) for u in self.dev_data.utterances]
        rate = getattr(score, self.model.task.metric)(*zip(*pairs, strict=True))
        return rate, loss, sum(not h for _, h in pairs) / len(pairs)

    def _best(self) -> list[Path]:
        """Checkpoints of the epochs of lowest dev WER, then dev loss; the best one first."""
        ranked = sorted(self.history, key=lambda r: (r["dev_wer"], r["dev_loss"]))
        return [self.exp.epoch(record["epoch"]) for record in ranked[: max(1, self.config.train.average)]]

    def _out_of_patience(self) -> bool:
        patience = self.config.train.patience
        if not patience or not self.history:
            return False
        best = min(self.history, key=lambda r: r["dev_wer"])
        return self.epoch - best["epoch"] >= patience

    def _out_of_time(self) -> bool:
        return 0 < self.config.train.minutes <= self.ledger.train_minutes

    def _check_blank(self) -> None:
        count = self.config.train.blank_epochs
        if count and len(self.history) >= count and all(r["empty"] > 0.99 for r in self.history[-count:]):
            raise Diverged(
                f"{self.exp.root}: every dev hypothesis has been empty for {count} epochs (the all-blank collapse); "
                "try a lower or higher optim.head.lr, smaller data.batch_seconds for more steps, or check text against audio"
            )

    def _record(self, record: dict) -> None:
        write_text(self.exp.history, "".join(json.dumps(r) + "\n" for r in self.history))
        for key, value in record.items():
            for name, number in value.items() if isinstance(value, dict) else [("", value)]:
                self.board.add_scalar(f"{key}/{name}".rstrip("/"), number, self.epoch)
        self.board.flush()

    def _finish(self) -> dict:
        self.board.close()
        self.model.load_trained(checkpoint.average(self._best()), "the average of the best epochs")
        wer, loss, _ = self._dev()
        epochs = sorted(int(path.stem.split("_")[1]) for path in self._best())
        log.info(f"average of epochs {epochs}: dev WER {100 * wer:.2f} %")
        self.final_facts = {"epochs": epochs, "dev_wer": wer}
        if self.schedule.last_epoch < self.steps and self._out_of_time():
            log.warning(f"{self.exp.root}: stopped by train.minutes in epoch {self.epoch}, before its schedule's end")
        return {**self.ledger.read(), "dev_wer": wer, "dev_loss": loss, "epochs": len(self.history), "averaged": epochs}

    def keep_final(self) -> None:
        """Write the averaged model as the final checkpoint: the mark that the run is done."""
        checkpoint.save(self.exp.final, self.model.trained_state(), self.model, **self.final_facts)


_ADVICE = "lower optim.*.lr, lengthen its warmup, or turn train.bf16 off; then train in a fresh folder"
