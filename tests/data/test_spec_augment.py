"""Masks follow from each utterance's seed, cover about the share asked for, and stand where the model learned them."""

import pytest
import torch

from hfftools.data.spec_augment import Masking, mask_spans
from hfftools.log import UserError

RATE_HZ = 50.0


def masked(x_BTD, lens, config, seeds=None, embedding=None):
    seeds = seeds or [(0, 0, row) for row in range(len(x_BTD))]
    return mask_spans(x_BTD, torch.tensor(lens), seeds, config, RATE_HZ, embedding)


def test_time_spans_become_the_embedding_and_bands_zero():
    x_BTD, embedding_D = torch.ones(4, 1000, 96), torch.full((96,), 7.0)
    y = masked(x_BTD, [1000, 1000, 1000, 500], Masking(time=0.3, span_s=0.2), embedding=embedding_D)
    covered_BT = (y == 7.0).all(2)
    assert ((y == 7.0) | (y == 1.0)).all() and not covered_BT[3, 500:].any()
    assert covered_BT[:3].float().mean().item() == pytest.approx(
        1 - 0.7408, abs=0.05
    )  # 1 - exp(-0.3), as spans overlap
    runs = "".join("x" if c else " " for c in covered_BT[0]).split()
    assert min(map(len, runs)) >= 10
    y = masked(x_BTD, [1000] * 4, Masking(channel=0.3, band=0.1))
    assert ((y == 0).all(1) | (y == 1).all(1)).all() and 0.1 < (y == 0).float().mean() < 0.4


def test_an_utterance_has_its_masks_whatever_batch_it_is_in():
    x_BTD, config = torch.randn(2, 300, 8), Masking(time=0.4, channel=0.3, band=0.25)
    both = masked(x_BTD, [300, 200], config, [(1, 2, 3), (1, 2, 4)])
    alone = masked(x_BTD[1:, :200], [200], config, [(1, 2, 4)])
    assert torch.equal(both[1, :200], alone[0])
    assert not torch.equal(both[1:], masked(x_BTD[1:], [200], config, [(1, 3, 4)]))


def test_none_is_none_and_shares_are_shares():
    x_BTD = torch.randn(2, 30, 8)
    assert torch.equal(masked(x_BTD, [30, 3], Masking()), x_BTD)
    with pytest.raises(UserError, match="time: 1.5"):
        Masking(time=1.5)
