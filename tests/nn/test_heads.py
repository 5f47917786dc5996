"""Heads: the two ways to run a bidirectional LSTM agree, and padding reaches no valid frame."""

import pytest
import torch
from torch import nn

from hfftools.nn.heads import BlstmHead

F, UNITS, CELLS = 6, 5, 4


def by_packing(head: BlstmHead, x_BTF, lens_B):
    packed = nn.utils.rnn.pack_padded_sequence(head.norm(x_BTF), lens_B, True, enforce_sorted=False)
    y_BTH, _ = nn.utils.rnn.pad_packed_sequence(head.lstm(packed)[0], True, total_length=x_BTF.shape[1])
    return head.out(y_BTH)


@pytest.mark.parametrize("layers", [1, 3])
def test_padded_sequences_give_what_packed_ones_give(layers):
    torch.manual_seed(0)
    head = BlstmHead(F, UNITS, CELLS, layers, dropout=0.0)
    x_BTF, lens_B = torch.randn(4, 9, F), torch.tensor([9, 1, 6, 3])
    valid_BT = torch.arange(9) < lens_B[:, None]
    found = {}
    for name, run in (("padded", head), ("packed", lambda x, lens: by_packing(head, x, lens))):
        head.zero_grad()
        y_BTU = run(x_BTF, lens_B)[valid_BT]
        y_BTU.square().sum().backward()
        found[name] = [y_BTU.detach(), *(p.grad.clone() for p in head.parameters())]
    for padded, packed in zip(*found.values(), strict=True):
        torch.testing.assert_close(padded, packed, atol=1e-5, rtol=1e-4)


def test_what_stands_in_the_padding_does_not_matter():
    torch.manual_seed(0)
    head, lens_B = BlstmHead(F, UNITS, CELLS, 2, dropout=0.0), torch.tensor([7, 4])
    x_BTF = torch.randn(2, 7, F)
    other_BTF = x_BTF.clone()
    other_BTF[1, 4:] = 100.0
    torch.testing.assert_close(head(x_BTF, lens_B)[1, :4], head(other_BTF, lens_B)[1, :4], atol=1e-6, rtol=0)


def test_dropout_acts_between_the_layers_in_training_only():
    torch.manual_seed(0)
    head, x_BTF, lens_B = BlstmHead(F, UNITS, CELLS, 2, dropout=0.5), torch.randn(1, 5, F), torch.tensor([5])
    assert not torch.equal(head._padded(x_BTF, lens_B), head._padded(x_BTF, lens_B))
    head.eval()
    assert torch.equal(head._padded(x_BTF, lens_B), head._padded(x_BTF, lens_B))
