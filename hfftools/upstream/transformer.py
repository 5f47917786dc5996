"""Transformers over a convolutional front end (wav2vec 2.0, HuBERT, data2vec, WavLM): waveforms in, hidden states out.

The doors s3prl.py and huggingface.py load weights with their own packages and hand the layers over to the few classes
here, which run them in one way: every tensor batch first, lengths from the convolutions themselves, padding kept out of
the norms, the positional convolution and the attention. What their packages would do in between differs from family to
family, and lets padding change valid frames in most of them. d is the width of a head, H the number of heads.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfftools.nn.mask import conv_out_len, valid_mask
from hfftools.upstream.base import Upstream


class Activation(nn.Module):
    """A plain function as a module, so that it has a place in a Sequential."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class ConvLayer(nn.Module):
    """Unpadded convolution, no norm, layer norm over channels or group norm over time, activation."""

    def __init__(self, conv: nn.Conv1d, norm: nn.Module | None, activation: nn.Module):
        super().__init__()
        self.conv, self.norm, self.activation = conv, norm, activation

    def out_lens(self, lens_B: Tensor) -> Tensor:
        return conv_out_len(lens_B, self.conv.kernel_size[0], self.conv.stride[0])

    def forward(self, x_BCT: Tensor, lens_B: Tensor) -> Tensor:
        """`lens_B` counts the valid steps of the output."""
        x_BCT = self.conv(x_BCT)
        if isinstance(self.norm, nn.GroupNorm):  # statistics over time, so over the valid steps of each; one has none
            steps = x_BCT.shape[2]
            rows = [self.norm(row[None, :, : max(n, 2)]) for row, n in zip(x_BCT, lens_B.tolist())]
            x_BCT = torch.cat([F.pad(row, (0, steps - row.shape[2])) for row in rows])
        elif self.norm is not None:
            x_BCT = self.norm(x_BCT.transpose(1, 2)).transpose(1, 2)
        return self.activation(x_BCT)


class FrontEnd(nn.Module):
    """Waveforms [B, N] -> convolutions, layer norm, projection [B, T, D].

    `wav_eps`: None, or the model wants waveforms of zero mean and unit variance, and this is added to the variance.
    """

    def __init__(
        self,
        layers: Sequence[ConvLayer],
        norm: nn.Module | None,
        project: nn.Module | None,
        dropout: nn.Module,
        wav_eps: float | None,
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm, self.project, self.dropout = norm or nn.Identity(), project or nn.Identity(), dropout
        self.wav_eps = wav_eps
        self.stride_samples, self.field_samples = 1, 1  # the field: samples that one frame sees
        for layer in self.layers:
            self.field_samples += (layer.conv.kernel_size[0] - 1) * self.stride_samples
            self.stride_samples *= layer.conv.stride[0]

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        for layer in self.layers:
            num_samples_B = layer.out_lens(num_samples_B)
        return num_samples_B

    def forward(self, wav_BN: Tensor, num_samples_B: Tensor) -> Tensor:
        if self.wav_eps is not None:
            wav_BN = _normalise(wav_BN, num_samples_B, self.wav_eps)
        x_BCT = F.pad(wav_BN, (0, max(0, self.field_samples - wav_BN.shape[1])))[:, None]
        lens_B = num_samples_B
        for layer in self.layers:
            lens_B = layer.out_lens(lens_B)
            x_BCT = layer(x_BCT, lens_B)
        return self.dropout(self.project(self.norm(x_BCT.transpose(1, 2))))


def _normalise(wav_BN: Tensor, num_samples_B: Tensor, eps: float) -> Tensor:
    """Zero mean and unit variance over the valid samples of each waveform; zero beyond them."""
    valid_BN = valid_mask(num_samples_B, wav_BN.shape[1])
    num_B1 = num_samples_B.clamp(min=1)[:, None]
    mean_B1 = wav_BN.masked_fill(~valid_BN, 0.0).sum(1, keepdim=True) / num_B1
    centred_BN = (wav_BN - mean_B1).masked_fill(~valid_BN, 0.0)
    return centred_BN / (centred_BN.square().sum(1, keepdim=True) / num_B1 + eps).sqrt()


class Position(nn.Module):
    """Adds the positional convolutions (data2vec has five in a row); `norm` is for models that norm after a block."""

    def __init__(self, convs: Sequence[nn.Module], norm: nn.Module | None, dropout: float):
        super().__init__()
        self.convs, self.norm, self.dropout = nn.ModuleList(convs), norm or nn.Identity(), nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        y_BDT = x_BTD.transpose(1, 2)
        for conv in self.convs:  # each sees zeros beyond the end, as it would without padding
            y_BDT = conv(y_BDT.masked_fill(~valid_BT[:, None, :], 0.0))
        return self.dropout(self.norm(x_BTD + y_BDT.transpose(1, 2)))


class Attention(nn.Module):
    """Multi-head self-attention. Its projections are called as modules, so that hooks and grafts on them take effect;
    s3prl's own attention reads their weights and passes by anything attached to them."""

    def __init__(self, projections: Sequence[nn.Module], heads: int, dropout: float):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = projections
        self.heads, self.dropout = heads, dropout

    def split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def mask(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """The mask on scores [B, H, T, T]: False, or minus infinity, where a key may not be attended to."""
        return valid_BT[:, None, None, :]

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        q_BHTd, k_BHTd, v_BHTd = (self.split(proj(x_BTD)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        mask = self.mask(x_BTD, valid_BT)
        if mask.is_floating_point():
            mask = mask.to(q_BHTd.dtype)
        dropout = self.dropout if self.training else 0.0
        y_BHTd = F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(y_BHTd.transpose(1, 2).flatten(-2))


class DistanceBias(nn.Module):
    """WavLM's bias on the scores, one for each head and bucket of distances; buckets as in T5, both directions."""

    def __init__(self, embedding: nn.Embedding, max_distance: int):
        super().__init__()
        self.embedding, self.max_distance = embedding, max_distance

    def forward(self, frames: int) -> Tensor:
        """-> [H, T, T], query by key."""
        buckets = self.embedding.num_embeddings // 2
        exact = buckets // 2  # nearer than this every distance has its own bucket; beyond they widen with the logarithm
        away_K = torch.arange(1 - frames, frames, device=self.embedding.weight.device)
        far_K = (away_K.abs().clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far_K = (exact + (far_K * (buckets - exact)).long()).clamp(max=buckets - 1)
        bucket_K = torch.where(away_K.abs() < exact, away_K.abs(), far_K) + buckets * (away_K > 0)
        return self.embedding(bucket_K).T.unfold(1, frames, 1).flip(1)


class GatedAttention(Attention):
    """WavLM's self-attention: the distance bias, which all blocks share, gated by each query frame."""

    def __init__(self, projections, heads, dropout, distance: DistanceBias, gate: nn.Linear, gate_scale_1H11: Tensor):
        super().__init__(projections, heads, dropout)
        self.gate, self.gate_scale_1H11 = gate, gate_scale_1H11
        self.shared = (distance,)  # in a tuple, since the first block alone owns its parameters

    def mask(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        gates_BHT2 = self.gate(self.split(x_BTD)).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        a_BHT1, b_BHT1 = gates_BHT2.chunk(2, dim=-1)
        scale_BHT1 = a_BHT1 * (b_BHT1 * self.gate_scale_1H11 - 1.0) + 2.0
        bias_BHTT = scale_BHT1 * self.shared[0](x_BTD.shape[1])
        return bias_BHTT.masked_fill(~valid_BT[:, None, None, :], -torch.inf)


class Block(nn.Module):
    """Self-attention and feed-forward, each with its residual; `norm_first` tells which side of it the norms are on."""

    def __init__(
        self,
        attention: Attention,
        attention_norm: nn.Module,
        feed_forward: nn.Sequential,
        feed_forward_norm: nn.Module,
        dropout: nn.Module,
        norm_first: bool,
    ):
        super().__init__()
        self.attention, self.attention_norm = attention, attention_norm
        self.feed_forward, self.feed_forward_norm = feed_forward, feed_forward_norm
        self.dropout, self.norm_first = dropout, norm_first

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        if self.norm_first:
            x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), valid_BT))
            return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, valid_BT)))
        return self.feed_forward_norm(x_BTD + self.feed_forward(x_BTD))


class TransformerUpstream(Upstream):
    """Front end, position, blocks. State 0 enters the first block; with a `final_norm`, state L is what it puts out."""

    def __init__(
        self,
        name: str,
        digest: str,
        front: FrontEnd,
        position: Position,
        blocks: Sequence[Block],
        final_norm: nn.Module | None,
    ):
        super().__init__()
        self.name, self.hash = name, digest
        self.front, self.position, self.encoder = front, position, nn.ModuleList(blocks)
        self.final_norm = final_norm
        self.num_layers, self.stride_samples = len(blocks), front.stride_samples
        self.dim = blocks[0].attention.out_proj.out_features
        self.float().eval()

    def blocks(self) -> nn.ModuleList:
        return self.encoder

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        return self.front.out_lens(num_samples_B)

    def forward(self, wav_BN, num_samples_B, layers):
        num_samples_B = num_samples_B.to(wav_BN.device)
        lens_B = self.out_lens(num_samples_B)
        x_BTD = self.front(wav_BN, num_samples_B)
        x_BTD = self.position(x_BTD, valid_mask(lens_B, x_BTD.shape[1]))
        valid_BT = valid_mask(lens_B.clamp(min=1), x_BTD.shape[1])  # a row without any key would be NaN
        states = {0: x_BTD} if 0 in layers else {}
        for number, block in enumerate(self.encoder[: max(layers)], 1):
            x_BTD = block(x_BTD, valid_BT)
            if number in layers:
                states[number] = x_BTD
        if self.final_norm is not None and self.num_layers in states:
            states[self.num_layers] = self.final_norm(x_BTD)
        return {layer: states[layer] for layer in layers}, lens_B
