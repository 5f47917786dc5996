"""Probes of one question: the hidden states of every layer and labels in, a trained head on each layer out.

All probes share one frozen forward pass a batch and nothing else: each layer has its own weights, random generator,
optimizer, clipping and schedule, so its result is that of a probe trained alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hfftools.data.batch import Batch
from hfftools.log import log
from hfftools.probe.config import Config
from hfftools.train.optim import Group, shape
from hfftools.train.update import NotFinite, Updater


class Question(Protocol):
    """What the probes of all layers are asked, such as for words, phones or the speaker."""

    name: str
    facts: dict[str, int]  # numbers to state beside the measures
    evaluate_on: str  # "dev", or "held_out" for a part of the training set that `loss` leaves out

    def head(self, dim: int) -> nn.Module:
        """A new head over states of width `dim`: head(x [B, T, dim], lens_B) -> scores [B, T, units]."""

    def enter(self, h_BTD: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's states and lengths as they enter the head."""

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        """A mean over the batch in nats; None where the batch has nothing to learn from."""

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, Any]:
        """What the head answers, {utterance: answer}."""

    def score(self, answers: dict[str, Any]) -> tuple[dict[str, float], dict[str, list[int]]]:
        """(the measures of one layer with their intervals, error counts by utterance for paired comparisons)."""


class Probe:
    """One layer's head with all that trains it."""

    def __init__(self, make: Callable[[], nn.Module], config: Config, seed: int, steps: int, device: torch.device):
        self._cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(self._cuda):
            torch.manual_seed(seed)
            self.head = make().to(device)
            self._keep_random()
        self.optimizer = torch.optim.AdamW(self.head.parameters(), config.lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, shape(Group(lr=config.lr), steps))
        self.updater = Updater(self.optimizer, self.schedule, config.clip)

    def _keep_random(self) -> None:
        self.random = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda)]

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Draw from this probe's generator, and from no other's."""
        with torch.random.fork_rng(self._cuda):
            torch.set_rng_state(self.random[0])
            for device in self._cuda:
                torch.cuda.set_rng_state(self.random[1], device)
            yield
            self._keep_random()

    def state_dict(self) -> dict:
        parts = {key: getattr(self, key).state_dict() for key in ("head", "optimizer", "schedule")}
        return {**parts, "random": self.random}

    def load_state_dict(self, state: dict) -> None:
        for key in ("head", "optimizer", "schedule"):
            getattr(self, key).load_state_dict(state[key])
        self.random = [generator.cpu() for generator in state["random"]]


class Probes:
    """A probe on each layer for one question; a layer whose loss or gradient is not finite is dropped, the others go on."""

    def __init__(self, question: Question, dims: dict[int, int], config: Config, steps: int, device: torch.device):
        self.question = question
        self.probes = {
            layer: Probe(lambda dim=dim: question.head(dim), config, config.seed + 1000 * layer, steps, device)
            for layer, dim in dims.items()
        }
        self.diverged: list[int] = []

    def step(self, hidden: dict[int, Tensor], lens_B: Tensor, batch: Batch) -> dict[int, float]:
        """One update of every layer; {layer: loss}, empty where the batch has nothing to learn from."""
        losses = {}
        for layer, probe in self.probes.items():
            if layer in self.diverged:
                continue
            x_BTD, x_lens_B = self.question.enter(hidden[layer], lens_B)
            with probe.own_random():
                loss = self.question.loss(probe.head(x_BTD, x_lens_B), x_lens_B, batch)
            if loss is None:
                return {}
            losses[layer] = loss.item()
            try:
                # an updater for each layer, not one for all: one clipping of all heads together would let a layer of
                # large gradients shrink the steps of the others, and one that diverges would stop them
                probe.updater.step([loss])
            except NotFinite as error:
                self.diverged.append(layer)
                log.warning(f"layer {layer}, {self.question.name}: {error}; this probe is given up, the others go on")
        return losses

    @torch.no_grad()
    def read(self, hidden: dict[int, Tensor], lens_B: Tensor, batch: Batch) -> dict[int, dict[str, Any]]:
        """{layer: {utterance: answer}}."""
        answers = {}
        for layer, probe in self.probes.items():
            x_BTD, x_lens_B = self.question.enter(hidden[layer], lens_B)
            answers[layer] = self.question.read(probe.head.eval()(x_BTD, x_lens_B), x_lens_B, batch)
            probe.head.train()
        return answers

    @property
    def all_diverged(self) -> bool:
        return len(self.diverged) == len(self.probes)

    def state_dict(self) -> dict:
        return {"probes": {k: p.state_dict() for k, p in self.probes.items()}, "diverged": self.diverged}

    def load_state_dict(self, state: dict) -> None:
        for layer, probe in self.probes.items():
            probe.load_state_dict(state["probes"][layer])
        self.diverged = state["diverged"]
