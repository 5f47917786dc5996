"""Offer log-mel as an upstream without a model: its one state is 4 frames of 80 bins every 40 ms."""

from collections.abc import Mapping

from torch import nn

from hfftools.log import require
from hfftools.nn.logmel import HOP_SAMPLES, WINDOW_SAMPLES, LogMel
from hfftools.upstream.base import Upstream, model_digests
from hfftools.upstream.source import Source

STACK = 4  # frames of 10 ms side by side: as wide a step as hff_tiny's


class FbankUpstream(Upstream):
    """The baseline that every foundation model has to beat: no blocks, no parameters."""

    name = hash = "fbank"
    num_layers = 0
    stride_samples = STACK * HOP_SAMPLES
    middle_samples = WINDOW_SAMPLES / 2 + (STACK - 1) * HOP_SAMPLES / 2

    def __init__(self):
        super().__init__()
        self.logmel = LogMel()
        self.dim = STACK * self.logmel.num_mels
        self.eval()

    def blocks(self) -> nn.ModuleList:
        return nn.ModuleList()

    def front_end(self) -> list[nn.Module]:
        return []

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        return []

    def out_lens(self, num_samples_B):
        return self.logmel.out_lens(num_samples_B) // STACK

    def forward(self, wav_BN, num_samples_B, layers, augment=None):
        require(
            augment is None, "upstream fbank has no blocks, and nothing inside to mask; set mask.time=0 mask.channel=0"
        )
        mel_BTM, lens_B = self.logmel(wav_BN, num_samples_B)
        if mel_BTM.shape[1] < STACK:
            mel_BTM = nn.functional.pad(mel_BTM, (0, 0, 0, STACK - mel_BTM.shape[1]))
        x_BTD = mel_BTM[:, : mel_BTM.shape[1] // STACK * STACK].unflatten(1, (-1, STACK)).flatten(2)
        return {layer: x_BTD for layer in layers}, lens_B // STACK


class Door(Source):
    """The name `fbank`."""

    places: Mapping[str, str] = {}

    @classmethod
    def names(cls) -> list[str]:
        return [FbankUpstream.name]

    def digests(self) -> dict[str, str]:
        return model_digests(FbankUpstream.hash)

    def load(self) -> FbankUpstream:
        return FbankUpstream()
