"""Run the blocks of wav2vec 2.0 Conformers and their attentions on states [B, T, D] with a mask of valid frames.

fairseq took them from ESPnet; s3prl and transformers kept the names inside, which is what the two functions at the end rely
on. K = 2T - 1 is the number of distances between T frames, d the width of a head, H the number of heads.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfftools.nn.attention import split_heads
from hfftools.upstream.transformer import Attention


def distances(frames: int, dim: int, like: Tensor) -> Tensor:
    """Return sinusoids [K, D] of how far the query is behind the key's frame, T - 1 first, 1 - T last.

    Sine and cosine take turns.
    """
    away_K1 = torch.arange(frames - 1, -frames, -1, device=like.device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, dim, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / dim))
    return torch.stack([(away_K1 * rates).sin(), (away_K1 * rates).cos()], -1).flatten(1).to(like.dtype)


def by_key(scores_BHTK: Tensor) -> Tensor:
    """Return scores by distance [B, H, T, K] as scores by key [B, H, T, T]: row t begins T - 1 - t columns later."""
    frames = scores_BHTK.shape[2]
    rows = F.pad(scores_BHTK, (0, 1)).flatten(-2)[..., :-frames]  # one column more, and each row moves back by one
    return rows.unflatten(-1, (frames, -1))[..., frames - 1 :]


class RelativeAttention(Attention):
    """Self-attention with a learned score for the distance between two frames (Dai et al., arXiv:1901.02860)."""

    TAKES_PREFIX = True

    def __init__(self, projections, heads, dropout, pos_proj: nn.Module, u_Hd: nn.Parameter, v_Hd: nn.Parameter):
        super().__init__(projections, heads, dropout)
        self.pos_proj, self.u_Hd, self.v_Hd = pos_proj, u_Hd, v_Hd

    def by_distance(self, q_BHTd: Tensor, x_BTD: Tensor) -> Tensor:
        """Return the score of each query at each distance, [B, H, T, K]."""
        p_1HKd = split_heads(self.pos_proj(distances(x_BTD.shape[1], x_BTD.shape[2], x_BTD)[None]), self.heads)
        return (q_BHTd + self.v_Hd[:, None].to(q_BHTd.dtype)) @ p_1HKd.transpose(-1, -2)

    def by_key(self, scores_BHTK: Tensor, x_BTD: Tensor) -> Tensor:
        """Return, of these, the one at each key, [B, H, T, T]."""
        return by_key(scores_BHTK)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        q_BHTd, k_BHTd, v_BHTd = self.project(x_BTD)
        bias_BHTT = self.by_key(self.by_distance(q_BHTd, x_BTD), x_BTD) / math.sqrt(q_BHTd.shape[-1])
        mask_BHTT = bias_BHTT.masked_fill(~valid_BT[:, None, None, :], -torch.inf)
        return self.mix(q_BHTd + self.u_Hd[:, None].to(q_BHTd.dtype), k_BHTd, v_BHTd, mask_BHTT)


class RotaryAttention(Attention):
    """Self-attention where positions turn what enters the queries and keys, before their projections as in fairseq."""

    TAKES_PREFIX = True
    rates: Tensor

    def __init__(self, projections, heads, dropout, rates: Tensor):
        super().__init__(projections, heads, dropout)
        self.register_buffer("rates", rates.detach().clone(), persistent=False)  # radians a frame, [d/2]

    def project(self, x_BTD: Tensor) -> list[Tensor]:
        frames_T = torch.arange(x_BTD.shape[1], device=x_BTD.device, dtype=torch.float32)
        angles_T1d = torch.outer(frames_T, self.rates.float()).repeat(1, 2)[:, None]
        cos_T1d, sin_T1d = angles_T1d.cos().to(x_BTD.dtype), angles_T1d.sin().to(x_BTD.dtype)
        x_BTHd = x_BTD.unflatten(-1, (self.heads, -1))
        low, high = x_BTHd.chunk(2, dim=-1)
        turned_BTD = (x_BTHd * cos_T1d + torch.cat([-high, low], -1) * sin_T1d).flatten(2)
        projected = self.q_proj(turned_BTD), self.k_proj(turned_BTD), self.v_proj(x_BTD)
        return [split_heads(y_BTD, self.heads) for y_BTD in projected]


class ConvModule(nn.Module):
    """Norm, pointwise GLU, depthwise convolution over time, batch norm, activation, pointwise.

    The batch norm always goes by the statistics of its pre-training: those of a batch would let utterances and their padding
    change each other. Its gain and bias may train.
    """

    def __init__(self, norm, pointwise_in, depthwise, batch_norm, activation, pointwise_out, dropout):
        super().__init__()
        self.norm, self.pointwise_in, self.depthwise, self.batch_norm = norm, pointwise_in, depthwise, batch_norm
        self.activation, self.pointwise_out, self.dropout = activation, pointwise_out, dropout

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        y_BDT = F.glu(self.pointwise_in(self.norm(x_BTD).transpose(1, 2)), dim=1)
        y_BDT = self.depthwise(y_BDT.masked_fill(~valid_BT[:, None, :], 0.0))
        norm = self.batch_norm
        y_BDT = F.batch_norm(y_BDT, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.dropout(self.pointwise_out(self.activation(y_BDT))).transpose(1, 2)


class MacaronBlock(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward, each with its residual; then a norm."""

    PLACES = {  # where a part can be inserted: see upstream/graft.py
        "q": "attention.q_proj",
        "k": "attention.k_proj",
        "v": "attention.v_proj",
        "out": "attention.out_proj",
        "attention": "attention",
        "feed_forward": "feed_forward_out",
        "up": "feed_forward_out.0",
        "down": "feed_forward_out.3",
        "up_in": "feed_forward_in.0",
        "down_in": "feed_forward_in.3",
    }

    def __init__(
        self,
        feed_forwards: Sequence[nn.Sequential],  # the first and the last sublayer
        feed_forward_norms: Sequence[nn.Module],
        attention: Attention,
        attention_norm: nn.Module,
        dropout: nn.Module,  # after the attention
        conv: nn.Module,  # ConvModule, or another over x [B, T, D] and the mask of valid frames
        norm: nn.Module,
    ):
        super().__init__()
        self.feed_forward_in, self.feed_forward_out = feed_forwards
        self.feed_forward_in_norm, self.feed_forward_out_norm = feed_forward_norms
        self.attention, self.attention_norm, self.dropout = attention, attention_norm, dropout
        self.conv, self.norm = conv, norm

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        x_BTD = x_BTD + 0.5 * self.feed_forward_in(self.feed_forward_in_norm(x_BTD))
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), valid_BT))
        x_BTD = x_BTD + self.conv(x_BTD, valid_BT)
        x_BTD = x_BTD + 0.5 * self.feed_forward_out(self.feed_forward_out_norm(x_BTD))
        return self.norm(x_BTD)


def espnet_attention(theirs: Any, heads: int, rates: Tensor | None) -> Attention:
    """Return our attention over the layers of theirs.

    It is relative where theirs has a projection of positions, rotary where `rates` are given, else without positions.
    """
    projections = (theirs.linear_q, theirs.linear_k, theirs.linear_v, theirs.linear_out)
    if hasattr(theirs, "linear_pos"):
        positions = (theirs.linear_pos, theirs.pos_bias_u, theirs.pos_bias_v)
        return RelativeAttention(projections, heads, theirs.dropout.p, *positions)
    if rates is not None:
        return RotaryAttention(projections, heads, theirs.dropout.p, rates)
    return Attention(projections, heads, theirs.dropout.p)


def espnet_block(
    layer: Any,
    attention: Attention,
    feed_forwards: Sequence[nn.Sequential],
    feed_forward_norms: Sequence[nn.Module],
    activation: nn.Module,
) -> MacaronBlock:
    """Return a block from the parts of theirs; `activation` is the convolution's."""
    conv = layer.conv_module
    ends = (conv.pointwise_conv1, conv.depthwise_conv, conv.batch_norm, activation, conv.pointwise_conv2, conv.dropout)
    return MacaronBlock(
        feed_forwards,
        feed_forward_norms,
        attention,
        layer.self_attn_layer_norm,
        layer.self_attn_dropout,
        ConvModule(conv.layer_norm, *ends),
        layer.final_layer_norm,
    )
