"""SpecAugment (Park et al., arXiv:1904.08779) on the fused stream: x [B, T, F] in, the same with spans zeroed out.

Masks follow from the numbers given for each utterance, so they do not depend on how utterances are batched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hfftools.log import require


@dataclass
class Config:
    time_masks: int = 2
    time_width: float = 0.05  # longest span of a time mask, as a share of the utterance
    channel_masks: int = 2
    channel_width: float = 0.1  # widest band of a channel mask, as a share of the width

    def __post_init__(self):
        for name, value in vars(self).items():
            require(value >= 0, f"augment.{name}: {value} is below 0")
        require(max(self.time_width, self.channel_width) <= 1, "augment: a width is a share, at most 1")


def spec_augment(x_BTF: Tensor, lens_B: Tensor, seeds: Sequence[Sequence[int]], config: Config) -> Tensor:
    """Zero random time spans and channel bands; `seeds` holds one sequence of integers for each utterance."""
    keep_BTF = torch.ones_like(x_BTF, dtype=torch.bool)
    width = x_BTF.shape[2]
    for keep_TF, length, seed in zip(keep_BTF, lens_B.tolist(), seeds, strict=True):
        rng = np.random.default_rng(list(seed))
        for _ in range(config.time_masks):
            span = int(rng.integers(int(config.time_width * length) + 1))
            start = int(rng.integers(max(1, length - span + 1)))
            keep_TF[start : start + span] = False
        for _ in range(config.channel_masks):
            span = int(rng.integers(int(config.channel_width * width) + 1))
            start = int(rng.integers(max(1, width - span + 1)))
            keep_TF[:, start : start + span] = False
    return x_BTF * keep_BTF
