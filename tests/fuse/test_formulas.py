"""Check each fusion against its paper's equation, written out in plain torch over random parameters.

Initial values of zero hide a lost activation, residual or sign, so every parameter is drawn anew, and sizes are such that
no factor is 1. Everything is in double precision. B batch, T frames, D width of a layer, F of the stream, L layers.
"""

import math
from pathlib import Path

import pytest
import torch

import hfftools.fuse
from hfftools.config import plugin, plugin_names
from hfftools.fuse import concat, dynamic_sum, gated_sum, grouped, hconv, hff, l_adapter, ladder, layer, weighted_sum
from hfftools.model import build_fusion

FRAMES = [7, 5]
LENS_B = torch.tensor(FRAMES)
ALIKE = dict.fromkeys([1, 2, 4, 5, 7], 8)  # layers of one upstream, not all of them
DIFFERENT = {0: 8, 1: 8, 3: 12, 4: 12}  # layers of two upstreams


def build(plug_in, dims, **options):
    """Return a fusion with random parameters, and random states of layers for it."""
    torch.manual_seed(0)
    fuse = plug_in.Fuse(dims, plug_in.Config(**options)).double()
    with torch.no_grad():
        for parameter in fuse.parameters():
            parameter.normal_(0.0, 0.7)
    return fuse, {number: torch.randn(2, 7, dim, dtype=torch.float64) for number, dim in dims.items()}


def check(fuse, hidden, expected_BTF):
    """Compare the valid frames of a fusion's output with those expected; its width is the one that it announces."""
    x_BTF = fuse(hidden, LENS_B)
    assert x_BTF.shape == expected_BTF.shape == (2, 7, fuse.out_dim)
    for row, frames in enumerate(FRAMES):
        torch.testing.assert_close(x_BTF[row, :frames], expected_BTF[row, :frames])


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x, norm=None):
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normed if norm is None else norm.weight * normed + norm.bias


def affine(x, linear):
    return x @ linear.weight.T + linear.bias


def shares(logits):
    return logits.exp() / logits.exp().sum()


def mix(logits, states):
    """Return the sum of states, each times the softmax of its logit."""
    return torch.einsum("l,lbtd->btd", shares(logits), torch.stack(list(states)))


@pytest.mark.parametrize("out_dim", [0, 5])
def test_concat_is_one_projection_of_all_layers(out_dim):
    """Check x = Σ W_l h_l + b, where W = [W_0 … W_L] side by side."""
    fuse, hidden = build(concat, DIFFERENT, out_dim=out_dim)
    starts = [0, 8, 16, 28]
    weights = [
        fuse.project.weight[:, start : start + h.shape[-1]] for start, h in zip(starts, hidden.values(), strict=True)
    ]
    check(fuse, hidden, sum(h @ w.T for w, h in zip(weights, hidden.values(), strict=True)) + fuse.project.bias)


def test_grouped_is_a_projection_of_one_weighted_sum_a_group():
    """Check x = W [Σ softmax(a)_l h_l ; Σ softmax(b)_l h_l] + b, over three low and two high layers."""
    fuse, hidden = build(grouped, ALIKE, groups=2)
    states = list(hidden.values())
    low, high = mix(fuse.logits_L[:3], states[:3]), mix(fuse.logits_L[3:], states[3:])
    weight = fuse.project.weight
    check(fuse, hidden, low @ weight[:, :8].T + high @ weight[:, 8:].T + fuse.project.bias)


@pytest.mark.parametrize("layers, dim", [(2, 7), (4, 8), (5, 7), (9, 7)])
def test_hconv_is_convolutions_with_relu_over_the_layers(layers, dim):
    """Check floor(log_3 L) times ReLU(b + Σ_k W_k h_(3j+k-2)), flattened, and projected where that is not D wide.

    arXiv:2406.12209. Two layers have no block and a projection, four a block and none, five both, nine two blocks.
    """
    fuse, hidden = build(hconv, dict.fromkeys(range(layers), dim))
    columns = list(hidden.values())  # what is left of the layer axis
    convs = [block for block in fuse.blocks if isinstance(block, torch.nn.Conv1d)]
    assert len(convs) == {2: 0, 4: 1, 5: 1, 9: 2}[layers]
    for conv in convs:
        pad = [torch.zeros_like(columns[0])] * 2
        padded, starts = [*pad, *columns, *pad], range(0, len(columns), 3)
        taps = [
            [padded[start + k] @ conv.weight[:, :, k].T for k in range(5) if start + k < len(padded)]
            for start in starts
        ]
        columns = [(sum(tap) + conv.bias).clamp(min=0) for tap in taps]
    x_BTF = torch.stack(columns, -1).flatten(2)  # channel by channel
    projected = layers in (2, 5)
    assert (fuse.project is not None) == projected
    check(fuse, hidden, affine(x_BTF, fuse.project) if projected else x_BTF)


def test_hconv_of_two_widths_projects_the_others_to_the_first():
    """Check ReLU(b + Σ_k W_k g_(3j+k-2)) over g = h_0, h_1, P_3 h_3, P_4 h_4 (arXiv:2511.08389, our reconstruction)."""
    fuse, hidden = build(hconv, DIFFERENT)
    assert list(fuse.enter) == ["3", "4"]
    zero, (conv, _) = torch.zeros(2, 7, 8, dtype=torch.float64), fuse.blocks
    alike = [hidden[0], hidden[1], affine(hidden[3], fuse.enter["3"]), affine(hidden[4], fuse.enter["4"])]
    padded = [zero, zero, *alike, zero, zero]
    taps = [sum(padded[start + k] @ conv.weight[:, :, k].T for k in range(5)) for start in (0, 3)]
    check(fuse, hidden, torch.stack([(tap + conv.bias).clamp(min=0) for tap in taps], -1).flatten(2))


def scores(fuse, hidden):
    """Return a_l + w_l · LN(h_lt) of each layer and frame, [L, B, T]."""
    return torch.stack(
        [a + (layer_norm(h) * w).sum(-1) for a, w, h in zip(fuse.a_L, fuse.w_LD, hidden.values(), strict=True)]
    )


def test_dynamic_sum_weighs_the_layers_of_each_frame_by_its_states():
    """Check x_t = Σ softmax_l(a_l + w_l · LN(h_lt)) h_lt, after arXiv:2508.12061."""
    fuse, hidden = build(dynamic_sum, ALIKE)
    powers = scores(fuse, hidden).exp()
    check(fuse, hidden, torch.einsum("lbt,lbtd->btd", powers / powers.sum(0), torch.stack(list(hidden.values()))))


def test_gated_sum_has_a_sigmoid_for_each_layer():
    """Check x_t = 2/L Σ σ(a_l + w_l · LN(h_lt)) h_lt, after arXiv:2509.03409."""
    fuse, hidden = build(gated_sum, ALIKE)
    gates = 1 / (1 + (-scores(fuse, hidden)).exp())
    check(fuse, hidden, 2 / 5 * torch.einsum("lbt,lbtd->btd", gates, torch.stack(list(hidden.values()))))


def over_time(x_BTd, conv, kernel):
    """Return a depthwise convolution of odd kernel over the valid frames, with zeros beyond both ends."""
    out = torch.zeros_like(x_BTd)
    for row, frames in enumerate(FRAMES):
        for t in range(frames):
            near = [(k, t + k - kernel // 2) for k in range(kernel)]
            taps = [conv.weight[:, 0, k] * x_BTd[row, s] for k, s in near if 0 <= s < frames]
            out[row, t] = sum(taps) + conv.bias
    return out


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "bare"])
@pytest.mark.parametrize("time_kernel", [0, 3])
@pytest.mark.parametrize("how", ["concat", "add", "weighted"])
def test_hff_is_a_tree_of_joins(how, time_kernel, residual):
    """Check node_l = W LN(h_l); node = LN(GELU(z + conv(z))), z the join of its neighbours; x = Σ softmax(a)_l h_l + W node.

    Our reconstruction of arXiv:2211.02712: five layers in pairs are three, two, one nodes.
    """
    options = dict(join=how, time_kernel=time_kernel, residual=residual)
    fuse, hidden = build(hff, ALIKE, width=3, **options, out_dim=8 if residual else 5)

    def join(part, nodes):
        if how == "concat":
            blocks = part.mix.weight.split(3, 1)
            z_BTd = sum(node @ block.T for node, block in zip(nodes, blocks, strict=True)) + part.mix.bias
        elif how == "add":
            z_BTd = torch.stack(nodes).sum(0)
        else:
            z_BTd = mix(part.logits_G, nodes)
        if time_kernel:
            z_BTd = z_BTd + over_time(z_BTd, part.time, 3)
        return layer_norm(gelu(z_BTd), part.norm)

    (a, b, c), (d, e), (top,) = fuse.levels
    n = [affine(layer_norm(h, enter[0]), enter[1]) for h, enter in zip(hidden.values(), fuse.enter, strict=True)]
    low, middle, high = join(a, n[:2]), join(b, n[2:4]), join(c, n[4:])
    node_BTd = join(top, [join(d, [low, middle]), join(e, [high])])
    expected = affine(node_BTd, fuse.out)
    check(fuse, hidden, mix(fuse.sum.logits_L, hidden.values()) + expected if residual else expected)


def test_hff_of_two_widths_sums_the_layers_of_the_first():
    """Check x = Σ softmax(a)_l h_l over the layers as wide as the first, + W node, joined in threes: two nodes, then one."""
    fuse, hidden = build(hff, DIFFERENT, group=3)
    n = [affine(layer_norm(h, enter[0]), enter[1]) for h, enter in zip(hidden.values(), fuse.enter, strict=True)]
    (a, b), (top,) = fuse.levels
    low, high = (layer_norm(gelu(affine(torch.cat(nodes, -1), p.mix)), p.norm) for p, nodes in ((a, n[:3]), (b, n[3:])))
    node_BTd = layer_norm(gelu(affine(torch.cat([low, high], -1), top.mix)), top.norm)
    check(fuse, hidden, mix(fuse.sum.logits_L, [hidden[0], hidden[1]]) + affine(node_BTd, fuse.out))


def test_l_adapters_are_summed_after_gelu_and_norm():
    """Check x = Σ softmax(w)_l LN(GELU(W_l h_l + b_l)), arXiv:2212.02780."""
    fuse, hidden = build(l_adapter, DIFFERENT, width=5)
    linears = [adapter[0] for adapter in fuse.adapters]
    norms = [m for m in fuse.modules() if isinstance(m, torch.nn.LayerNorm)]
    parts = zip(hidden.values(), linears, norms, strict=True)
    check(fuse, hidden, mix(fuse.sum.logits_L, [layer_norm(gelu(affine(h, w)), norm) for h, w, norm in parts]))


def test_the_ladder_climbs_by_gates_and_rungs():
    """Check s_l = rung(g_l s_(l-1) + (1 - g_l) W_l LN(h_l)), rung(s) = s + W' GELU(W LN(s)), x = h_L + W s_L.

    arXiv:2206.06522 with our small adapters as rungs; g_l is the sigmoid of a scalar.
    """
    fuse, hidden = build(ladder, DIFFERENT, reduction=4)
    enter = [affine(layer_norm(h, part[0]), part[1]) for h, part in zip(hidden.values(), fuse.enter, strict=True)]
    s_BTr = enter[0]
    for number, rung in enumerate(fuse.rungs):
        gate = 1 / (1 + (-fuse.gates_R[number]).exp())
        s_BTr = gate * s_BTr + (1 - gate) * enter[number + 1]
        s_BTr = s_BTr + affine(gelu(affine(layer_norm(s_BTr, rung.norm), rung.down)), rung.up)
    assert s_BTr.shape[-1] == 3 and len(fuse.rungs) == 3
    check(fuse, hidden, hidden[4] + affine(s_BTr, fuse.up))


def test_layer_is_its_one_layer():
    """Check x = h_l."""
    fuse, hidden = build(layer, {5: 8}, layers=[5])
    assert fuse.out_dim == 8 and torch.equal(fuse({**hidden, 7: -hidden[5]}, LENS_B), hidden[5])


def test_weighted_sum_is_a_softmax_over_the_layers():
    """Check x = Σ softmax(w)_l h_l, arXiv:2105.01051."""
    fuse, hidden = build(weighted_sum, ALIKE)
    check(fuse, hidden, mix(fuse.sum.logits_L, hidden.values()))
    assert fuse.layer_weights() == pytest.approx(dict(zip(ALIKE, shares(fuse.sum.logits_L).tolist(), strict=True)))


@pytest.mark.parametrize("name", plugin_names("fuse"))
def test_with_normalize_a_fusion_sees_normalised_layers(name):
    """Check that `normalize` gives what the fusion computes of LN(h_l) without gain and bias, whatever the scale of h_l."""
    plug_in, dims = plugin("fuse", name), {5: 8} if name == "layer" else ALIKE
    torch.manual_seed(0)
    fuse = build_fusion(dims, plug_in.Config(normalize=True)).double()
    with torch.no_grad():
        for parameter in fuse.parameters():
            parameter.normal_(0.0, 0.7)
    hidden = {number: number + 3.0**number * torch.randn(2, 7, dim).double() for number, dim in dims.items()}
    expected_BTF = fuse.forward({number: layer_norm(h) for number, h in hidden.items()}, LENS_B)  # without the hook
    check(fuse, hidden, expected_BTF)
    plain = plug_in.Fuse(dims, plug_in.Config()).double()
    plain.load_state_dict(fuse.state_dict())
    assert not torch.allclose(plain(hidden, LENS_B), expected_BTF)


FORMULAS = {  # the module's file name, and its tests in this file
    "concat": [test_concat_is_one_projection_of_all_layers],
    "dynamic_sum": [test_dynamic_sum_weighs_the_layers_of_each_frame_by_its_states],
    "gated_sum": [test_gated_sum_has_a_sigmoid_for_each_layer],
    "grouped": [test_grouped_is_a_projection_of_one_weighted_sum_a_group],
    "hconv": [
        test_hconv_is_convolutions_with_relu_over_the_layers,
        test_hconv_of_two_widths_projects_the_others_to_the_first,
    ],
    "hff": [test_hff_is_a_tree_of_joins, test_hff_of_two_widths_sums_the_layers_of_the_first],
    "l_adapter": [test_l_adapters_are_summed_after_gelu_and_norm],
    "ladder": [test_the_ladder_climbs_by_gates_and_rungs],
    "layer": [test_layer_is_its_one_layer],
    "weighted_sum": [test_weighted_sum_is_a_softmax_over_the_layers],
}
ON_DISK = sorted(p.stem for p in Path(hfftools.fuse.__file__).parent.glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", sorted({*ON_DISK, *FORMULAS}))
def test_every_module_on_disk_has_a_formula(name):
    assert name in ON_DISK, f"tests/fuse/test_formulas.py: FORMULAS names '{name}', which hfftools/fuse has no file for"
    assert FORMULAS.get(name), f"hfftools/fuse/{name}.py has no formula test; add one to tests/fuse/test_formulas.py"
