"""The one place where upstream, tune, fuse and task meet: a batch in, a fused stream, losses or hypotheses out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import plugin
from hfftools.data.augment import Config as AugmentConfig
from hfftools.data.augment import spec_augment
from hfftools.data.batch import Batch
from hfftools.data.units import Units
from hfftools.log import UserError
from hfftools.upstream.base import Upstream
from hfftools.upstream.names import load_upstream

ROOMS = {"tune": "tune", "fuse": "fuse", "task": "task"}


@dataclass
class Config:
    """A transfer method: what moves inside the upstream, how its layers become one stream, and what is learned on it."""

    upstream: str = "hff_tiny"
    tune: Any = field(default_factory=lambda: {"name": "frozen"})
    fuse: Any = field(default_factory=lambda: {"name": "hff"})
    task: Any = field(default_factory=lambda: {"name": "asr_ctc"})
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def choose_layers(wanted: Any, upstream: Upstream, option: str = "fuse.layers") -> list[int]:
    """`all`, `last` or a list of numbers, negative ones from the top -> layer numbers; UserError outside 0..L."""
    if wanted == "all":
        return upstream.all_layers
    numbers = [-1] if wanted == "last" else wanted
    try:
        numbers = [int(n) for n in numbers]
    except (TypeError, ValueError):
        raise UserError(f"{option}: '{wanted}' is neither all, last, nor a list of numbers such as [2,4,6]") from None
    layers = sorted({n + upstream.num_layers + 1 if n < 0 else n for n in numbers})
    if not layers or layers[0] < 0 or layers[-1] > upstream.num_layers:
        raise UserError(f"{option}: {list(numbers)} is outside the layers 0..{upstream.num_layers} of {upstream.name}")
    return layers


class Model(nn.Module):
    """Upstream, fusion and task as one module. `requires_grad` is the only truth about what is trained."""

    def __init__(self, config: Config, units: Units, upstream: Upstream | None = None):
        super().__init__()
        self.upstream = upstream if upstream is not None else load_upstream(config.upstream)
        self.upstream.requires_grad_(False)
        self.base_names = {name for name, _ in self.upstream.named_parameters()}
        self.base_modules = {id(module) for module in self.upstream.modules()}
        plugin("tune", config.tune.name).apply(self.upstream, config.tune)
        self.layers = choose_layers(config.fuse.layers, self.upstream)
        self.fuse = plugin("fuse", config.fuse.name).Fuse(self.layers, self.upstream.dim, config.fuse)
        self.task = plugin("task", config.task.name).Task(self.fuse.out_dim, units, config.task)
        self.augment = config.augment

    @property
    def upstream_trains(self) -> bool:
        """Whether gradients are needed inside the upstream; where not, it runs without them and can be cached."""
        return any(p.requires_grad for p in self.upstream.parameters())

    def train(self, mode: bool = True) -> "Model":
        """Train mode for what is trained; the base's own modules stay in eval mode while its weights are frozen."""
        super().train(mode)
        self._settle(self.upstream, mode, trained=False)
        return self

    def _settle(self, module: nn.Module, mode: bool, trained: bool) -> None:
        """Put base modules in train mode where their own weights train, or, without any, where those around them do."""
        own = list(module.parameters(recurse=False))
        trained = any(p.requires_grad for p in own) if own else trained
        if id(module) in self.base_modules:
            module.training = mode and trained
        for child in module.children():
            self._settle(child, mode, trained)

    def encode(self, batch: Batch, seeds: Iterable | None = None) -> tuple[Tensor, Tensor]:
        """The fused stream x [B, T, F] and lengths [B]; SpecAugment is applied in training where seeds are given."""
        if batch.hidden is not None:
            hidden, lens_B = batch.hidden, batch.lens_B
        else:
            with torch.set_grad_enabled(self.upstream_trains and torch.is_grad_enabled()):
                hidden, lens_B = self.upstream(batch.wav_BN, batch.num_samples_B, self.layers)
        x_BTF = self.fuse(hidden, lens_B)
        if self.training and seeds is not None:
            x_BTF = spec_augment(x_BTF, lens_B, seeds, self.augment)
        return x_BTF, lens_B

    def loss(self, batch: Batch, seeds: Iterable | None = None) -> Tensor:
        """The task's loss [B] of each utterance."""
        return self.task.loss(lambda b: self.encode(b, seeds), batch)

    @torch.no_grad()
    def decode(self, batch: Batch) -> list[str]:
        """Hypotheses, one an utterance."""
        return self.task.decode(*self.encode(batch))

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by part: upstream (its own), inserted (grafted into it), fuse, head."""
        parts: dict[str, list[tuple[str, nn.Parameter]]] = {"upstream": [], "inserted": [], "fuse": [], "head": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                room, _, inner = name.partition(".")
                part = {"fuse": "fuse", "task": "head"}.get(room)
                part = part or ("upstream" if inner in self.base_names else "inserted")
                parts[part].append((name, parameter))
        return parts

    def _saved(self) -> dict[str, Tensor]:
        """What was trained, and the buffers of modules that are not frozen, by name; live tensors."""
        saved = {name: p.data for name, p in self.named_parameters() if p.requires_grad}
        for name, module in self.named_modules():
            frozen = id(module) in self.base_modules and not any(
                p.requires_grad for p in module.parameters(recurse=False)
            )
            if not frozen:
                saved |= {f"{name}.{n}": b for n, b in module.named_buffers(recurse=False)}
        return saved

    def trained_state(self) -> dict[str, Tensor]:
        """A copy of what was trained, by name."""
        return {name: tensor.detach().clone().cpu().contiguous() for name, tensor in self._saved().items()}

    @torch.no_grad()
    def load_trained(self, state: dict[str, Tensor], where: str) -> None:
        """Put back what `trained_state` gave; UserError that names the first key or shape that does not fit."""
        mine = self._saved()
        for name in sorted(mine.keys() ^ state.keys()):
            what = "has no" if name in mine else "has an unexpected"
            raise UserError(f"{where}: {what} '{name}'; it was trained with another configuration")
        for name, tensor in mine.items():
            if tensor.shape != state[name].shape:
                raise UserError(f"{where}: '{name}' is {list(state[name].shape)}, the model needs {list(tensor.shape)}")
            tensor.copy_(state[name])
