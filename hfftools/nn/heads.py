"""Map a stream x [B, T, F] to scores [B, T, U] of U units: the heads of the tasks. Padding changes no valid frame."""

from typing import Any

import torch
from torch import Tensor, nn

from hfftools.config import OptionError, at_least, between, one_of, share_below_one
from hfftools.nn.conformer import MOST_LAYERS, ConformerBlock
from hfftools.nn.mask import valid_mask


class LinearHead(nn.Module):
    """Apply LayerNorm and one linear layer; `dim` and `layers` have no effect, but all heads take the same arguments."""

    def __init__(self, in_dim: int, units: int, dim: int = 0, layers: int = 0, dropout: float = 0.0):
        super().__init__()
        self.norm, self.dropout, self.out = nn.LayerNorm(in_dim), nn.Dropout(dropout), nn.Linear(in_dim, units)

    def forward(self, x_BTF: Tensor, lens_B: Tensor) -> Tensor:
        return self.out(self.dropout(self.norm(x_BTF)))


class BlstmHead(nn.Module):
    """Apply LayerNorm, a bidirectional LSTM of `layers` layers with `dim` cells per direction, and a linear layer."""

    def __init__(self, in_dim: int, units: int, dim: int, layers: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        between = dropout if layers > 1 else 0.0  # torch warns of dropout between layers where there is one layer
        self.lstm = nn.LSTM(in_dim, dim, layers, batch_first=True, bidirectional=True, dropout=between)
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(2 * dim, units)

    def forward(self, x_BTF: Tensor, lens_B: Tensor) -> Tensor:
        # a length of 0, which packing refuses, counts as one frame, whose output nobody reads
        x_BTF, lens_B = self.norm(x_BTF), lens_B.clamp(min=1)
        if x_BTF.device.type == "cpu" and not torch.jit.is_tracing():
            return self.out(self.dropout(self._padded(x_BTF, lens_B)))
        # packed, so that the backward direction starts at the last valid frame and not in the padding
        packed = nn.utils.rnn.pack_padded_sequence(x_BTF, lens_B.cpu(), batch_first=True, enforce_sorted=False)
        y_BTH, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], True, total_length=x_BTF.shape[1])
        return self.out(self.dropout(y_BTH))

    def _padded(self, x_BTF: Tensor, lens_B: Tensor) -> Tensor:
        """Return what the LSTM gives for valid frames, [B, T, 2 cells], without packing.

        oneDNN runs padded sequences 1.5 to 1.6 times as fast as torch runs packed ones. The backward direction reads each
        utterance reversed within its own length, so that padding comes last in both directions and reaches no valid frame.
        """
        at_T = torch.arange(x_BTF.shape[1])
        mirror_BT1 = torch.where(at_T < lens_B[:, None], lens_B[:, None] - 1 - at_T, at_T)[:, :, None]
        weights: list[Any] = self.lstm._flat_weights  # torch declares its items as optional
        layers = self.lstm.num_layers
        # oneDNN has no bfloat16 LSTM on processors without AVX-512; packed sequences are in single precision too
        with torch.autocast("cpu", enabled=False):
            x_BTF = x_BTF.float()
            state_1BH = x_BTF.new_zeros(1, len(x_BTF), self.lstm.hidden_size)
            for layer in range(layers):
                ways = []
                for x, start in ((x_BTF, 8 * layer), (_gather(x_BTF, mirror_BT1), 8 * layer + 4)):
                    way = weights[start : start + 4]  # into the gates, from the state, and their biases
                    ways.append(torch.lstm(x, (state_1BH, state_1BH), way, True, 1, 0.0, self.training, False, True)[0])
                x_BTF = torch.cat([ways[0], _gather(ways[1], mirror_BT1)], dim=-1)
                if layer + 1 < layers:
                    x_BTF = nn.functional.dropout(x_BTF, self.lstm.dropout, self.training)
        return x_BTF


def _gather(x_BTF: Tensor, at_BT1: Tensor) -> Tensor:
    return x_BTF.gather(1, at_BT1.expand_as(x_BTF))


class ConformerHead(nn.Module):
    """Apply LayerNorm, a linear layer to `dim`, `layers` Conformer blocks of 4 heads, and a linear layer."""

    def __init__(self, in_dim: int, units: int, dim: int, layers: int, dropout: float):
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, dim), nn.Dropout(dropout))
        self.blocks = nn.ModuleList(ConformerBlock(dim, 4, dropout=dropout) for _ in range(layers))
        self.out = nn.Linear(dim, units)

    def forward(self, x_BTF: Tensor, lens_B: Tensor) -> Tensor:
        valid_BT = valid_mask(lens_B.clamp(min=1), x_BTF.shape[1])  # softmax over no key at all would be NaN
        x_BTD = self.enter(x_BTF)
        for block in self.blocks:
            x_BTD = block(x_BTD, valid_BT)
        return self.out(x_BTD)


HEADS: dict[str, type[nn.Module]] = {"linear": LinearHead, "blstm": BlstmHead, "conformer": ConformerHead}


def check_head(config: Any) -> None:
    """Raise OptionError where `head`, `head_dim`, `head_layers` or `dropout` of some options cannot be built."""
    one_of(config, HEADS, "head")
    at_least(config, 1, "head_dim")
    between(config, 1, MOST_LAYERS, "head_layers")
    if config.head == "conformer" and config.head_dim % 4:
        raise OptionError(f"head_dim: {config.head_dim} is no multiple of 4")
    share_below_one(config, "dropout")
