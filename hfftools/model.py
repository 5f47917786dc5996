"""Join upstream, tune, fuse and task into one model that gives a fused stream, losses or hypotheses of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hfftools import memory
from hfftools.config import plugin, plugin_names
from hfftools.data.batch import Batch, Targets
from hfftools.data.spec_augment import Config as AugmentConfig
from hfftools.data.spec_augment import Masking, mask_spans, spec_augment
from hfftools.log import UserError, require
from hfftools.nn.layer_sum import normed
from hfftools.upstream import graft
from hfftools.upstream.base import Upstream, choose_layers
from hfftools.upstream.names import parse
from hfftools.upstream.source import Source

ROOMS = {"tune": "tune", "fuse": "fuse", "task": "task"}


@dataclass(frozen=True)
class Config:
    """Describe a transfer method: what changes inside the upstream, how its layers are fused, and the task."""

    upstream: str = "hff_tiny"  # name, alias or path of the foundation model
    tune: Any = field(default_factory=lambda: {"name": "frozen"})  # what changes inside the upstream
    fuse: Any = field(default_factory=lambda: {"name": "hff"})  # how its layers become one stream
    task: Any = field(default_factory=lambda: {"name": "asr_ctc"})  # what is learned
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # on the fused stream
    mask: Masking = field(default_factory=Masking)  # inside the upstream


def check(config: Config) -> Source:
    """Return the source of the upstream; raise UserError, before anything is loaded, where the method cannot apply to it."""
    tune, source = plugin("tune", config.tune.name), parse(config.upstream)
    bare = all(half.places == {} for half in source.halves())
    for half in source.halves():
        if bare or half.places != {}:  # of two upstreams, one without blocks is left as it is
            graft.check(half, config.tune.name, tune.places(config.tune))
    masked = config.mask.time or config.mask.channel
    require(not (bare and masked), f"mask: {source.text} has nothing inside to mask; set mask.time=0 mask.channel=0")
    return source


def build_fusion(dims: dict[int, int], config: Any) -> nn.Module:
    """Return the fusion that `config.name` names, for layers of the widths {layer: width}.

    With `config.normalize` each frame of each layer is given zero mean and unit variance before, without learned gains.
    Raises UserError where the widths differ, as in a pair of upstreams, and the fusion needs one width.
    """
    fusion, widths = plugin("fuse", config.name).Fuse, sorted(set(dims.values()))
    if len(widths) > 1 and not fusion.any_width:
        others = [name for name in plugin_names("fuse") if plugin("fuse", name).Fuse.any_width]
        raise UserError(
            f"fuse.name: '{config.name}' needs layers of one width, not of {widths}; {', '.join(others)} take any"
        )
    fuse = fusion(dims, config)
    if getattr(config, "normalize", False):
        fuse.register_forward_pre_hook(_normalise)
    return fuse


def _normalise(fuse: nn.Module, inputs: tuple[dict[int, Tensor], Tensor]) -> tuple[dict[int, Tensor], Tensor]:
    """Return what enters a fusion with every frame normalised: layers may differ in scale by a factor of several."""
    hidden, lens_B = inputs
    return {layer: normed(h_BTD) for layer, h_BTD in hidden.items()}, lens_B


class Model(nn.Module):
    """Hold upstream, fusion and task as one module; `requires_grad` alone says what is trained."""

    def __init__(self, config: Config, targets: Targets, upstream: Upstream | None = None):
        super().__init__()
        source = check(config)
        self.upstream = upstream if upstream is not None else source.load()
        self.upstream.requires_grad_(False)
        self.layers = choose_layers(config.fuse.layers, self.upstream)
        self.base_parameters = {id(parameter) for parameter in self.upstream.parameters()}
        self.base_modules = {id(module) for module in self.upstream.modules()}
        with memory.building(vars(config.tune), "tune."):
            plugin("tune", config.tune.name).apply(self.upstream, config.tune)
        tuned = self.upstream_trains
        self._still(self.upstream.unreached(self.layers))
        if tuned and not self.upstream_trains:
            raise UserError(
                f"tune '{config.tune.name}' changes nothing that the tapped layers {self.layers} see; tap higher ones "
                "(fuse.layers) or tune lower blocks (tune.layers)"
            )
        for parameter in self.upstream.parameters():
            if parameter.requires_grad and id(parameter) in self.base_parameters:
                parameter.data = parameter.data.clone()  # other views of this upstream share the tensor
        self.dims = {layer: self.upstream.dims[layer] for layer in self.layers}
        with memory.building(vars(config.fuse), "fuse."):
            self.fuse = build_fusion(self.dims, config.fuse)
        with memory.building(vars(config.task), "task."):
            self.task = plugin("task", config.task.name).Task(self.fuse.out_dim, targets, config.task)
        self.augment, self.mask = config.augment, config.mask
        self.held = False

    def _still(self, unreached: list[nn.Module]) -> None:
        """Freeze the parameters that the tapped layers do not depend on, so that they do not count as trained."""
        aside = {id(module) for root in unreached for module in root.modules()}
        used = {id(p) for m in self.upstream.modules() if id(m) not in aside for p in m.parameters(recurse=False)}
        for parameter in (p for root in unreached for p in root.parameters() if id(p) not in used):
            parameter.requires_grad_(False)

    @property
    def upstream_trains(self) -> bool:
        """Return whether anything inside the upstream is trained; if not, its states can be cached."""
        return any(p.requires_grad for p in self.upstream.parameters())

    def hold(self, held: bool) -> None:
        """Run the upstream as if it were frozen if `held`, as in the first steps of fine-tuning."""
        if held != self.held:
            self.held = held
            self.train(self.training)

    def train(self, mode: bool = True) -> "Model":
        """Set train mode for what is trained; upstream modules with frozen weights stay in eval mode."""
        super().train(mode)
        self._settle(self.upstream, mode and not self.held, trained=False)
        return self

    def _settle(self, module: nn.Module, mode: bool, trained: bool) -> None:
        """Put a module of the upstream in train mode if all its own weights train or, if it has none, if its parent's do.

        Batch norms always stay in eval mode: padding and small batches would distort their running statistics.
        """
        own = [p for p in module.parameters() if id(p) in self.base_parameters]
        trained = all(p.requires_grad for p in own) if own else trained
        if id(module) in self.base_modules:
            module.training = mode and trained and not isinstance(module, nn.modules.batchnorm._BatchNorm)
        for child in module.children():
            self._settle(child, mode, trained)

    def encode(self, batch: Batch, seeds: Sequence[Sequence[int]] | None = None) -> tuple[Tensor, Tensor]:
        """Return the fused stream x [B, T, F] and lengths [B]; SpecAugment is applied in training if seeds are given."""
        if batch.hidden is not None and batch.lens_B is not None:
            hidden, lens_B = batch.hidden, batch.lens_B
        else:
            inside = self.upstream_trains and not self.held
            masked = self.training and self.mask.wanted
            augment = self._masks(seeds) if masked and seeds is not None else None
            with torch.set_grad_enabled(inside and torch.is_grad_enabled()):
                hidden, lens_B = self.upstream(batch.wav_BN, batch.num_samples_B, self.layers, augment=augment)
        x_BTF = self.fuse(hidden, lens_B)
        if self.training and seeds is not None:
            x_BTF = spec_augment(x_BTF, lens_B, seeds, self.augment)
        return x_BTF, lens_B

    def _masks(self, seeds: Sequence[Sequence[int]]) -> Callable[[Tensor, Tensor, Upstream], Tensor]:
        """Return the function by which the upstream masks spans of its front end's output x [B, T, D]."""
        return lambda x_BTD, lens_B, upstream: mask_spans(
            x_BTD, lens_B, seeds, self.mask, upstream.frame_rate_hz, upstream.mask_embedding
        )

    def loss(self, batch: Batch, seeds: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Return the task's loss [B] of each utterance."""
        return self.task.loss(lambda b: self.encode(b, seeds), batch)

    @torch.no_grad()
    def predict(self, batch: Batch) -> list:
        """Return the task's prediction for each utterance: its text, of a task that recognises speech."""
        return self.task.predict(*self.encode(batch))

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Return the trainable parameters by part: upstream (its own), inserted (grafted into it), fuse, head."""
        parts: dict[str, list[tuple[str, nn.Parameter]]] = {"upstream": [], "inserted": [], "fuse": [], "head": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = {"fuse": "fuse", "task": "head"}.get(name.partition(".")[0])
                part = part or ("upstream" if id(parameter) in self.base_parameters else "inserted")
                parts[part].append((name, parameter))
        return parts

    def _saved(self) -> dict[str, Tensor]:
        """Return what was trained, and the buffers of modules that were not in the upstream before; not copies."""
        saved = {name: p.data for name, p in self.named_parameters() if p.requires_grad}
        for name, module in self.named_modules():
            if id(module) not in self.base_modules:
                saved |= {f"{name}.{n}": b for n, b in module.named_buffers(recurse=False)}
        return saved

    def trained_state(self) -> dict[str, Tensor]:
        """Return a copy of what was trained, by name."""
        return {name: tensor.detach().clone().cpu().contiguous() for name, tensor in self._saved().items()}

    @torch.no_grad()
    def load_trained(self, state: dict[str, Tensor], where: str) -> None:
        """Put back what `trained_state` returned; raise UserError that names the first key or shape that does not fit."""
        mine = self._saved()
        for name in sorted(mine.keys() ^ state.keys()):
            what = "has no" if name in mine else "has an unexpected"
            raise UserError(f"{where}: {what} '{name}'; it was trained with another configuration")
        for name, tensor in mine.items():
            if tensor.shape != state[name].shape:
                raise UserError(f"{where}: '{name}' is {list(state[name].shape)}, the model needs {list(tensor.shape)}")
            tensor.copy_(state[name])
