"""The blocks of wav2vec 2.0 Conformers against plain formulas."""

import pytest
import torch
from torch import nn

from hfftools.nn.attention import Prefix, split_heads
from hfftools.upstream.w2v_conformer import ConvModule, RelativeAttention, RotaryAttention, by_key, distances

D, H = 8, 2


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_distances_and_by_key(frames):
    scores = torch.randn(2, 3, frames, 2 * frames - 1)
    shifted, table = by_key(scores), distances(frames, 4, scores)
    for query in range(frames):
        for key in range(frames):
            column = frames - 1 - (query - key)  # the first is T - 1 behind
            assert torch.equal(shifted[:, :, query, key], scores[:, :, query, column])
            away, rate = torch.tensor(float(query - key)), 10000**-0.5
            expected = torch.stack([away.sin(), away.cos(), (away * rate).sin(), (away * rate).cos()])
            assert (table[column] - expected).abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("length", [0, 3])
def test_relative_attention_with_a_prefix_equals_the_formula(length):
    torch.manual_seed(0)
    d, frames, prefix = D // H, 5, Prefix(length, D, shared=False)
    u_Hd, v_Hd = (nn.Parameter(torch.randn(H, d)) for _ in range(2))
    attention = RelativeAttention([nn.Linear(D, D) for _ in range(4)], H, 0.0, nn.Linear(D, D), u_Hd, v_Hd)
    attention.prefix = prefix if length else None
    x, valid = torch.randn(2, frames, D), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    q = split_heads(attention.q_proj(x), H)
    k, v = (
        split_heads(torch.cat([rows[None].expand(2, -1, -1), proj(x)], 1), H)
        for rows, proj in ((prefix.k_PD, attention.k_proj), (prefix.v_PD, attention.v_proj))
    )
    p = attention.pos_proj(distances(frames, D, x)).unflatten(-1, (H, d))  # [K, H, d]
    scores = (q + u_Hd[:, None]) @ k.transpose(-1, -2)
    for query in range(frames):
        for key in range(frames):
            scores[:, :, query, length + key] += ((q[:, :, query] + v_Hd) * p[frames - 1 - query + key]).sum(-1)
    closed = ~torch.cat([torch.ones(2, length, dtype=torch.bool), valid], 1)
    weights = (scores / d**0.5).masked_fill(closed[:, None, None], -torch.inf).softmax(-1)
    expected = attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    assert (attention(x, valid) - expected).abs().max() < 1e-5


@torch.no_grad()
def test_rotary_scores_depend_on_distance_alone():
    torch.manual_seed(0)
    attention = RotaryAttention([nn.Identity()] * 4, H, 0.0, torch.tensor([1.0, 0.1]))
    q, k, v = attention.project(torch.randn(1, 1, D).expand(1, 9, D))
    scores = (q @ k.transpose(-1, -2))[0]
    for away in range(-8, 9):
        diagonal = scores.diagonal(away, 1, 2)
        assert (diagonal - diagonal[:, :1]).abs().max() < 1e-4
    assert scores.std() > 0.1 and torch.equal(v, v[:, :, :1].expand_as(v))


def test_batch_norm_keeps_to_its_statistics():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(D)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    pointwise = nn.Conv1d(D, 2 * D, 1), nn.Conv1d(D, D, 1)
    conv = ConvModule(
        nn.LayerNorm(D),
        pointwise[0],
        nn.Conv1d(D, D, 3, padding=1, groups=D),
        norm,
        nn.SiLU(),
        pointwise[1],
        nn.Dropout(0.0),
    )
    before = {name: buffer.clone() for name, buffer in conv.named_buffers()}
    x, valid = torch.randn(2, 6, D), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    y = conv.train()(x, valid)
    y[valid].square().mean().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in conv.named_buffers())
    assert norm.weight.grad.abs().max() > 0 and norm.bias.grad.abs().max() > 0
    assert torch.equal(y, conv.eval()(x, valid))
    assert (conv(x[1:, :4], valid[1:, :4]) - y[1:, :4]).abs().max() < 1e-6  # zeros beyond the end
