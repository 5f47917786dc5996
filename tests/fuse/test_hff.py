"""The HFF tree: its shape, its published size, its options."""

import math

import pytest
import torch

from hfftools.fuse import hff
from hfftools.log import UserError


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("layers", [1, 2, 3, 5, 9, 13, 24])
@pytest.mark.parametrize("group", [2, 3, 4])
def test_the_tree_ends_in_one_node(layers, group):
    fuse = hff.Fuse(dict.fromkeys(range(layers), 16), hff.Config(group=group))
    assert len(fuse.levels) == (0 if layers == 1 else math.ceil(round(math.log(layers, group), 9)))
    hidden = {layer: torch.randn(2, 7, 16) for layer in range(layers)}
    assert fuse(hidden, torch.tensor([7, 5])).shape == (2, 7, 16)


def test_its_size_is_that_derived_for_24_layers_of_1024():
    """12, 6, 3, then 2 and 1 joins (one of a single node); about 1.6 % of a 600 M encoder, as methods' arithmetic has it."""
    fuse = hff.Fuse(dict.fromkeys(range(24), 1024), hff.Config(residual=False))
    nodes = 24 * (2 * 1024 + 1024 * 256 + 256)
    pair, single = 2 * 256 * 256 + 256 + 512, 256 * 256 + 256 + 512
    out = 256 * 1024 + 1024
    assert count(fuse) == nodes + (12 + 6 + 3 + 1 + 1) * pair + single + out
    assert abs(count(fuse) - 9.6e6) < 0.2e6


@pytest.mark.parametrize("join", ["concat", "add", "weighted"])
def test_every_way_to_join_trains(join):
    fuse = hff.Fuse({0: 16, 1: 16, 2: 16}, hff.Config(join=join, residual=False, time_kernel=3))
    hidden = {layer: torch.randn(2, 7, 16) for layer in range(3)}
    fuse(hidden, torch.tensor([7, 5])).square().sum().backward()
    single = [n for n, _ in fuse.named_parameters() if n == "levels.0.1.logits_G"]  # softmax over one node is 1
    assert all(p.grad.abs().max() > 0 for n, p in fuse.named_parameters() if n not in single)


@pytest.mark.parametrize("wrong", [dict(join="mix"), dict(group=1), dict(time_kernel=2), dict(out_dim=8)])
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError, match=r"^(fuse\.\w+|join|group): "):
        hff.Fuse({0: 16, 1: 16}, hff.Config(**wrong))


def test_of_two_widths_it_starts_as_the_weighted_sum_of_the_first():
    dims = {0: 16, 1: 16, 3: 24, 4: 24}
    fuse = hff.Fuse(dims, hff.Config())
    hidden = {layer: torch.randn(2, 7, dim) for layer, dim in dims.items()}
    lens_B = torch.tensor([7, 5])
    assert fuse.out_dim == 16 and fuse.layer_weights() == {0: 0.5, 1: 0.5}
    assert torch.allclose(fuse(hidden, lens_B), (hidden[0] + hidden[1]) / 2, atol=1e-6)
    torch.nn.init.normal_(fuse.out.weight)
    fuse(hidden, lens_B).square().sum().backward()
    assert all(enter[1].weight.grad.abs().max() > 0 for enter in fuse.enter)
