"""Check the building blocks against their formulas written out: layer sum, lengths, adapters, the transducer."""

import itertools
import math

import pytest
import torch

from hfftools.nn.adapter import Bottleneck
from hfftools.nn.layer_sum import LayerSum, weighted_sum
from hfftools.nn.mask import conv_out_len
from hfftools.nn.transducer import Transducer


def normed(x: torch.Tensor) -> torch.Tensor:
    """Return (x - mean) / sqrt(variance + 1e-5) over the last axis, the variance divided by its whole width."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    return centred / ((centred**2).sum(-1, keepdim=True) / x.shape[-1] + 1e-5).sqrt()


def test_layer_sum_is_the_softmax_weighted_sum():
    torch.manual_seed(0)
    layers = [2, 5, 3]
    hidden = {layer: layer * torch.randn(2, 4, 6) + layer for layer in (5, 1, 3, 2)}
    block = LayerSum(layers)
    assert block.logits_L.tolist() == [0.0, 0.0, 0.0]
    logits = [0.7, -1.1, 2.0]
    with torch.no_grad():
        block.logits_L.copy_(torch.tensor(logits))
        found = block(hidden)
    total = sum(math.exp(logit) for logit in logits)
    wanted = torch.zeros(2, 4, 6)
    for layer, logit in zip(layers, logits, strict=True):
        wanted += math.exp(logit) / total * hidden[layer]
        assert block.layer_weights()[layer] == pytest.approx(math.exp(logit) / total)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_weighted_sum_takes_weights_as_they_are():
    states, weights_L = [torch.randn(2, 3, 4) for _ in range(3)], torch.tensor([0.5, -2.0, 3.0])
    wanted = 0.5 * states[0] - 2.0 * states[1] + 3.0 * states[2]
    assert torch.allclose(weighted_sum(states, weights_L), wanted, atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride"), [(10, 5), (3, 2), (2, 2), (5, 3), (2, 3)])
def test_conv_out_len_is_the_length_of_a_convolution(kernel, stride):
    conv = torch.nn.Conv1d(1, 1, kernel, stride)
    nums = range(4 * kernel + 1)
    wanted = [conv(torch.zeros(1, 1, num)).shape[2] if num >= kernel else 0 for num in nums]
    assert conv_out_len(torch.tensor(list(nums)), kernel, stride).tolist() == wanted


@pytest.mark.parametrize("norm", [False, True])
def test_bottleneck_is_its_equation(norm):
    """Check y + up(GELU(down(y))), with a layer norm of the branch alone where there is one."""
    torch.manual_seed(0)
    block, y_BTD = Bottleneck(6, 4, norm), torch.randn(2, 3, 6)
    assert torch.equal(block(y_BTD), y_BTD), "before training the block leaves its input unchanged"
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape))
        found = block(y_BTD)
        a = y_BTD @ block.down.weight.T + block.down.bias
        a = 0.5 * a * (1 + torch.erf(a / math.sqrt(2)))
        a = a @ block.up.weight.T + block.up.bias
        if norm:
            a = normed(a) * block.norm.weight + block.norm.bias
    assert torch.allclose(found, y_BTD + a, atol=1e-5)


@pytest.mark.parametrize("context", [1, 2])
def test_transducer_likelihood_is_the_sum_over_all_alignments(context):
    """Add the probabilities of every order of T blanks and L labels that ends with a blank, one after the other."""
    torch.manual_seed(context)
    net, frames, labels = Transducer(5, 4, context, 10**9), 4, [3, 1, 3]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 2.0
        f_BTJ = torch.randn(2, frames + 2, 4)  # two padded frames, and a second utterance that is longer
        targets_BL, lens_B = torch.tensor([labels + [0], [2, 2, 4, 1]]), torch.tensor([frames, frames + 2])
        found = net.log_likelihood(f_BTJ, lens_B, targets_BL, torch.tensor([3, 4]))[0]
        total, count = 0.0, 0
        for places in itertools.combinations(range(frames - 1 + len(labels)), len(labels)):
            path, t, done = 1.0, 0, []
            for position in range(frames + len(labels)):
                embedded_CJ = net.embed(torch.tensor(([0] * context + done)[-context:]))
                g_J = net.project(torch.relu(torch.einsum("oic,ci->o", net.conv.weight, embedded_CJ) + net.conv.bias))
                p_V = net.out(torch.tanh(f_BTJ[0, t] + g_J)).double().softmax(0)
                if position in places:
                    done.append(labels[len(done)])
                    path *= p_V[done[-1]].item()
                else:
                    path, t = path * p_V[0].item(), t + 1
            assert t == frames and done == labels
            total, count = total + path, count + 1
    assert count == math.comb(6, 3)
    assert found.item() == pytest.approx(math.log(total), abs=1e-4)
