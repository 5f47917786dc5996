"""Recognise speech by CTC (Graves et al. 2006): a loss or hypotheses from the fused stream x [B, T, F]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfftools.data.batch import Batch
from hfftools.decode.greedy import greedy, hypotheses
from hfftools.decode.hypothesis import Hypothesis
from hfftools.decode.search import CTC_BEAM, Search
from hfftools.nn.ctc import ctc_loss, frames_needed
from hfftools.nn.heads import HEADS, check_head
from hfftools.task.base import Recognition
from hfftools.text.units import Units

if TYPE_CHECKING:
    from hfftools.decode.beam import BeamSearch  # at run time it needs a package that only beam search needs


@dataclass(frozen=True)
class Config:
    name: str = "asr_ctc"
    head: str = "blstm"  # linear, blstm, or conformer
    head_dim: int = 256  # width of a hidden layer, in each direction for blstm
    head_layers: int = 2  # hidden layers
    dropout: float = 0.1  # in training

    def __post_init__(self):
        check_head(self)


class Task(Recognition):
    """A head over the fused stream and its CTC loss."""

    takes = ("lm", "lexicon")
    beam_size = CTC_BEAM
    exports = True

    def __init__(self, in_dim: int, units: Units, config: Config):
        super().__init__()
        self.units = units
        # the last beam search and its posteriors are kept, for the same search with other weights
        self._search: BeamSearch | None = None
        self._seen: tuple[Tensor, Tensor] | None = None
        self.head = HEADS[config.head](in_dim, len(units), config.head_dim, config.head_layers, config.dropout)

    def log_probs(self, x_BTF: Tensor, lens_B: Tensor) -> Tensor:
        """Return log posteriors [B, T, units], in single precision whatever the autocast."""
        return self.head(x_BTF, lens_B).float().log_softmax(-1)

    def loss(self, encode: Callable[[Batch], tuple[Tensor, Tensor]], batch: Batch) -> Tensor:
        """Return the negative log likelihood [B] of each utterance's units."""
        x_BTF, lens_B = encode(batch)
        return ctc_loss(self.log_probs(x_BTF, lens_B), lens_B, batch.targets_BL, batch.target_lens_B)

    def frames_needed(self, ids: list[int]) -> int:
        """Return the fewest frames with which the loss of these labels is finite."""
        return frames_needed(ids)

    @torch.no_grad()
    def predict(self, x_BTF: Tensor, lens_B: Tensor) -> list[str]:
        """Return the text of the best path of each utterance."""
        return [self.units.decode(ids) for ids in greedy(self.log_probs(x_BTF, lens_B), lens_B)]

    @torch.no_grad()
    def hypotheses(self, x_BTF: Tensor, lens_B: Tensor, search: Search | None = None) -> list[list[Hypothesis]]:
        """Return the n best hypotheses of each utterance, best first; that of the best path where `search` is None."""
        if search is None or search.name == "greedy":
            return hypotheses(self.log_probs(x_BTF, lens_B), lens_B, self.units)
        from hfftools.decode.beam import BeamSearch

        if self._search is None or not self._search.only_weighs(search):
            self._search = BeamSearch(self.units, search)
        self._search = self._search.reweigh(search)
        if self._seen is None or self._seen[0] is not x_BTF:
            self._seen = (x_BTF, self.log_probs(x_BTF, lens_B).cpu())
        return self._search(self._seen[1], lens_B)
