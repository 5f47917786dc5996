"""Prove that every trainable part of a model acts: a gradient reaches it, and what it has learned changes the output.

A part is what is trained together: what was inserted at one place of a block, a block's own weights, a node of a fusion, the
head. It is judged as a whole and over several steps, since methods that start as the identity (LoRA, adapters, HFF) have
factors of zero, behind which the other factors get no gradient in the first steps.
"""

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hfftools.data.batch import Batch, Speech
from hfftools.expdir import ExpDir
from hfftools.log import UserError, log
from hfftools.model import Model
from hfftools.train import checkpoint
from hfftools.upstream.graft import GRAFTS

GRACE = 10  # steps in which a gradient has to reach every part
_FIX = "correct the plug-in, or leave the part out (tune.layers, fuse.layers)"


def parts_of(model: Model) -> dict[str, list[str]]:
    """Return {part: names of its trainable parameters}."""
    blocks = {id(block) for block in model.upstream.blocks()} if model.upstream_trains else set()
    parts: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = id(parameter) in model.base_parameters
            parts.setdefault(_own_part(model, name, blocks) if own else _part(model, name), []).append(name)
    return parts


def _path(model: Model, name: str) -> list[tuple[str, nn.Module]]:
    """Return (dotted path, module) of each module on the way to a parameter, the model itself left out."""
    steps, module, path = name.split(".")[:-1], model, []
    for depth, step in enumerate(steps, 1):
        module = getattr(module, step)
        path.append((".".join(steps[:depth]), module))
    return path


def _part(model: Model, name: str) -> str:
    """Return the path of the outermost module that was inserted, or that the fusion or the task consists of."""
    for path, module in _path(model, name):
        holder = isinstance(module, (*GRAFTS, nn.ModuleList, nn.ModuleDict)) or module is model.fuse
        if id(module) not in model.base_modules and not holder:
            return path
    return name


def _own_part(model: Model, name: str, blocks: set[int]) -> str:
    """Return the name of the block whose own weights a parameter is among."""
    for path, module in _path(model, name):
        if id(module) in blocks:
            return f"{path}'s own weights"
    return "the upstream's own weights outside its blocks"


class Acting:
    """Watch the gradients of the first steps, and compare the trained model with its initial values at the end."""

    def __init__(self, exp: ExpDir, model: Model):
        self.exp, self.model, self.parts = exp, model, parts_of(model)
        self.parameters = dict(model.named_parameters())
        self.waiting = dict.fromkeys(self.parts, 0)  # {part that no gradient has reached: steps in which one could}
        self.seconds = 0.0  # that all this has taken

    def begin(self) -> None:
        """Keep the initial values until the end of the training, as a file: in memory they would double what trains."""
        checkpoint.save(self.exp.initial, self.model.trained_state(), self.model)

    def see(self) -> None:
        """Look at the gradients of a step; raise UserError for a part that none has reached in GRACE steps."""
        if not self.waiting:
            return
        start = time.monotonic()
        for part in self.waiting.keys() - (self._inside() if self.model.held else set()):
            self.waiting[part] += 1
            if any(gradient is not None and bool(gradient.any()) for gradient in self._gradients(part)):
                del self.waiting[part]
        if GRACE in self.waiting.values():
            self._refuse([part for part, steps in self.waiting.items() if steps == GRACE])
        if not self.waiting:
            log.info(f"a gradient has reached each of the {len(self.parts)} trainable parts")
        self.seconds += time.monotonic() - start

    def _inside(self) -> set[str]:
        return {part for part in self.parts if part.removeprefix("the ").startswith("upstream")}

    def _gradients(self, part: str) -> list[Tensor | None]:
        return [self.parameters[name].grad for name in self.parts[part]]

    def _refuse(self, dead: list[str]) -> None:
        """Raise UserError for parts without a gradient; the last one is likely to be what keeps it from the others."""
        *others, part = dead
        why = "the loss does not depend on it: it is detached, or what it is inserted into does not call it"
        if any(gradient is not None for gradient in self._gradients(part)):
            why = "what it puts out is multiplied by zero, or has no effect where it is added"
        more = f" (nor {len(others)} parts before it)" if others else ""
        raise UserError(
            f"{self.exp.root}: no gradient has reached {part} in {self.waiting[part]} steps{more}; {why}; {_FIX}"
        )

    def finish(self, data: Speech) -> dict:
        """Return how many parts there are and act, and the least change of the output by one; log it.

        The change is that of the output on the shortest training utterance where the part alone gets its initial values
        back. Raises UserError for a part that the trained model does not use. {} where the initial values were not kept.
        """
        if not self.exp.initial.exists():  # a training that an older version began
            return {}
        start, initial = time.monotonic(), checkpoint.read(self.exp.initial)[0]
        shortest = min(range(len(data)), key=lambda row: data.durations_s[row])
        batch = data.batch([shortest]).to(next(self.model.parameters()).device)
        held = (
            self._inside() if self.model.held else set()
        )  # optim.upstream.freeze_steps: the upstream was never trained
        moved = changes(self.model, batch, {p: n for p, n in self.parts.items() if p not in held}, initial)
        if unmoved := [part for part, change in moved.items() if not change > 0]:
            self._judge_unmoved(unmoved, batch)
        acting = sum(change > 0 for change in moved.values())
        least = min(moved, key=lambda part: moved[part])
        self.seconds += time.monotonic() - start
        log.info(
            f"{acting} of {len(self.parts)} trainable parts act; the output changes least, by "
            f"{100 * moved[least]:.2g} %, by what {least} has learned ({self.seconds:.2f} s to find out)"
        )
        return {"parts": len(self.parts), "acting": acting, "least_change": moved[least], "least_part": least}

    def _judge_unmoved(self, parts: list[str], batch: Batch) -> None:
        """Raise UserError where the trained model does not use a part; warn where it has learned too little to be seen."""
        with torch.backends.cudnn.flags(enabled=False):  # whose recurrent layers have gradients in train mode only
            self.model.loss(batch).sum().backward()  # as it is used: in eval mode, where `changes` has left it
        for part in parts:
            if not any(gradient is not None and bool(gradient.any()) for gradient in self._gradients(part)):
                raise UserError(
                    f"{self.exp.root}: {part} changes nothing: once trained, the model does not use it, but in training "
                    f"alone; {_FIX}"
                )
        self.model.zero_grad(set_to_none=True)
        log.warning(
            f"{self.exp.root}: what {parts[0]} has learned is too little to change the output, as of {len(parts)} parts; "
            "raise optim.fuse.lr, optim.upstream.lr or optim.head.lr, or train longer"
        )


@torch.no_grad()
def changes(
    model: Model, batch: Batch, parts: Mapping[str, list[str]], initial: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return the relative change of the fused stream or of the loss where each part alone gets its initial values."""
    model.eval()
    parameters, trained = dict(model.named_parameters()), _outputs(model, batch)
    found = {}
    for part, names in parts.items():
        kept = {name: parameters[name].detach().clone() for name in names}
        for name in names:
            parameters[name].copy_(initial[name])
        pairs = zip(trained, _outputs(model, batch), strict=True)
        found[part] = max(float((after - before).norm() / after.norm()) for after, before in pairs)
        for name in names:
            parameters[name].copy_(kept[name])
    return found


def _outputs(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the fused stream x [B, T, F], and the loss [B], which depends on the head too."""
    x_BTF, lens_B = model.encode(batch)
    return x_BTF.double(), model.task.loss(lambda _: (x_BTF, lens_B), batch).double()
