"""Check the Conformer block, log-mel and the CTC loss against their formulas written out in plain torch.

Every parameter is drawn anew, and sizes are such that no factor is 1. B utterances, T frames, D width, M mel bins.
"""

import itertools
import math

import pytest
import torch

from hfftools.nn.conformer import ConformerBlock
from hfftools.nn.ctc import ctc_loss
from hfftools.nn.logmel import RANGE_NATS, LogMel

DIM, HEADS, KERNEL = 6, 2, 3


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return norm.weight * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + norm.bias


def affine(x, linear):
    return x @ linear.weight.T + linear.bias


def silu(x):
    return x / (1 + torch.exp(-x))


def feed_forward(x, part):
    return affine(silu(affine(layer_norm(x, part.norm), part.up)), part.down)


def attention(x_TD, part):
    y_TD = layer_norm(x_TD, part.norm)
    q, k, v = (affine(y_TD, linear) for linear in (part.q_proj, part.k_proj, part.v_proj))
    width = DIM // HEADS
    heads = [slice(start, start + width) for start in range(0, DIM, width)]
    mixed = [(q[:, h] @ k[:, h].T / math.sqrt(width)).softmax(-1) @ v[:, h] for h in heads]
    return affine(torch.cat(mixed, -1), part.out_proj)


def convolution(x_TD, part):
    y_TD = affine(layer_norm(x_TD, part.norm), part.pointwise_in)
    y_TD = y_TD[:, :DIM] * torch.sigmoid(y_TD[:, DIM:])
    zeros = torch.zeros(KERNEL // 2, DIM, dtype=y_TD.dtype)
    wide = torch.cat([zeros, y_TD, zeros])
    taps = [part.depthwise.weight[:, 0, k] * wide[k : k + len(y_TD)] for k in range(KERNEL)]
    return affine(silu(layer_norm(sum(taps) + part.depthwise.bias, part.norm_mid)), part.pointwise_out)


def test_a_conformer_block_is_half_feed_forward_attention_convolution_half_feed_forward():
    """Check equation 1 of arXiv:2005.08100 at each utterance's valid frames, alone and beside padding."""
    torch.manual_seed(0)
    block = ConformerBlock(DIM, HEADS, expansion=3, kernel=KERNEL).double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0.0, 0.5)
        x_BTD, lens = torch.randn(2, 7, DIM, dtype=torch.float64), [7, 4]
        found = block(x_BTD, torch.arange(7)[None, :] < torch.tensor(lens)[:, None])
        for row, frames in enumerate(lens):
            x_TD = x_BTD[row, :frames]
            x_TD = x_TD + 0.5 * feed_forward(x_TD, block.feed_forward_in)
            x_TD = x_TD + attention(x_TD, block.attention)
            x_TD = x_TD + convolution(x_TD, block.conv)
            x_TD = x_TD + 0.5 * feed_forward(x_TD, block.feed_forward_out)
            torch.testing.assert_close(found[row, :frames], layer_norm(x_TD, block.norm))


def test_log_mel_is_floored_below_the_peak_and_normalised_by_utterance():
    """Check max(log m, peak - 80 dB) less each bin's mean, over one deviation; peaks of the utterances are far apart."""
    torch.manual_seed(0)
    model, lens = LogMel(20), [8000, 4000]
    wav_BN = torch.randn(2, 8000) * torch.tensor([[1.0], [1e-3]])
    wav_BN[:, 1000:2000] = 0.0  # what is silent lies below the floor
    found, frames_B = model(wav_BN, torch.tensor(lens))
    for row, samples in enumerate(lens):
        frames = (samples - 512) // 160 + 1
        log_TM = model.mel(wav_BN[row])[:, :frames].T.clamp(min=1e-10).log()
        log_TM = torch.maximum(log_TM, log_TM.max() - RANGE_NATS)
        log_TM = log_TM - log_TM.mean(0)
        wanted = log_TM / (log_TM.square().mean().sqrt() + 1e-3)
        assert frames_B[row] == frames and not found[row, frames:].any()
        assert torch.allclose(found[row, :frames], wanted, atol=1e-4)


def test_ctc_loss_is_the_sum_over_all_paths_in_nats():
    """Add the probabilities of every path of T units that reads, repeats merged and blanks dropped, as the labels."""
    torch.manual_seed(0)
    log_probs_BTU, labels = torch.randn(2, 5, 3).log_softmax(-1), [[1, 2, 2], [2]]
    lens_B, target_lens_B = torch.tensor([5, 3]), torch.tensor([3, 1])
    found = ctc_loss(log_probs_BTU, lens_B, torch.tensor([[1, 2, 2], [2, 0, 0]]), target_lens_B)
    for row, frames in enumerate(lens_B.tolist()):
        total = 0.0
        for path in itertools.product(range(3), repeat=frames):
            read = [unit for unit, _ in itertools.groupby(path) if unit]
            if read == labels[row]:
                total += math.exp(sum(log_probs_BTU[row, t, unit].item() for t, unit in enumerate(path)))
        assert found[row].item() == pytest.approx(-math.log(total), abs=1e-4)
