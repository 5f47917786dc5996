"""Measure what training a configuration costs: parameters, operations, memory, seconds per step, checkpoint bytes.

Each measurement is a process of its own, with random weights, audio and labels: it measures cost, never quality.
"""

import json
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace

import torch
from torch import Tensor

from hfftools import memory
from hfftools.data.batch import Batch
from hfftools.log import UserError, log, setup_logging
from hfftools.meter import flops, resources
from hfftools.model import Model, check
from hfftools.nn.rate import RATE_HZ
from hfftools.text.units import Units
from hfftools.train import optim
from hfftools.train.experiment import Config, choose_precision, device_of, training_features, usable_features
from hfftools.train.update import NotFinite, Updater
from hfftools.upstream.names import parse

UNITS = 32  # about as many as an alphabet has, with blank and unknown
LABELS_PER_S = 10  # fewer than the characters of English speech, since hff_tiny has only 25 frames per second
_FAILED = 3  # the exit code of a process that wrote the reason, as JSON, to its output


def made_up_units(size: int = UNITS) -> Units:
    """Return `size` units, blank and unknown included, of arbitrary characters."""
    return Units("char", [" ", *(chr(0x4E00 + n) for n in range(size - 3))], {}, b"", {})


def made_up_batch(model: Model, units: Units, seconds: float, count: int) -> Batch:
    """Return `count` utterances of noise of equal length, with labels that CTC can align with their frames."""
    wav_BN = 0.1 * torch.randn(count, round(RATE_HZ * seconds))
    num_samples_B = torch.full((count,), wav_BN.shape[1])
    frames = int(model.upstream.out_lens(num_samples_B).min())
    labels = min(int(LABELS_PER_S * seconds), frames // 2)
    letters = len(units) - 3  # without blank, unknown and space; neighbours differ, so that CTC needs no blank between
    targets_BL = 3 + (torch.arange(labels) + torch.arange(count)[:, None]) % letters
    return Batch(
        ids=[f"noise-{n}" for n in range(count)],
        texts=[units.decode(row) for row in targets_BL.tolist()],
        seconds=count * seconds,
        wav_BN=wav_BN,
        num_samples_B=num_samples_B,
        hidden=None,
        lens_B=None,
        targets_BL=targets_BL,
        target_lens_B=torch.full((count,), labels),
    )


def measure(config: Config, seconds: float, count: int, steps: int = 1, with_flops: bool = True) -> dict:
    """Return what a step on `count` utterances of `seconds` costs, measured in a process of its own.

    Times and memory are those of `steps` steps after one to warm up, and the operations are counted after them. If
    data.features is set, to whatever value, the steps begin at hidden states as if from a cache. Raise UserError if the
    process fails.
    """
    check(config)
    job = {"config": config, "seconds": seconds, "count": count, "steps": steps, "with_flops": with_flops}
    done = subprocess.run(
        [sys.executable, "-m", "hfftools.bench.measurement"],
        input=pickle.dumps(job),
        stdout=subprocess.PIPE,
    )
    if done.returncode == _FAILED:
        raise UserError(json.loads(done.stdout)["error"])
    if done.returncode != 0:
        killed = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise UserError(
            f"upstream {config.upstream}: the process that measured it ended with {killed}; if it ran out of memory, "
            "take fewer or shorter utterances"
        )
    return json.loads(done.stdout)


def measure_here(config: Config, seconds: float, count: int, steps: int = 1, with_flops: bool = True) -> dict:
    """Do what `measure` does in this process; the memory then includes everything else that the process holds."""
    device = device_of(config.device)
    config = choose_precision(config, device)
    bf16 = config.train.bf16
    units = made_up_units()
    torch.manual_seed(config.seed)
    model = Model(config, units, parse(config.upstream).random()).to(device)
    batch = made_up_batch(model, units, seconds, count).to(device)
    cached = bool(training_features(config, usable_features(config, model)))
    if cached:
        with torch.no_grad():
            hidden, lens_B = model.upstream(batch.wav_BN, batch.num_samples_B, model.layers)
        batch = replace(batch, hidden=hidden, lens_B=lens_B, wav_BN=None, num_samples_B=None)
    stepper = _Stepper(model, batch, config, steps + 1, device)
    book = resources.Ledger(device)
    times_s = [stepper.step() for _ in range(steps + 1)][1:]  # the first allocates memory and chooses kernels
    used = book.read()
    result = {
        "parameters": resources.parameters(model),
        "peak_bytes": used["peak_bytes"],
        "peak_less_model_bytes": used["peak_less_model_bytes"],
        "checkpoint_bytes": resources.checkpoint_bytes(model),
        "step_seconds": times_s,
        "step_seconds_median": statistics.median(times_s),
        "step_seconds_min": min(times_s),
        "audio_seconds_per_second": batch.seconds / statistics.median(times_s),
        "cached": cached,
        "bf16": bf16,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    if with_flops:
        result |= flops.count(model, batch, bf16)
        result |= flops.count_upstream(model, seconds, bf16)
    return result


class _Stepper:
    """Take whole steps on one batch, as train/loop.py does: forward, backward, clipping, update."""

    def __init__(self, model: Model, batch: Batch, config: Config, steps: int, device: torch.device):
        self.model, self.batch, self.config, self.device = model.train(), batch, config, device
        self.updater = Updater(*optim.build(model, config.optim, steps), config.optim.clip)

    def step(self) -> float:
        """Make one step and return the seconds that it took; raise UserError where it is not finite."""
        self._wait()
        start = time.monotonic()
        try:
            self.updater.step(self._losses(), len(self.batch.ids))
        except NotFinite as error:
            raise UserError(
                f"upstream {self.config.upstream}: {error} on random weights; set train.bf16=false"
            ) from None
        self._wait()
        return time.monotonic() - start

    def _losses(self) -> Iterator[Tensor]:
        """Yield the loss of the one batch, within the step, so that the forward pass is timed too."""
        seeds = self.batch.random_seeds(self.config.seed, 0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.bf16):
            loss = self.model.loss(self.batch, seeds).sum()
        yield loss

    def _wait(self) -> None:
        """Wait for a GPU, whose kernels run after the call that starts them has returned."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _main() -> None:
    """Run the job that `measure` pickles into standard input; write its result or error, as JSON, to standard output."""
    setup_logging()
    job = pickle.load(sys.stdin.buffer)
    with redirect_stdout(sys.stderr):
        try:
            result, code = measure_here(**job), 0
        except UserError as error:
            result, code = {"error": str(error)}, _FAILED
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            log.error(" ".join(str(error).split()))
            where = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
            result, code = {"error": f"out of {where}; take fewer or shorter utterances"}, _FAILED
    print(json.dumps(result))
    sys.exit(code)


if __name__ == "__main__":
    _main()
