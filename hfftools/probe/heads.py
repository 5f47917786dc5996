"""Train and read the probes of one task: a small head on the frozen hidden states of each layer.

All probes share one forward pass of the frozen model for each batch, and nothing else: each layer has its own weights,
random generator, optimizer, clipping and schedule, so its result equals that of a probe trained alone.

Axes: B utterances, T frames, D features of a layer, U classes or units of the task.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hfftools.data.batch import Batch
from hfftools.log import log
from hfftools.memory import building
from hfftools.probe.config import Config
from hfftools.train.optim import Group, shape
from hfftools.train.update import NotFinite, Updater


class ProbingTask(Protocol):
    """Define what a probe has to predict from the states of a layer, such as words, phones or the speaker."""

    name: str  # as in `diverged` of probe.json
    facts: dict[str, int]  # numbers that the result states along with the measures, such as the count of classes
    evaluate_on: str  # "dev", or "held_out" for a part of the training set that `loss` leaves out

    def head(self, dim: int) -> nn.Module:
        """Return a new head for a layer of width `dim`; it maps (x [B, T, dim], lens_B) to scores [B, T, U]."""

    def head_inputs(self, h_BTD: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the head reads, from the states of a layer and their lengths: x and lengths [B]."""

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        """Return the mean loss over the batch in nats; None if the batch has nothing to learn from."""

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, Any]:
        """Return what the scores say, {utterance: answer}; the form of an answer is known to `score` only."""

    def score(self, answers: dict[str, Any]) -> tuple[dict[str, float], dict[str, list[int]]]:
        """Return the measures of one layer with their intervals, and error counts by utterance for paired tests."""


class Probe:
    """Hold the head of one layer, its optimizer and schedule, and the state of its random generator."""

    def __init__(self, make: Callable[[], nn.Module], config: Config, seed: int, steps: int, device: torch.device):
        """Make the head by `make` with the random generator at `seed`; `steps` is the length of the schedule."""
        self._cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(self._cuda):
            torch.manual_seed(seed)
            with building({"head_dim": config.head_dim}):
                self.head = make().to(device)
            self._keep_random()
        self.optimizer = torch.optim.AdamW(self.head.parameters(), config.lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, shape(Group(lr=config.lr), steps))
        self.updater = Updater(self.optimizer, self.schedule, config.clip)

    def _keep_random(self) -> None:
        """Store the current random state as that of this probe."""
        self.random = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda)]

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Run the block with the random generator of this probe (its dropout), and leave the global one as it was."""
        with torch.random.fork_rng(self._cuda):
            torch.set_rng_state(self.random[0])
            for device in self._cuda:
                torch.cuda.set_rng_state(self.random[1], device)
            yield
            self._keep_random()

    def state_dict(self) -> dict:
        """Return all that a resumed training needs."""
        parts = {key: getattr(self, key).state_dict() for key in ("head", "optimizer", "schedule")}
        return {**parts, "random": self.random}

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` returned."""
        for key in ("head", "optimizer", "schedule"):
            getattr(self, key).load_state_dict(state[key])
        # torch takes the state of a generator from the CPU only, even that of a GPU
        self.random = [generator.cpu() for generator in state["random"]]


class Probes:
    """Hold one probe for each layer, all for one task; a layer stops at a loss or gradient that is not finite."""

    def __init__(self, task: ProbingTask, dims: dict[int, int], config: Config, steps: int, device: torch.device):
        """Make the probes; `dims` is {layer: width}, `steps` the number of updates."""
        self.task = task
        # the seed depends on the layer's number alone, not on which layers are probed with it
        self.probes = {
            layer: Probe(partial(task.head, dim), config, config.seed + 1000 * layer, steps, device)
            for layer, dim in dims.items()
        }
        self.diverged: list[int] = []

    def step(self, hidden: dict[int, Tensor], lens_B: Tensor, batch: Batch) -> dict[int, float]:
        """Update the probe of every layer; return {layer: loss}, empty if the batch has nothing to learn from.

        hidden: {layer: [B, T, D]}; lens_B: valid frames.
        """
        losses = {}
        for layer, probe in self.probes.items():
            if layer in self.diverged:
                continue
            x_BTD, x_lens_B = self.task.head_inputs(hidden[layer], lens_B)
            with probe.own_random():
                loss = self.task.loss(probe.head(x_BTD, x_lens_B), x_lens_B, batch)
            if loss is None:
                return {}
            losses[layer] = loss.item()
            try:
                # each layer has its own updater: with one clipping of all heads together, a layer of large gradients
                # would shrink the steps of the others, and a layer that diverges would stop them
                probe.updater.step([loss])
            except NotFinite as error:
                self.diverged.append(layer)
                log.warning(f"layer {layer}, {self.task.name}: {error}; this probe stops, the others continue")
        return losses

    @torch.no_grad()
    def read(self, hidden: dict[int, Tensor], lens_B: Tensor, batch: Batch) -> dict[int, dict[str, Any]]:
        """Return the answers of every layer, {layer: {utterance: answer}}."""
        answers = {}
        for layer, probe in self.probes.items():
            x_BTD, x_lens_B = self.task.head_inputs(hidden[layer], lens_B)
            answers[layer] = self.task.read(probe.head.eval()(x_BTD, x_lens_B), x_lens_B, batch)
            probe.head.train()
        return answers

    @property
    def all_diverged(self) -> bool:
        """Return whether no layer is left to train."""
        return len(self.diverged) == len(self.probes)

    def state_dict(self) -> dict:
        """Return the state of all probes, and which of them diverged."""
        return {"probes": {k: p.state_dict() for k, p in self.probes.items()}, "diverged": self.diverged}

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` returned."""
        for layer, probe in self.probes.items():
            probe.load_state_dict(state["probes"][layer])
        self.diverged = state["diverged"]
