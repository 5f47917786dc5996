"""Check each way to tune against its paper's equation, written out in plain torch over random parameters.

Initial values of zero hide a lost activation, residual or scale, so every trainable parameter is drawn anew, and sizes are
such that no factor is 1. Everything is in double precision. B batch, T frames, D width, C channels, P rows of a prefix.
"""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import hfftools.tune
from hfftools.nn.adapter import Bottleneck
from hfftools.nn.attention import Prefix
from hfftools.tune import adapter_bias, bitfit, compacter, conv_adapter, frozen, full, houlsby, lora, prefix
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig

DIM, HEADS, WIDE = 12, 2, 36  # of the upstream: width, heads of the attention, width inside its feed-forwards
VALID_BT = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])


@pytest.fixture
def upstream() -> ConformerUpstream:
    """Build a frozen encoder of two narrow blocks with random weights."""
    torch.manual_seed(0)
    sizes = EncoderConfig(dim=DIM, layers=2, heads=HEADS, expansion=WIDE // DIM, kernel=3, num_mels=8)
    return randomise(ConformerUpstream(sizes).double()).requires_grad_(False).eval()


def randomise(module):
    """Draw every parameter anew from a normal distribution, small enough that no activation saturates."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module


def tuned(upstream, plug_in, config):
    """Apply a plug-in to a copy and return the copy, with random values in all that trains."""
    model = copy.deepcopy(upstream)
    plug_in.apply(model, config)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.5)
    return model.eval()


def the(kind, module):
    """Return the only part of this class inside a module."""
    (part,) = [m for m in module.modules() if isinstance(m, kind)]
    return part


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return norm.weight * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + norm.bias


def affine(x, linear):
    return x @ linear.weight.T + linear.bias


def bottleneck(y, part):
    """Return A(y), the adapter of Houlsby et al. without its residual."""
    return affine(gelu(affine(y, part.down)), part.up)


def sublayers(block, x_BTD):
    """Return what the attention and the second feed-forward of a block put out."""
    return {"attention": block.attention(x_BTD, VALID_BT), "feed_forward": block.feed_forward_out(x_BTD)}


def places(block):
    return {"attention": block.attention, "feed_forward": block.feed_forward_out}


def test_adapter_bias_adds_v_times_alpha_of_the_output(upstream):
    """Check y + v α(y), arXiv:2205.00305, where α is a linear map to one number and nothing else."""
    module = randomise(adapter_bias.Shift(DIM, DIM, residual=True).double())
    y_BTD = random(2, 7, DIM)
    alpha_BT = y_BTD @ module.alpha.weight[0] + module.alpha.bias
    torch.testing.assert_close(module(y_BTD), y_BTD + alpha_BT[:, :, None] * module.v_D)
    model = tuned(upstream, adapter_bias, adapter_bias.Config())
    for block, base in zip(model.blocks(), upstream.blocks(), strict=True):
        shift, x_BTD = the(adapter_bias.Shift, block), random(2, 7, DIM)
        y_BTD = base.feed_forward_out(x_BTD)
        alpha_BT = y_BTD @ shift.alpha.weight[0] + shift.alpha.bias
        torch.testing.assert_close(block.feed_forward_out(x_BTD), y_BTD + alpha_BT[:, :, None] * shift.v_D)


def test_adapter_bias_of_the_intermediate_layer(upstream):
    """Check W_down z + b + v α(z), with α over the wide layer z, as released with arXiv:2210.06175."""
    module = randomise(adapter_bias.Shift(WIDE, DIM, residual=False).double())
    z_BTW = random(2, 7, WIDE)
    alpha_BT = z_BTW @ module.alpha.weight[0] + module.alpha.bias
    torch.testing.assert_close(module(z_BTW), alpha_BT[:, :, None] * module.v_D)
    model = tuned(upstream, adapter_bias, adapter_bias.Config(form="intermediate"))
    for block, base in zip(model.blocks(), upstream.blocks(), strict=True):
        shift = the(adapter_bias.Shift, block)
        alpha_BT = z_BTW @ shift.alpha.weight[0] + shift.alpha.bias
        expected = affine(z_BTW, base.feed_forward_out.down) + alpha_BT[:, :, None] * shift.v_D
        torch.testing.assert_close(block.feed_forward_out.down(z_BTW), expected)


def test_compacter_is_a_bottleneck_of_sums_of_kronecker_products(upstream):
    """Check y + W_up GELU(W_down y), each W = Σ A_i ⊗ (s_i t_i) with one A for all adapters, arXiv:2106.04647."""

    def layer(x, part):
        products = [torch.kron(a, s @ t) for a, s, t in zip(part.rule_nnn, part.s, part.t, strict=True)]
        return x @ sum(products) + part.bias

    config = compacter.Config(width=6, products=3, rank=2, train_norms=False)
    single = randomise(compacter.Hypercomplex(nn.Parameter(torch.empty(3, 3, 3)), DIM, 6, rank=2, zero=True).double())
    x_BTD = random(2, 7, DIM)
    torch.testing.assert_close(single(x_BTD), layer(x_BTD, single))
    model = tuned(upstream, compacter, config)
    for block, base in zip(model.blocks(), upstream.blocks(), strict=True):
        outputs = sublayers(block, x_BTD)
        for place, y_BTD in sublayers(base, x_BTD).items():
            part = the(compacter.Compact, places(block)[place])
            torch.testing.assert_close(outputs[place], y_BTD + layer(gelu(layer(y_BTD, part.down)), part.up))
    assert len({id(m.rule_nnn) for m in model.modules() if isinstance(m, compacter.Hypercomplex)}) == 1


def test_conv_adapter_adds_a_hundredth_of_a_bottleneck_of_convolutions(upstream):
    """Check conv(x) + 0.01 W_up GELU(W_down x), arXiv:2212.01282, W_down with the kernel, stride and padding of conv."""

    def adapter(x, part, stride, padding):
        narrow = gelu(nn.functional.conv1d(x, part.down.weight, part.down.bias, stride, padding))
        return torch.einsum("oc,bct->bot", part.up.weight[:, :, 0], narrow) + part.up.bias[:, None]

    conv = nn.Conv1d(8, 10, 3, stride=2, padding=1)
    single, x_BCT = randomise(conv_adapter.ConvAdapter(conv, 4, 0.3).double()), random(2, 8, 15)
    torch.testing.assert_close(single(x_BCT), 0.3 * adapter(x_BCT, single, 2, 1))
    flat = randomise(conv_adapter.ConvAdapter(nn.Conv2d(8, 8, 3, 2, 1, groups=8), 4, 0.3).double())
    x_BCTM = random(2, 8, 15, 6)  # time and bins, as Parakeet has them
    narrow = gelu(nn.functional.conv2d(x_BCTM, flat.down.weight, flat.down.bias, 2, 1))
    expected = torch.einsum("oc,bctm->botm", flat.up.weight[:, :, 0, 0], narrow) + flat.up.bias[:, None, None]
    torch.testing.assert_close(flat(x_BCTM), 0.3 * expected)
    model = tuned(upstream, conv_adapter, conv_adapter.Config(width=4, block_width=5))
    for name, channels in (("conv1", 8), ("conv2", DIM)):
        x_BCT, grafted = random(2, channels, 15), getattr(model.subsample, name)
        part = the(conv_adapter.ConvAdapter, grafted)
        expected = getattr(upstream.subsample, name)(x_BCT) + 0.01 * adapter(x_BCT, part, 2, 0)
        torch.testing.assert_close(grafted(x_BCT), expected)
    x_BTD = random(2, 7, DIM)
    for block, base in zip(model.blocks(), upstream.blocks(), strict=True):
        y_BTD, part = base.feed_forward_out(x_BTD), the(Bottleneck, block)
        torch.testing.assert_close(block.feed_forward_out(x_BTD), y_BTD + bottleneck(y_BTD, part))


@pytest.mark.parametrize("inner_norm", [False, True])
def test_houlsby_is_a_residual_bottleneck(upstream, inner_norm):
    """Check y + W_up GELU(W_down y), arXiv:1902.00751; with `inner_norm` y + LN(W_up GELU(W_down y)), arXiv:2202.03218."""

    def adapter(y, part):
        return y + (layer_norm(bottleneck(y, part), part.norm) if inner_norm else bottleneck(y, part))

    single, x_BTD = randomise(Bottleneck(DIM, 5, inner_norm).double()), random(2, 7, DIM)
    torch.testing.assert_close(single(x_BTD), adapter(x_BTD, single))
    model = tuned(upstream, houlsby, houlsby.Config(width=5, inner_norm=inner_norm, train_norms=False))
    for block, base in zip(model.blocks(), upstream.blocks(), strict=True):
        outputs = sublayers(block, x_BTD)
        for place, y_BTD in sublayers(base, x_BTD).items():
            torch.testing.assert_close(outputs[place], adapter(y_BTD, the(Bottleneck, places(block)[place])))


PROJECTIONS = {"q": "attention.q_proj", "k": "attention.k_proj", "v": "attention.v_proj", "out": "attention.out_proj",
               "up": "feed_forward_out.up", "down": "feed_forward_out.down"}  # fmt: skip


def low_rank(upstream, variant):
    """Yield (frozen linear layer, what stands for it, its part, an input) of every projection, with alpha / rank = 2.5."""
    config = lora.Config(variant=variant, projections=list(PROJECTIONS), rank=2, alpha=5.0)
    model = tuned(upstream, lora, config)
    for block, base in zip(model.blocks(), upstream.blocks(), strict=True):
        for name in PROJECTIONS.values():
            linear, grafted = base.get_submodule(name), block.get_submodule(name)
            yield linear, grafted, the(lora.LowRank, grafted), random(2, 7, linear.in_features)


def outputs(weight, x_BTD, bias):
    """Return W' x + b frame by frame."""
    return torch.stack([weight @ x_D for x_D in x_BTD.flatten(0, 1)]).unflatten(0, (2, 7)) + bias


def test_lora_adds_alpha_over_rank_times_b_a_x(upstream):
    """Check W' = W + (α / r) B A, arXiv:2106.09685."""
    for linear, grafted, part, x_BTD in low_rank(upstream, "lora"):
        weight = linear.weight + 2.5 * part.b @ part.a
        torch.testing.assert_close(grafted(x_BTD), outputs(weight, x_BTD, linear.bias))
        torch.testing.assert_close(part.merged(linear.weight), weight)


def test_dora_scales_each_output_to_the_norm_that_it_trains(upstream):
    """Check W'_i = m_i (W + (α / r) B A)_i / ‖(W + (α / r) B A)_i‖, arXiv:2402.09353, row by row, and its gradient.

    m starts as the norms of the rows of W; the gradient takes the norm below m for a constant (section 4.3).
    """
    for linear, grafted, part, x_BTD in low_rank(upstream, "dora"):
        changed = linear.weight + 2.5 * part.b @ part.a
        rows = [m * row / row.square().sum().sqrt().detach() for m, row in zip(part.m, changed, strict=True)]
        torch.testing.assert_close(grafted(x_BTD), outputs(torch.stack(rows), x_BTD, linear.bias))
        torch.testing.assert_close(part.merged(linear.weight), torch.stack(rows))
        wanted, trained = random(2, 7, len(rows)), [part.m, part.a, part.b]
        found = torch.autograd.grad((grafted(x_BTD) * wanted).sum(), trained)
        expected = torch.autograd.grad((outputs(torch.stack(rows), x_BTD, linear.bias) * wanted).sum(), trained)
        torch.testing.assert_close(found, expected)
        first = lora.MagnitudeDirection(linear, lora.Config(rank=2))
        torch.testing.assert_close(first.m.detach(), linear.weight.square().sum(1).sqrt())


def test_pissa_trains_what_the_largest_singular_values_make(upstream):
    """Check W' = W - (α / r) B0 A0 + (α / r) B A, arXiv:2404.02948; (α / r) B0 A0 = Σ σ_i u_i v_iᵀ of the largest two.

    B and A start as B0 and A0, U √S and √S Vᵀ but for α / r: the singular values are shared evenly by both factors.
    """
    for linear, grafted, part, x_BTD in low_rank(upstream, "pissa"):
        u, values, vh = torch.linalg.svd(linear.weight)
        principal = sum(values[i] * torch.outer(u[:, i], vh[i]) for i in range(2))
        torch.testing.assert_close(2.5 * part.b0 @ part.a0, principal, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(part.a0.norm(dim=1), (values[:2] / 2.5).sqrt(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(part.b0.norm(dim=0), (values[:2] / 2.5).sqrt(), rtol=1e-5, atol=1e-5)
        weight = linear.weight - 2.5 * part.b0 @ part.a0 + 2.5 * part.b @ part.a
        torch.testing.assert_close(grafted(x_BTD), outputs(weight, x_BTD, linear.bias))
        torch.testing.assert_close(part.merged(linear.weight), weight)
        first = lora.Principal(linear, lora.Config(variant="pissa", rank=2, alpha=5.0))
        assert torch.equal(first.a, first.a0) and torch.equal(first.b, first.b0)


@pytest.mark.parametrize("shared", [False, True])
def test_prefix_rows_stand_before_keys_and_values(upstream, shared):
    """Check softmax(q [P_k; K]ᵀ / √d) [P_v; V] in each head, arXiv:2101.00190, over the valid keys and all rows."""
    model, x_BTD = tuned(upstream, prefix, prefix.Config(length=3, shared=shared)), random(2, 7, DIM)
    for block, base in zip(model.blocks(), upstream.blocks(), strict=True):
        rows, attention = the(Prefix, block), base.attention
        assert (rows.k_PD is rows.v_PD) == shared
        y_BTD = layer_norm(x_BTD, attention.norm)
        for row, frames in enumerate(VALID_BT.sum(1).tolist()):
            y_TD = y_BTD[row, :frames]
            q_TD = affine(y_TD, attention.q_proj)
            k_TD = torch.cat([rows.k_PD, affine(y_TD, attention.k_proj)])
            v_TD = torch.cat([rows.v_PD, affine(y_TD, attention.v_proj)])
            heads = [slice(start, start + DIM // HEADS) for start in range(0, DIM, DIM // HEADS)]
            scores = [q_TD[:, h] @ k_TD[:, h].T / math.sqrt(DIM // HEADS) for h in heads]
            mixed_TD = torch.cat([s.softmax(-1) @ v_TD[:, h] for s, h in zip(scores, heads, strict=True)], -1)
            found = block.attention(x_BTD, VALID_BT)[row, :frames]
            torch.testing.assert_close(found, affine(mixed_TD, attention.out_proj))


def one_step(upstream, plug_in, config, trains):
    """Check that a step of SGD moves the parameters whose names `trains` accepts by −0.1 ∂L/∂θ, and no others."""
    mel_BTM, lens_B = random(2, 39, 8), torch.tensor([39, 30])
    masked_BT = torch.arange(9)[None, :] == torch.tensor([[2], [4]])  # the mask embedding takes part

    weights_BTD = random(2, 9, DIM)  # of the loss, a weighted sum of the last state

    def gradients(model):
        states, _ = model.encode(mel_BTM, lens_B, [2], masked_BT)
        (states[2] * weights_BTD).sum().backward()

    reference = copy.deepcopy(upstream).requires_grad_(True)
    gradients(reference)
    model = copy.deepcopy(upstream)
    plug_in.apply(model, config)
    assert any(p.requires_grad for p in model.parameters()) == any(trains(n) for n, _ in model.named_parameters())
    if any(p.requires_grad for p in model.parameters()):
        gradients(model)
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == trains(name), name
        step = 0.1 * expected[name].grad if trains(name) else torch.zeros_like(parameter)
        keys = name.endswith("k_proj.bias")  # the softmax cancels it
        assert not trains(name) or keys or step.abs().max() > 1e-6, name
        torch.testing.assert_close(parameter.detach(), upstream.get_parameter(name) - step)


@pytest.mark.parametrize("outside", [True, False])
def test_bitfit_moves_the_biases_alone(upstream, outside):
    """Check W x + b with b trained and W kept, arXiv:2106.10199, for every parameter named bias, as in arXiv:2210.06175."""

    def trains(name):
        return name.endswith(".bias") and (name.startswith("encoder.1.") or outside and name.startswith("subsample."))

    one_step(upstream, bitfit, bitfit.Config(layers=[2], outside=outside), trains)


@pytest.mark.parametrize(
    "config, starts",
    [
        (full.Config(), ("encoder.", "subsample.project.", "subsample.norm.")),
        (full.Config(layers=[2]), ("encoder.1.", "subsample.project.", "subsample.norm.")),
        (full.Config(layers="top1", input=False), ("encoder.1.",)),
        (full.Config(front_end=True), ("encoder.", "subsample.")),
    ],
    ids=["all", "second block", "top block alone", "front end"],
)
def test_full_moves_the_chosen_weights(upstream, config, starts):
    """Check that a step is θ − η ∂L/∂θ for what is chosen (arXiv:2202.03218), and never moves the mask embedding."""
    one_step(upstream, full, config, lambda name: name.startswith(starts))


def test_frozen_moves_nothing(upstream):
    """Check that nothing trains and nothing moves."""
    one_step(upstream, frozen, frozen.Config(), lambda name: False)


FORMULAS = {  # the module's file name, and its tests in this file
    "adapter_bias": [
        test_adapter_bias_adds_v_times_alpha_of_the_output,
        test_adapter_bias_of_the_intermediate_layer,
    ],
    "bitfit": [test_bitfit_moves_the_biases_alone],
    "compacter": [test_compacter_is_a_bottleneck_of_sums_of_kronecker_products],
    "conv_adapter": [test_conv_adapter_adds_a_hundredth_of_a_bottleneck_of_convolutions],
    "frozen": [test_frozen_moves_nothing],
    "full": [test_full_moves_the_chosen_weights],
    "houlsby": [test_houlsby_is_a_residual_bottleneck],
    "lora": [
        test_lora_adds_alpha_over_rank_times_b_a_x,
        test_dora_scales_each_output_to_the_norm_that_it_trains,
        test_pissa_trains_what_the_largest_singular_values_make,
    ],
    "prefix": [test_prefix_rows_stand_before_keys_and_values],
}
ON_DISK = sorted(p.stem for p in Path(hfftools.tune.__file__).parent.glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", sorted({*ON_DISK, *FORMULAS}))
def test_every_module_on_disk_has_a_formula(name):
    assert name in ON_DISK, f"tests/tune/test_formulas.py: FORMULAS names '{name}', which hfftools/tune has no file for"
    assert FORMULAS.get(name), f"hfftools/tune/{name}.py has no formula test; add one to tests/tune/test_formulas.py"
