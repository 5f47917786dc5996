"""Run two foundation models as one: the hidden states of both, at the first one's frames.

States 0..L1 are the first's; states L1+1..L1+L2+1 are the second's states 0..L2, moved to the first's frames by linear
interpolation in time. Frame t of a model stands for the middle of the samples that its front end sees for it:
`middle_samples` + t `stride_samples`.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hfftools.upstream.base import Upstream, model_digests
from hfftools.upstream.source import Source


def align(h_BTD: Tensor, lens_B: Tensor, stride: int, to_stride: int, frames: int, later: float) -> Tensor:
    """Return h [B, frames, D], a frame every `to_stride` samples, for h [B, T, D], a frame every `stride` samples.

    The first of the new frames is `later` samples later than the first of the old ones (half a sample is the unit).
    `lens_B` frames of the latter are valid. Beyond the first and the last valid frame stands that frame; an utterance
    without any is zero.
    """
    last_B1 = (lens_B.clamp(min=1) - 1)[:, None]
    # the position of frame t is (t to_stride + later) / stride, in whole numbers of 1 / (2 stride)
    unit = 2 * stride
    at_T = 2 * torch.arange(frames, device=h_BTD.device) * to_stride + round(2 * later)
    at_BT = at_T[None].clamp(min=0).minimum(unit * last_B1)
    low_BT = at_BT // unit
    part_BT1 = ((at_BT % unit) / unit).to(h_BTD.dtype)[:, :, None]
    low_BTD, high_BTD = (
        h_BTD.gather(1, index_BT[:, :, None].expand(-1, -1, h_BTD.shape[2]))
        for index_BT in (low_BT, (low_BT + 1).minimum(last_B1))
    )
    return torch.lerp(low_BTD, high_BTD, part_BT1).masked_fill((lens_B == 0)[:, None, None], 0.0)


def _joined(first: str, second: str) -> str:
    """Return one digest for those of two models; empty where both are.

    The last word tells how their frames are aligned: results of pairs that were aligned by half strides are others'.
    """
    return hashlib.sha256(f"{first}+{second} by middles".encode()).hexdigest()[:16] if first or second else ""


class PairUpstream(Upstream):
    """`A+B`. Lengths, stride and `dim` are A's; `dims` tells the width of each state."""

    def __init__(self, first: Upstream, second: Upstream):
        super().__init__()
        self.first, self.second = first, second
        self.name = f"{first.name}+{second.name}"
        self.hash = _joined(first.hash, second.hash)
        self.settings = _joined(first.settings, second.settings)
        self.num_layers = first.num_layers + second.num_layers + 1
        self.dim, self.stride_samples, self.middle_samples = first.dim, first.stride_samples, first.middle_samples

    @property
    def dims(self) -> dict[int, int]:
        return dict(enumerate([*self.first.dims.values(), *self.second.dims.values()]))

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        return self.first.out_lens(num_samples_B)

    def _split(self, layers: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the layers asked for as each model numbers its own."""
        begin = self.first.num_layers + 1
        return [n for n in layers if n < begin], [n - begin for n in layers if n >= begin]

    def forward(self, wav_BN, num_samples_B, layers, augment=None):
        num_samples_B = num_samples_B.to(wav_BN.device)
        of_first, of_second = self._split(layers)
        states, begin = {}, self.first.num_layers + 1
        if of_first:
            states, lens_B = self.first(wav_BN, num_samples_B, of_first, self._inside(self.first, augment))
            frames = states[of_first[0]].shape[1]
        else:
            lens_B = self.out_lens(num_samples_B)
            frames = max(1, int(lens_B.max()))
        if of_second:
            hidden, second_lens_B = self.second(wav_BN, num_samples_B, of_second, self._inside(self.second, augment))
            grid = self.second.stride_samples, self.stride_samples, frames
            later = self.middle_samples - self.second.middle_samples
            states |= {begin + n: align(h_BTD, second_lens_B, *grid, later) for n, h_BTD in hidden.items()}
        return {layer: states[layer] for layer in layers}, lens_B

    @staticmethod
    def _inside(model: Upstream, augment: Callable | None) -> Callable | None:
        return augment if len(model.blocks()) else None  # log-mel beside a model has nothing inside to mask

    @property
    def input_layers(self) -> list[int]:
        return [0, self.first.num_layers + 1]

    def halves(self) -> list[Upstream]:
        return [self.first, self.second]

    def blocks(self) -> nn.ModuleList:
        return nn.ModuleList([*self.first.blocks(), *self.second.blocks()])

    def front_end(self) -> list[nn.Module]:
        return [*self.first.front_end(), *self.second.front_end()]

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        return [*self.first.convolutions(), *self.second.convolutions()]

    def unreached(self, layers: Sequence[int]) -> list[nn.Module]:
        parts = zip((self.first, self.second), self._split(layers), strict=True)
        return [module for model, own in parts for module in (model.unreached(own) if own else [model])]


class PairSource(Source):
    """The name `A+B`; names.py takes it apart."""

    def __init__(self, text: str, first: Source, second: Source):
        super().__init__(text)
        self.first, self.second = first, second

    def load(self) -> PairUpstream:
        return PairUpstream(self.first.load(), self.second.load()).eval()

    def digests(self) -> dict[str, str]:
        both = self.first.digests(), self.second.digests()
        if not all(both):
            return {}
        weights, settings = (_joined(*(one.get(key, "") for one in both)) for key in ("upstream", "upstream settings"))
        return model_digests(weights, settings)

    def check_sizes(self) -> None:
        self.first.check_sizes()
        self.second.check_sizes()

    def random(self) -> PairUpstream:
        self.check_sizes()
        return PairUpstream(self.first.random(), self.second.random()).eval()

    def card(self) -> str:
        cards = self.first.card(), self.second.card()
        return "\n\n".join(card for card in cards if card)

    @property
    def pinned(self) -> str:
        return f"{self.first.pinned}+{self.second.pinned}"

    @property
    def short_name(self) -> str:
        return f"{self.first.short_name}-{self.second.short_name}"

    def halves(self) -> list[Source]:
        return [self.first, self.second]
