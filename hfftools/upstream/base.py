"""Define the contract of every foundation model, which computes hidden states and their lengths from waveforms."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from hfftools.log import UserError
from hfftools.nn.rate import RATE_HZ


class Upstream(nn.Module):
    """A foundation model. State 0 is what enters its first block; state l is what block l puts out.

    Attributes: `name`; `num_layers`, the number of blocks L, so that states 0..L exist; `dim`, the width D of each;
    `stride_samples`, samples per frame; `middle_samples`, the middle of the samples that the front end sees for frame 0;
    `hash`, a digest of the weights that tells one model from another; `settings`, a digest of what else its files say of
    how it computes, empty where they hold nothing but weights.
    """

    name: str
    num_layers: int
    dim: int
    stride_samples: int
    middle_samples: float
    hash: str
    settings: str = ""

    @property
    def digests(self) -> dict[str, str]:
        """Return what results of the model are recorded to be made from, as `Source.digests` does without loading it."""
        return model_digests(self.hash, self.settings)

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        """Return valid frames [B] from samples [B], by the front end's own convolution formula."""
        raise NotImplementedError

    def forward(
        self,
        wav_BN: Tensor,
        num_samples_B: Tensor,
        layers: Sequence[int],
        augment: Callable[[Tensor, Tensor, "Upstream"], Tensor] | None = None,
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Return {layer: h [B, T, D]} for `layers`, and lengths [B]; nothing above the highest is computed.

        `wav_BN` is float, 16 kHz, mono; samples beyond `num_samples_B` are padding and change no valid frame.
        `augment(x_BTD, lens_B, upstream)`, where given, masks what the front end puts out, before any position is
        added to it: with `mask_embedding` [D], or zero where that is None. Models without blocks have nothing to mask, and
        refuse it.
        """
        raise NotImplementedError

    @property
    def all_layers(self) -> list[int]:
        return list(range(self.num_layers + 1))

    @property
    def input_layers(self) -> list[int]:
        """Return the states that no block puts out."""
        return [0]

    def halves(self) -> list["Upstream"]:
        """Return the models that this is made of: itself."""
        return [self]

    @property
    def dims(self) -> dict[int, int]:
        """Return {layer: width} of each state."""
        return dict.fromkeys(self.all_layers, self.dim)

    @property
    def frame_rate_hz(self) -> float:
        return RATE_HZ / self.stride_samples

    @property
    def mask_embedding(self) -> Tensor | None:
        """Return what replaces masked frames [D], or None if they are set to zero."""
        return None

    def blocks(self) -> nn.ModuleList:
        """Return the L blocks, lowest first: where a tune method grafts its parts."""
        raise NotImplementedError

    def front_end(self) -> list[nn.Module]:
        """Return the convolutions over the waveform or log-mel, with their norms."""
        raise NotImplementedError

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        """Return the same as (owner, name in it), for what is grafted there."""
        raise NotImplementedError

    def unreached(self, layers: Sequence[int]) -> list[nn.Module]:
        """Return the modules that play no part in the states of `layers`."""
        return list(self.blocks()[max(layers) :])

    def view(self) -> "Upstream":
        """Return the same model as other modules over the same tensors.

        What is grafted on one does not change the other. A parameter that is to train in a view needs a
        tensor of its own first.
        """
        shared = {id(p): nn.Parameter(p.data, requires_grad=False) for p in self.parameters()}
        return copy.deepcopy(self, {**shared, **{id(b): b for b in self.buffers()}})


def model_digests(weights: str, settings: str = "") -> dict[str, str]:
    """Return {input: digest} of a model, as records of results have them."""
    return {"upstream": weights, **({"upstream settings": settings} if settings else {})}


def check_layers(upstream: Upstream, layers: Sequence[int]) -> None:
    """Raise UserError where `layers` is empty or names a state that the upstream does not have."""
    wrong = [layer for layer in layers if layer not in upstream.all_layers]
    if wrong or not layers:
        what = f"{', '.join(map(str, wrong))}: no such layer" if wrong else "none given"
        raise UserError(f"layers: {what}; {upstream.name} has 0 to {upstream.num_layers}, 0 enters its first block")


def whole_numbers(wanted: Any) -> list[int]:
    """Return a list of whole numbers, which may be written as text; no numbers where it is anything else."""
    # 1.5, true and the text "12" are no numbers of layers, though int() would make 1, 1, and 1 and 2 of them
    if isinstance(wanted, str | dict) or not isinstance(wanted, Iterable):
        return []
    try:
        return [int(n) for n in wanted] if all(type(n) in (int, str) for n in wanted) else []
    except ValueError:
        return []


def choose_layers(wanted: Any, upstream: Upstream, option: str = "fuse.layers") -> list[int]:
    """Return layer numbers for `all`, `blocks` (all but what enters the first), `last`, or a list.

    Negative numbers count from the top. Raise UserError outside 0..L.
    """
    if wanted in ("all", "blocks"):
        return [n for n in upstream.all_layers if wanted == "all" or n not in upstream.input_layers]
    numbers = whole_numbers([-1] if wanted == "last" else wanted)
    if not numbers:
        raise UserError(f"{option}: '{wanted}' is neither all, blocks, last, nor a list of numbers such as [2,4,6]")
    layers = sorted({n + upstream.num_layers + 1 if n < 0 else n for n in numbers})
    if layers[0] < 0 or layers[-1] > upstream.num_layers:
        raise UserError(f"{option}: {numbers} is outside the layers 0..{upstream.num_layers} of {upstream.name}")
    return layers
