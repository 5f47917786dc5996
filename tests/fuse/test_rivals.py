"""The other fusions: the initial output of each, its size, layers of two widths, and options that are refused."""

import pytest
import torch

from hfftools.config import plugin, plugin_names
from hfftools.fuse import concat, dynamic_sum, gated_sum, grouped, l_adapter, ladder, layer, weighted_sum
from hfftools.log import UserError
from hfftools.model import build_fusion

LENS_B = torch.tensor([7, 5])
TWO = {0: 16, 1: 16, 2: 24, 3: 24, 4: 24}  # layers of two upstreams


def states(dims):
    torch.manual_seed(0)
    return {layer: torch.randn(2, 7, dim) for layer, dim in dims.items()}


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "plug_in", [concat, dynamic_sum, gated_sum, grouped, weighted_sum], ids=lambda m: m.__name__.split(".")[-1]
)
@pytest.mark.parametrize("layers", [[0, 1, 2], [2, 5, 6, 9], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_initially_the_mean_of_the_layers(plug_in, layers):
    dims = dict.fromkeys(layers, 16)
    fuse, hidden = plug_in.Fuse(dims, plug_in.Config()), states(dims)
    x_BTF = fuse(hidden, LENS_B)
    assert fuse.out_dim == 16 and torch.allclose(x_BTF, torch.stack(list(hidden.values())).mean(0), atol=1e-6)


def test_concat_of_two_widths_starts_as_the_mean_of_the_first_and_trains_on_all():
    fuse, hidden = concat.Fuse(TWO, concat.Config()), states(TWO)
    x_BTF = fuse(hidden, LENS_B)
    assert torch.allclose(x_BTF, (hidden[0] + hidden[1]) / 2, atol=1e-6)
    x_BTF.square().sum().backward()
    assert all(part.abs().max() > 0 for part in fuse.project.weight.grad.split(list(TWO.values()), 1))
    assert torch.allclose(concat.Fuse(TWO, concat.Config(out_dim=24))(hidden, LENS_B),
                          (hidden[2] + hidden[3] + hidden[4]) / 3, atol=1e-6)  # fmt: skip
    narrow = concat.Fuse(TWO, concat.Config(out_dim=8))
    assert narrow(hidden, LENS_B).shape == (2, 7, 8) and count(narrow) == sum(TWO.values()) * 8 + 8


def test_groups_are_neighbours_each_with_its_own_softmax():
    dims = dict.fromkeys([1, 2, 4, 6, 7], 16)
    fuse, hidden = grouped.Fuse(dims, grouped.Config(groups=2)), states(dims)
    assert fuse.sizes == [3, 2] and count(fuse) == 5 + 2 * 16 * 16 + 16
    with torch.no_grad():
        fuse.logits_L += torch.tensor([3.0, 0.0, 0.0, 0.0, 1.0])
    low, high = fuse.logits_L[:3].softmax(0), fuse.logits_L[3:].softmax(0)
    sums = [low @ torch.stack([hidden[k] for k in (1, 2, 4)]).flatten(1),
            high @ torch.stack([hidden[k] for k in (6, 7)]).flatten(1)]  # fmt: skip
    expected = torch.cat([total.view(2, 7, 16) for total in sums], -1)
    assert torch.allclose(fuse(hidden, LENS_B), fuse.project(expected), atol=1e-5)
    weights = fuse.layer_weights()
    assert list(weights) == list(dims) and sum(weights.values()) == pytest.approx(1)
    assert weights[1] == pytest.approx(low[0].item() * 3 / 5) and weights[7] == pytest.approx(high[1].item() * 2 / 5)


def test_l_adapters_have_the_published_size():
    fuse = l_adapter.Fuse(dict.fromkeys(range(1, 13), 768), l_adapter.Config())
    assert count(fuse) == 12 * (768 * 512 + 512 + 2 * 512) + 12 and fuse.out_dim == 512
    assert l_adapter.Fuse({0: 768}, l_adapter.Config(width=0)).out_dim == 512


def test_l_adapters_take_layers_of_two_widths():
    fuse, hidden = l_adapter.Fuse(TWO, l_adapter.Config(width=8)), states(TWO)
    x_BTF = fuse(hidden, LENS_B)
    parts = [torch.nn.functional.layer_norm(fuse.adapters[k][:2](hidden[k]), (8,)) for k in TWO]
    assert torch.allclose(x_BTF, sum(parts) / 5, atol=1e-6)
    assert fuse.layer_weights() == pytest.approx(dict.fromkeys(TWO, 0.2))


@pytest.mark.parametrize("dims", [{3: 16}, dict.fromkeys(range(4), 16), TWO], ids=["one", "four", "two widths"])
def test_the_ladder_starts_as_the_last_layer_and_climbs_all(dims):
    fuse, hidden = ladder.Fuse(dims, ladder.Config()), states(dims)
    top = max(dims)
    assert fuse.out_dim == dims[top] and torch.equal(fuse(hidden, LENS_B), hidden[top])
    torch.nn.init.normal_(fuse.up.weight)
    fuse(hidden, LENS_B).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in fuse.parameters())


def test_the_size_of_the_ladder():
    """For 13 layers of 768, r = 96: 1.28 M."""
    fuse = ladder.Fuse(dict.fromkeys(range(13), 768), ladder.Config())
    entries, rungs = 13 * (2 * 768 + 768 * 96 + 96), 12 * (2 * 96 + 2 * (96 * 96 + 96))
    assert count(fuse) == entries + rungs + 12 + 96 * 768 + 768 and round(count(fuse) / 1e6, 2) == 1.28


@pytest.mark.parametrize("name", plugin_names("fuse"))
def test_layers_of_two_widths_are_fused_or_refused_as_the_fusion_declares(name):
    plug_in = plugin("fuse", name)
    dims = TWO if name != "layer" else {3: 24}
    if plug_in.Fuse.any_width:
        assert build_fusion(dims, plug_in.Config())(states(dims), LENS_B).shape[:2] == (2, 7)
    else:
        takers = "concat, hconv, hff, l_adapter, ladder, layer take any"
        with pytest.raises(UserError, match=f"'{name}' needs layers of one width, not of .16, 24.; {takers}"):
            build_fusion(dims, plug_in.Config())


def test_bad_options_are_refused():
    for plug_in, wrong in [(concat, dict(out_dim=-1)), (grouped, dict(groups=0)), (l_adapter, dict(width=-1)),
                           (ladder, dict(reduction=0))]:  # fmt: skip
        with pytest.raises(UserError, match="^(join|group|groups|reduction|out_dim|width): "):
            plug_in.Config(**wrong)
    with pytest.raises(UserError, match="fuse.groups: 3 groups cannot be made of 2 layers"):
        grouped.Fuse({0: 8, 1: 8}, grouped.Config())
    with pytest.raises(UserError, match="takes one layer"):
        layer.Fuse({0: 8, 1: 8}, layer.Config())
