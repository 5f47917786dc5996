"""The contract of every foundation model: waveforms and lengths in, the hidden states asked for and their lengths out."""

from collections.abc import Sequence

from torch import Tensor, nn


class Upstream(nn.Module):
    """A foundation model. State 0 is what enters its first block; state l is what block l puts out.

    Attributes: `name`; `num_layers`, the number of blocks L, so that states 0..L exist; `dim`, the width D of each;
    `stride_samples`, samples per frame; `hash`, a digest of the weights that tells one model from another.
    """

    name: str
    num_layers: int
    dim: int
    stride_samples: int
    hash: str

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        """Valid frames [B] from samples [B], by the front end's own convolution formula."""
        raise NotImplementedError

    def forward(self, wav_BN: Tensor, num_samples_B: Tensor, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        """{layer: h [B, T, D]} for the layers asked for, and lengths [B]; nothing above the highest is computed.

        `wav_BN` is float, 16 kHz, mono; samples beyond `num_samples_B` are padding and change no valid frame.
        """
        raise NotImplementedError

    @property
    def all_layers(self) -> list[int]:
        return list(range(self.num_layers + 1))

    @property
    def frame_rate_hz(self) -> float:
        return 16000 / self.stride_samples

    def blocks(self) -> nn.ModuleList:
        """The L blocks, lowest first: where a tune method grafts its parts."""
        raise NotImplementedError
