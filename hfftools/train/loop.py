"""Train a model on its data, and write checkpoints, history and resources into the experiment's folder.

A run can be stopped at any moment; the same command resumes it, and the final weights are the same: the state holds
parameters, optimiser and position, and all random numbers follow from (seed, epoch, batch) and (seed, epoch, utterance).
On a GPU the weights are the same up to the order in which its kernels add, which torch leaves open for the CTC loss.

Of several processes (hfftools/dist.py) each takes its share of every step's batches, and every one knows the whole plan: the
weights are those that one process would have computed. The first one writes the files.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from hfftools import dist, memory, score
from hfftools.data.batch import Batch, Speech, plan
from hfftools.expdir import ExpDir
from hfftools.log import UserError, log, progress
from hfftools.meter.resources import Ledger
from hfftools.model import Model
from hfftools.train import checkpoint, evaluate, optim
from hfftools.train.acting import Acting
from hfftools.train.config import Config
from hfftools.train.history import Diverged, History, summary
from hfftools.train.update import NotFinite, Updater

PLANNED = 100  # epochs whose steps are counted before the first one


class Loop:
    """One training run; `run` continues from the saved state, where there is one, to the end."""

    def __init__(self, exp: ExpDir, config: Config, model: Model, train: Speech, dev: Speech, device: torch.device):
        self.exp, self.config, self.device = exp, config, device
        self.model, self.train_data, self.dev_data = model.to(device), train, dev
        self.metric = model.task.metric([u.text or "" for u in dev.utterances])
        self.steps = self._count_steps()
        self.optimizer, self.schedule = optim.build(model, config.optim, self.steps)
        self.acting = Acting(exp, model)
        self.updater = Updater(self.optimizer, self.schedule, config.optim.clip, self.acting.see)
        self.epoch, self.position, self.history = 0, 0, History(exp)
        self.sums = {"loss": 0.0, "utterances": 0, "grad_norm": 0.0, "steps": 0, "audio": 0.0, "seconds": 0.0}
        before = self._restore() if exp.state.exists() else None
        self.ledger = Ledger(device, before)

    def _plan(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch as lists of utterance numbers; the order follows from seed and epoch alone."""
        data = self.config.data
        return plan(self.train_data.at(epoch).durations_s, data.batch_seconds, self.config.seed, epoch)

    def _count_steps(self) -> int:
        """Return the steps of all epochs, for the schedule; those after the first PLANNED have their mean number.

        The number of batches varies a little between epochs. Under train.minutes, train.epochs may be any large number.
        """
        epochs, every = self.config.train.epochs, self.config.train.accumulate
        counts = [-(-len(self._plan(epoch)) // every) for epoch in range(min(epochs, PLANNED))]
        return round(sum(counts) * epochs / max(1, len(counts)))

    def _restore(self) -> dict:
        """Load the saved state, and return the costs that it recorded; raise UserError if the upstream differs."""
        state = checkpoint.read_state(self.exp.state, _STATE)
        if state["upstream_hash"] != self.model.upstream.hash:
            raise UserError(f"{self.exp.state}: the upstream's weights changed since; use another folder")
        self.model.load_trained(state["trained"], str(self.exp.state))
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.position, self.sums = state["epoch"], state["position"], state["sums"]
        self.history = History(self.exp, state["history"])
        log.info(f"resuming at epoch {self.epoch + 1}, batch {self.position}")
        return state["ledger"]

    def _save(self) -> None:
        state = {
            "trained": self.model.trained_state(),
            "upstream_hash": self.model.upstream.hash,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "position": self.position,
            "history": self.history.records,
            "sums": self.sums,
            "ledger": self.ledger.read(),
        }
        checkpoint.write_state(self.exp.state, state)

    def run(self) -> dict:
        """Train to the end, load the average of the best epochs, and return the resources used and the dev scores."""
        last_save = time.monotonic()
        if dist.is_main() and not self.exp.state.exists():
            self.acting.begin()
        self.history.check_blank(self.config.train.blank_epochs)
        while self.epoch < self.config.train.epochs and not self.history.stale(self.config.train.patience):
            if self._out_of_time() and self.position == 0:
                break
            order = self._plan(self.epoch)
            bar = progress((), len(order), f"epoch {self.epoch + 1}/{self.config.train.epochs}", "batch")
            bar.update(self.position)
            every = self.config.train.accumulate
            groups = [order[start : start + every] for start in range(self.position, len(order), every)]
            mine = [numbers for group in groups for numbers in dist.deal(group)]
            batches = self.train_data.at(self.epoch).batches(mine, self.config.data.workers)
            self.model.train()
            while self.position < len(order) and not self._out_of_time():
                group = order[self.position : self.position + every]
                self._step(group, [next(batches) for _ in dist.deal(group)])
                self.position += len(group)
                bar.update(len(group))
                before = f", {summary(self.history.records[-1])}" if self.history.records else ""
                bar.set_postfix_str(f"loss {self.sums['loss'] / self.sums['utterances']:.2f}{before}", refresh=False)
                if self.position < len(order) and time.monotonic() - last_save >= 60 * self.config.train.save_minutes:
                    if dist.is_main():
                        self._save()
                    last_save = time.monotonic()
            bar.close()
            self._end_epoch()
            last_save = time.monotonic()
        return self._finish()

    def _step(self, group: list[list[int]], batches: list[Batch]) -> None:
        """Make one update from a group of batches of utterance numbers; `batches` are this process's share of them."""
        start = time.monotonic()
        count = sum(map(len, group))
        self.model.hold(self.schedule.last_epoch < self.config.optim.upstream.freeze_steps)
        try:
            # one mean over all utterances of the step, so that each counts alike however batches and processes split them
            step = self.updater.step(self._losses(range(len(group)), batches), count)
        except NotFinite as error:
            raise Diverged(f"{self.exp.root}: {error} in epoch {self.epoch + 1}; {_ADVICE}") from None
        seconds, audio = (time.monotonic() - start) / dist.world(), sum(batch.seconds for batch in batches)
        loss_sum, seconds, audio = dist.total(step.loss_sum, seconds, audio)
        # the same for all processes, or train.minutes would end them at different steps
        self.ledger.add(audio, seconds)
        more = {"loss": loss_sum, "utterances": count, "grad_norm": step.grad_norm, "steps": 1}
        more |= {"audio": audio, "seconds": seconds}
        self.sums = {key: value + more[key] for key, value in self.sums.items()}

    def _losses(self, offsets: Sequence[int], batches: list[Batch]) -> Iterator[Tensor]:
        """Yield the summed loss of each batch of this process; its random numbers follow from its place in the epoch."""
        for offset, batch in zip(dist.deal(offsets), batches, strict=True):
            memory.work_on(batch.ids, batch.seconds_B)  # all batches of the step are loaded already
            torch.manual_seed(crc32(f"{self.config.seed} {self.epoch} {self.position + offset}".encode()))
            seeds = batch.random_seeds(self.config.seed, self.epoch)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.bf16):
                loss_B = self.model.loss(batch.to(self.device), seeds)
            self._check_finite(loss_B, batch)
            yield loss_B.sum()

    def _check_finite(self, loss_B: Tensor, batch: Batch) -> None:
        """Raise UserError for an utterance with too few frames for its labels, Diverged for another infinite loss."""
        if torch.isfinite(loss_B).all():
            return
        row = int((~torch.isfinite(loss_B)).nonzero()[0])
        lens_B = batch.lens_B
        if lens_B is None:  # a batch of audio, not of cached states
            assert batch.num_samples_B is not None
            lens_B = self.model.upstream.out_lens(batch.num_samples_B)
        labels = batch.targets_BL[row, : batch.target_lens_B[row]].tolist()
        frames, needed = int(lens_B[row]), self.model.task.frames_needed(labels)
        where = f"{self.exp.root}: utterance {batch.ids[row]}"
        if needed > frames:
            raise UserError(
                f"{where}: its labels need {needed} frames, its audio has {frames}; correct its utt2dur or leave it out"
            )
        raise Diverged(f"{where}: its loss is {loss_B[row].item()} in epoch {self.epoch + 1}; {_ADVICE}")

    def _end_epoch(self) -> None:
        """Evaluate on dev, record the epoch, write its checkpoint and remove those that are no longer among the best."""
        sums, self.epoch, self.position = self.sums, self.epoch + 1, 0
        record = {
            "epoch": self.epoch,
            "loss": sums["loss"] / sums["utterances"],
            **self._dev(),
            "grad_norm": sums["grad_norm"] / sums["steps"],
            "lr": {
                g["name"]: lr for g, lr in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True)
            },
            "audio_seconds_per_second": sums["audio"] / sums["seconds"],
            "layer_weights": getattr(self.model.fuse, "layer_weights", dict)(),
        }
        self.sums = dict.fromkeys(self.sums, 0)
        self.history.add(record)
        log.info(
            f"epoch {self.epoch}: loss {record['loss']:.3f}, dev loss {record['dev_loss']:.3f}, {summary(record)}, "
            f"{record['audio_seconds_per_second']:.0f} s of audio/s"
        )
        if dist.is_main():
            facts = {key: record[key] for key in ("epoch", "dev_error", "metric")}
            checkpoint.save(self.exp.epoch(self.epoch), self.model.trained_state(), self.model, **facts)
            self.history.write()
            self._save()
            best = self.history.best(self.config.train.average)
            for old in set(self.exp.checkpoints.glob("epoch_*.safetensors")) - {self.exp.epoch(n) for n in best}:
                old.unlink()
        self.history.check_blank(self.config.train.blank_epochs)

    def _dev(self) -> dict:
        """Return the dev set's mean loss, `dev_error`, which is minimised, and the share of empty predictions.

        `dev_error` is the task's errors / counted; `score.dev_value` gives the metric of a record, which may be 1 - that.
        """
        task = self.model.task
        predictions, loss = evaluate.predict(
            self.model, self.dev_data, self.config.data.batch_seconds, self.device, "dev", with_loss=True
        )
        references = [u.text or "" for u in self.dev_data.utterances]
        in_order = [predictions[u.id] for u in self.dev_data.utterances]
        return {
            "dev_loss": loss,
            "dev_error": score.mean_error(*task.errors(self.metric, references, in_order)),
            "metric": self.metric,
            "lower_is_better": task.lower_is_better,
            "empty": sum(not prediction for prediction in in_order) / len(in_order),
        }

    def _out_of_time(self) -> bool:
        """Return whether the time that train.minutes allows for training steps is used up; it is unlimited if 0."""
        return 0 < self.config.train.minutes <= self.ledger.train_minutes

    def _finish(self) -> dict:
        """Load the average of the best epochs, evaluate it on dev, and return the resources used and the scores."""
        dist.total(0.0)  # wait until the first process has written the last epoch's checkpoint
        best = self.history.best(self.config.train.average)
        averaged = checkpoint.average([self.exp.epoch(number) for number in best])
        self.model.load_trained(averaged, "the average of the best epochs")
        scores, epochs = self._dev(), sorted(best)
        self.history.report_average(best, scores)
        if scores["empty"] > 0.99 or scores["lower_is_better"] and scores["dev_error"] >= 1:
            log.warning(
                f"{self.exp.root}: this model recognises nothing: on dev, {100 * scores['empty']:.0f} % of its predictions "
                f"are empty, and {summary(scores)}; train longer, or with another optim.head.lr (docs/troubleshooting.md)"
            )
        self.final_facts = {"epochs": epochs, "dev_error": scores["dev_error"], "metric": self.metric}
        if self.schedule.last_epoch < self.steps and self._out_of_time():
            log.warning(f"{self.exp.root}: stopped by train.minutes in epoch {self.epoch}, before its schedule's end")
        kept = {key: scores[key] for key in ("dev_error", "metric", "lower_is_better", "dev_loss")}
        used = self.ledger.read()  # before the parts are looked at, which needs memory of its own
        acting = self.acting.finish(self.train_data) if dist.is_main() else {}
        return {**used, **kept, **({"acting": acting} if acting else {}), "epochs": self.epoch, "averaged": epochs}

    def keep_final(self) -> None:
        """Write the averaged model as the final checkpoint, whose existence marks the run as done."""
        checkpoint.save(self.exp.final, self.model.trained_state(), self.model, **self.final_facts)
        self.exp.initial.unlink(missing_ok=True)


_STATE: dict[str, Any] = {
    "trained": dict,
    "upstream_hash": str,
    "optimizer": dict,
    "schedule": dict,
    "epoch": int,
    "position": int,
}
_STATE |= {"history": [dict], "sums": dict, "ledger": dict}
_ADVICE = "lower optim.*.lr, lengthen its warmup, or set train.bf16=false; then train in a fresh folder"
