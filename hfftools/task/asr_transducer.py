"""Recognise speech by a transducer (Graves, arXiv:1211.3711): a loss or hypotheses from the fused stream x [B, T, F].

All B·T·(L + 1)·V scores of a batch come from the joiner, for L labels and V units: memory and time grow with each of them.
Word pieces of some hundred units make L small; data.batch_seconds bounds B·T; task.joint_scores bounds what is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hfftools.config import at_least
from hfftools.data.batch import Batch
from hfftools.decode.hypothesis import Hypothesis
from hfftools.decode.search import TRANSDUCER_BEAM, Search
from hfftools.decode.transducer import greedy, readings
from hfftools.nn.ctc import ctc_loss, frames_needed
from hfftools.nn.heads import HEADS, check_head
from hfftools.nn.transducer import Transducer
from hfftools.task.base import Recognition
from hfftools.text.units import Units


@dataclass(frozen=True)
class Config:
    name: str = "asr_transducer"
    head: str = "blstm"  # of the encoder: linear, blstm, or conformer
    head_dim: int = 256  # width of a hidden layer, in each direction for blstm
    head_layers: int = 2  # hidden layers
    dropout: float = 0.1  # in training
    joint_dim: int = 256  # width of what encoder and prediction network put into the joiner
    context: int = 2  # units that the prediction network sees
    ctc: float = 1.0  # weight, in training, of a CTC loss on what the encoder puts out; 0: none
    symbols: int = 5  # units that a search lets come out in one frame, at most
    joint_scores: int = 20_000_000  # in memory at once, at some 25 bytes each; more are computed in parts, and twice

    def __post_init__(self):
        check_head(self)
        at_least(self, 1, "joint_dim", "context", "symbols", "joint_scores")
        at_least(self, 0, "ctc")


class Task(Recognition):
    """An encoder head over the fused stream, a prediction network and a joiner."""

    beam_size = TRANSDUCER_BEAM

    def __init__(self, in_dim: int, units: Units, config: Config):
        super().__init__()
        self.units, self.config = units, config
        self.head = HEADS[config.head](in_dim, config.joint_dim, config.head_dim, config.head_layers, config.dropout)
        self.net = Transducer(len(units), config.joint_dim, config.context, config.joint_scores)
        self.ctc = nn.Linear(config.joint_dim, len(units)) if config.ctc else None

    def loss(self, encode: Callable[[Batch], tuple[Tensor, Tensor]], batch: Batch) -> Tensor:
        """Return the negative log likelihood [B] of each utterance's units; in training plus that of CTC times its weight.

        Infinite where labels have no frame or, in training with CTC, fewer than CTC needs.
        """
        x_BTF, lens_B = encode(batch)
        f_BTJ = self.head(x_BTF, lens_B)
        loss_B = -self.net.log_likelihood(f_BTJ, lens_B, batch.targets_BL, batch.target_lens_B)
        if self.ctc is None or not self.training:
            return loss_B
        log_probs_BTV = self.ctc(f_BTJ).float().log_softmax(-1)
        return loss_B + self.config.ctc * ctc_loss(log_probs_BTV, lens_B, batch.targets_BL, batch.target_lens_B)

    def frames_needed(self, ids: list[int]) -> int:
        """Return the fewest frames with which the training loss of these labels is finite: without CTC, all fit into one."""
        return min(len(ids), 1) if self.ctc is None else frames_needed(ids)

    @torch.no_grad()
    def predict(self, x_BTF: Tensor, lens_B: Tensor) -> list[str]:
        """Return the text that greedy search finds for each utterance."""
        paths = greedy(self.net, self.head(x_BTF, lens_B), lens_B, self.config.symbols)
        return [self.units.decode(path.ids) for path in paths]

    @torch.no_grad()
    def hypotheses(self, x_BTF: Tensor, lens_B: Tensor, search: Search | None = None) -> list[list[Hypothesis]]:
        """Return hypotheses of each utterance, best first, scored by log P(units | x); without `search`, the greedy one.

        Raise UserError for a lexicon or a language model, which a transducer's search does not take.
        """
        search = search or Search()
        self.check_search(search)
        beam, nbest = search.name == "beam", search.nbest
        size = (search.beam_size or max(self.beam_size, nbest)) if beam else 0
        f_BTJ = self.head(x_BTF, lens_B)
        return readings(self.net, f_BTJ, lens_B, size, nbest, self.config.symbols, self.units.decode)
