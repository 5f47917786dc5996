"""HConv: its published size, its shape for any number of layers, and an independent computation."""

import pytest
import torch

from hfftools.fuse import hconv


def test_its_size_is_the_published_one():
    """4.42 M for 13 layers of 768: 768 -> 768 and 768 -> 384 channels of kernel 5, two layers left, no projection."""
    fuse = hconv.Fuse(dict.fromkeys(range(13), 768), hconv.Config())
    count = sum(p.numel() for p in fuse.parameters())
    assert count == 768 * 768 * 5 + 768 + 768 * 384 * 5 + 384 and round(count / 1e6, 2) == 4.42
    assert fuse.project is None


@pytest.mark.parametrize(
    "layers, blocks, projected",
    [
        (1, 0, True),
        (2, 0, True),
        (3, 1, False),
        (4, 1, False),
        (8, 1, True),
        (9, 2, False),
        (25, 2, True),
        (27, 3, False),
    ],
)
def test_any_number_of_layers_comes_out_as_wide_as_one(layers, blocks, projected):
    dims = dict.fromkeys(range(layers), 16)
    fuse = hconv.Fuse(dims, hconv.Config())
    assert (len(fuse.blocks), fuse.project is not None) == (2 * blocks, projected)
    hidden = {layer: torch.randn(2, 7, 16) for layer in dims}
    assert fuse(hidden, torch.tensor([7, 5])).shape == (2, 7, 16) and fuse.out_dim == 16


def test_it_is_a_convolution_over_the_layers_of_each_frame():
    fuse = hconv.Fuse(dict.fromkeys([1, 3, 5, 6], 8), hconv.Config())
    hidden = {layer: torch.randn(2, 7, 8) for layer in [1, 3, 5, 6]}
    x_BTF = fuse(hidden, torch.tensor([7, 5]))
    weight, bias = fuse.blocks[0].weight, fuse.blocks[0].bias
    padded = [torch.zeros(8)] * 2 + [hidden[layer][1, 4] for layer in [1, 3, 5, 6]] + [torch.zeros(8)] * 3
    steps = [sum(weight[:, :, k] @ padded[start + k] for k in range(5)) + bias for start in (0, 3)]
    assert torch.allclose(x_BTF[1, 4], torch.stack(steps, 1).relu().flatten(), atol=1e-5)
