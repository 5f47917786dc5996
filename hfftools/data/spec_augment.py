"""Mask spans of features [B, T, F], as in SpecAugment (Park et al., arXiv:1904.08779) and wav2vec 2.0.

Masks depend on the seed of each utterance only, not on how utterances are batched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hfftools.config import at_least, between


@dataclass(frozen=True)
class Config:
    """Configure SpecAugment."""

    time_masks: int = 2  # number of time masks per utterance
    time_width: float = 0.05  # maximum width of a time mask, as a share of the utterance
    channel_masks: int = 2  # number of channel masks per utterance
    channel_width: float = 0.1  # maximum width of a channel mask, as a share of the channels

    def __post_init__(self):
        at_least(self, 0, "time_masks", "channel_masks")
        between(self, 0, 1, "time_width", "channel_width")  # shares of frames and channels


def spec_augment(x_BTF: Tensor, lens_B: Tensor, seeds: Sequence[Sequence[int]], config: Config) -> Tensor:
    """Zero random time spans and channel bands; `seeds` holds one sequence of integers for each utterance."""
    keep_BTF = torch.ones_like(x_BTF, dtype=torch.bool)
    width = x_BTF.shape[2]
    for keep_TF, length, seed in zip(keep_BTF, lens_B.tolist(), seeds, strict=True):
        rng = np.random.default_rng(list(seed))
        # as in the paper: a span t from the uniform distribution over 0 … T, then its start over 0 … length - t; the
        # widest span T is a share of this utterance, so that a short one is not erased (the paper's upper bound p)
        for _ in range(config.time_masks):
            span = int(rng.integers(int(config.time_width * length) + 1))
            start = int(rng.integers(max(1, length - span + 1)))  # a width of the whole utterance leaves one start, 0
            keep_TF[start : start + span] = False
        for _ in range(config.channel_masks):
            span = int(rng.integers(int(config.channel_width * width) + 1))
            start = int(rng.integers(max(1, width - span + 1)))
            keep_TF[:, start : start + span] = False
    return x_BTF * keep_BTF


@dataclass(frozen=True)
class Masking:
    """Configure the masking before the upstream's first block (wav2vec 2.0; Baevski et al., arXiv:2006.11477)."""

    time: float = 0.0  # share of frames that the spans would cover without overlap; 0: no time masks
    span_s: float = 0.2  # length of a time span, in seconds
    channel: float = 0.0  # share of channels that the bands would cover without overlap; 0: no channel masks
    band: float = 0.083  # width of a band, as a share of the channels

    def __post_init__(self):
        between(self, 0, 1, *vars(self))

    @property
    def wanted(self) -> bool:
        return self.time > 0 or self.channel > 0


def mask_spans(
    x_BTD: Tensor,
    lens_B: Tensor,
    seeds: Sequence[Sequence[int]],
    config: Masking,
    rate_hz: float,
    embedding_D: Tensor | None,
) -> Tensor:
    """Replace time spans by the mask embedding (zero if the model has none), and set channel bands to zero.

    Spans are drawn in seconds, so that two models of different frame rates are masked at the same moments.
    """
    time_BT = torch.zeros(x_BTD.shape[:2], dtype=torch.bool)
    channel_BD = torch.zeros((x_BTD.shape[0], x_BTD.shape[2]), dtype=torch.bool)
    for time_T, channel_D, length, seed in zip(time_BT, channel_BD, lens_B.tolist(), seeds, strict=True):
        rng = np.random.default_rng([*seed, 1])  # the 1 keeps these numbers apart from those of `spec_augment`
        _cover(time_T[:length], config.time, config.span_s * rate_hz, rng)
        _cover(channel_D, config.channel, config.band * len(channel_D), rng)
    cover_D = torch.zeros(x_BTD.shape[2]) if embedding_D is None else embedding_D
    x_BTD = torch.where(time_BT[:, :, None].to(x_BTD.device), cover_D.to(x_BTD), x_BTD)
    return x_BTD.masked_fill(channel_BD[:, None, :].to(x_BTD.device), 0.0)


def _cover(row: Tensor, share: float, span: float, rng: np.random.Generator) -> None:
    """Set spans of `row` to True: share * len(row) / span of them, rounded up or down at random (wav2vec 2.0)."""
    extra, steps = rng.random(), max(1, round(span))
    if share > 0 and len(row) > steps:  # a row of one span would be masked completely
        # the number of spans is real; adding u from [0, 1) and cutting off the fraction rounds it up with the probability
        # of its fraction, so that its mean is exact. Spans may overlap: less than `share` of the row is masked
        for place in rng.random(int(share * len(row) / span + extra)):
            start = int(place * (len(row) - steps + 1))  # each start that leaves room for the span is as likely
            row[start : start + steps] = True
