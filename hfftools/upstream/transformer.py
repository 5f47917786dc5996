"""Run Transformers over a convolutional front end (wav2vec 2.0, HuBERT, data2vec, WavLM) on batches of waveforms.

The doors s3prl.py and huggingface.py load weights with their own packages and hand the layers over to the few classes
here, in front_end.py and in w2v_conformer.py, which run them in one way: every tensor batch first, lengths from the
convolutions themselves, padding kept out of the norms, the convolutions and the attention. What their packages would do
in between differs from family to family, and lets padding change valid frames in most of them. d is the width of a head,
H the number of heads.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hfftools.nn.attention import Prefix, attend, split_heads
from hfftools.nn.mask import valid_mask
from hfftools.upstream.base import Upstream


class Activation(nn.Module):
    """Make a plain function a module, so that it has a place in a Sequential."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# On processors with AMX, oneDNN's bfloat16 convolution in groups of fewer channels than this gives wrong sums: measured with
# torch 2.11, groups of 8 and 12 channels are wrong by more than 100 %, groups of 16 to 64 by 0.3 %, which is rounding.
NARROW = 16


class Position(nn.Module):
    """Add the positional convolutions (data2vec has five in a row; encoders whose attention knows positions have none).

    `norm` is for models that norm before their first block.
    """

    def __init__(self, convs: Sequence[nn.Module], norm: nn.Module | None, dropout: float):
        super().__init__()
        self.convs, self.norm, self.dropout = nn.ModuleList(convs), norm or nn.Identity(), nn.Dropout(dropout)
        grouped = [m for m in self.convs.modules() if isinstance(m, nn.Conv1d) and m.groups > 1]
        self.narrow = any(conv.in_channels // conv.groups < NARROW for conv in grouped)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        if not self.convs:
            return self.dropout(self.norm(x_BTD))
        bf16 = torch.is_autocast_enabled(x_BTD.device.type) and not (self.narrow and x_BTD.device.type == "cpu")
        with torch.autocast(x_BTD.device.type, enabled=bf16):
            y_BDT = self._convolve(x_BTD if bf16 else x_BTD.float(), valid_BT)
        return self.dropout(self.norm(x_BTD + y_BDT.transpose(1, 2)))

    def _convolve(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Return the output of the convolutions, [B, D, T]."""
        y_BDT = x_BTD.transpose(1, 2)
        for conv in self.convs:  # each sees zeros beyond the end, as it would without padding
            y_BDT = conv(y_BDT.masked_fill(~valid_BT[:, None, :], 0.0))
        return y_BDT


class Attention(nn.Module):
    """Multi-head self-attention. Its projections are called as modules, so that hooks and grafts on them take effect;
    s3prl's own attention reads their weights and passes by anything attached to them."""

    TAKES_PREFIX = True  # see upstream/graft.py

    def __init__(self, projections: Sequence[nn.Module], heads: int, dropout: float):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = projections
        self.heads, self.dropout = heads, dropout
        self.prefix: Prefix | None = None

    def mask(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Return the mask on scores [B, H, T, T]: False, or minus infinity, where a key may not be attended to."""
        return valid_BT[:, None, None, :]

    def project(self, x_BTD: Tensor) -> list[Tensor]:
        """Return queries, keys and values, each [B, H, T, d]."""
        return [split_heads(proj(x_BTD), self.heads) for proj in (self.q_proj, self.k_proj, self.v_proj)]

    def mix(self, q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask: Tensor) -> Tensor:
        """Return what the heads gather from the values, [B, T, D]."""
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend(q_BHTd, k_BHTd, v_BHTd, mask, self.prefix, dropout))

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        q_BHTd, k_BHTd, v_BHTd = self.project(x_BTD)
        return self.mix(q_BHTd, k_BHTd, v_BHTd, self.mask(x_BTD, valid_BT))


class DistanceBias(nn.Module):
    """WavLM's bias on the scores, one for each head and bucket of distances; buckets as in T5, both directions."""

    def __init__(self, embedding: nn.Embedding, max_distance: int):
        super().__init__()
        self.embedding, self.max_distance = embedding, max_distance

    def bucket(self, away: Tensor) -> Tensor:
        """Return the bucket number of each distance `away`, in frames from query to key, of any shape."""
        buckets = self.embedding.num_embeddings // 2
        exact = buckets // 2  # nearer than this every distance has its own bucket; beyond they widen with the logarithm
        far = (away.abs().clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (far * (buckets - exact)).long()).clamp(max=buckets - 1)
        return torch.where(away.abs() < exact, away.abs(), far) + buckets * (away > 0)

    def forward(self, frames: int) -> Tensor:
        """Return the bias [H, T, T], query by key."""
        away_K = torch.arange(1 - frames, frames, device=self.embedding.weight.device)
        return self.embedding(self.bucket(away_K)).T.unfold(1, frames, 1).flip(1)


class GatedAttention(Attention):
    """WavLM's self-attention: the distance bias, which all blocks share, gated by each query frame."""

    TAKES_PREFIX = True

    def __init__(self, projections, heads, dropout, distance: DistanceBias, gate: nn.Linear, gate_scale_1H11: Tensor):
        super().__init__(projections, heads, dropout)
        self.gate, self.gate_scale_1H11 = gate, gate_scale_1H11
        self.shared = (distance,)  # in a tuple, since the first block alone owns its parameters

    def mask(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        gates_BHT2 = self.gate(split_heads(x_BTD, self.heads)).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        a_BHT1, b_BHT1 = gates_BHT2.chunk(2, dim=-1)
        scale_BHT1 = a_BHT1 * (b_BHT1 * self.gate_scale_1H11 - 1.0) + 2.0
        bias_BHTT = scale_BHT1 * self.shared[0](x_BTD.shape[1])
        return bias_BHTT.masked_fill(~valid_BT[:, None, None, :], -torch.inf)


class Block(nn.Module):
    """Self-attention and feed-forward, each with its residual; `norm_first` tells which side of it the norms are on."""

    PLACES = {  # where a part can be inserted: see upstream/graft.py
        "q": "attention.q_proj",
        "k": "attention.k_proj",
        "v": "attention.v_proj",
        "out": "attention.out_proj",
        "attention": "attention",
        "feed_forward": "feed_forward",
        "up": "feed_forward.0",
        "down": "feed_forward.3",
    }

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
    """Front end, position, blocks. State 0 enters the first block; with a `final_norm`, state L is what it puts out.

    The blocks are those of this file or of w2v_conformer.py. `mask_embedding` [D] stood for masked frames in pre-training.
    """

    mask_D: Tensor | None

    def __init__(
        self,
        name: str,
        digest: str,
        front: Any,  # FrontEnd, or a module with its attributes
        position: Position,
        blocks: Sequence[Any],  # Block or MacaronBlock
        final_norm: nn.Module | None,
        mask_embedding: Tensor | None = None,
    ):
        super().__init__()
        self.name, self.hash = name, digest
        self.front, self.position, self.encoder = front, position, nn.ModuleList(blocks)
        self.final_norm = final_norm
        mask_D = None if mask_embedding is None else mask_embedding.detach().clone()
        self.register_buffer("mask_D", mask_D, persistent=False)
        self.num_layers, self.stride_samples = len(blocks), front.stride_samples
        self.middle_samples = front.field_samples / 2
        self.dim = blocks[0].attention.out_proj.out_features
        self.float().eval()

    @property
    def mask_embedding(self) -> Tensor | None:
        """Return [D], frozen; None where the checkpoint has none."""
        return self.mask_D

    def blocks(self) -> nn.ModuleList:
        return self.encoder

    def front_end(self) -> list[nn.Module]:
        return list(self.front.layers)

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        return self.front.convolutions()

    def unreached(self, layers: Sequence[int]) -> list[nn.Module]:
        above = super().unreached(layers)
        if self.final_norm is not None and self.num_layers not in layers:
            above.append(self.final_norm)
        return above

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        return self.front.out_lens(num_samples_B)

    def forward(self, wav_BN, num_samples_B, layers, augment=None):
        num_samples_B = num_samples_B.to(wav_BN.device)
        lens_B = self.out_lens(num_samples_B)
        x_BTD = self.front(wav_BN, num_samples_B)
        if augment is not None:
            x_BTD = augment(x_BTD, lens_B, self)
        return self.states(x_BTD, lens_B, layers), lens_B

    def states(self, x_BTD: Tensor, lens_B: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return {layer: h [B, T, D]} for what the front end puts out, of which `lens_B` frames are valid."""
        x_BTD = self.position(x_BTD, valid_mask(lens_B, x_BTD.shape[1]))
        valid_BT = valid_mask(lens_B.clamp(min=1), x_BTD.shape[1])  # a row without any key would be NaN
        states = {0: x_BTD} if 0 in layers else {}
        for number, block in enumerate(self.encoder[: max(layers)], 1):
            x_BTD = block(x_BTD, valid_BT)
            if number in layers:
                states[number] = x_BTD
        if self.final_norm is not None and self.num_layers in states:
            states[self.num_layers] = self.final_norm(x_BTD)
        return {layer: states[layer] for layer in layers}
