"""Run the encoder of Moonshine (Jeffries et al., arXiv:2410.15608) as transformers builds it: a family of `hf:FOLDER`.

Three convolutions turn a waveform of any length into a frame every 24 ms; the group norm after the first one takes its
statistics over the whole utterance. Positions turn the queries and keys. r is the number of pairs that they turn.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hfftools.log import require
from hfftools.upstream.front_end import ConvLayer, FrontEnd
from hfftools.upstream.hf_wav2vec2 import WAV_EPS
from hfftools.upstream.transformer import Attention, Block, Position, TransformerUpstream

MODELS = {"moonshine": "MoonshineModel"}  # model_type in config.json: class in transformers
OPTIONS = {"decoder_num_hidden_layers": 0}  # only the encoder is used
OPTIONAL = ("decoder",)  # a checkpoint may hold the encoder alone


class PairAttention(Attention):
    """Self-attention where positions turn pairs of neighbours in each head's queries and keys (arXiv:2104.09864).

    With fewer rates than there are pairs, the last ones of a head stay as they are.
    """

    TAKES_PREFIX = True
    rates_r: Tensor

    def __init__(self, projections, heads: int, dropout: float, rates_r: Tensor):
        super().__init__(projections, heads, dropout)
        self.register_buffer("rates_r", rates_r.detach().clone(), persistent=False)  # radians a frame

    def project(self, x_BTD: Tensor) -> list[Tensor]:
        frames_T = torch.arange(x_BTD.shape[1], device=x_BTD.device, dtype=torch.float32)
        angles_Tr = torch.outer(frames_T, self.rates_r.float())
        q_BHTd, k_BHTd, v_BHTd = super().project(x_BTD)
        return [_turn(q_BHTd, angles_Tr), _turn(k_BHTd, angles_Tr), v_BHTd]


def _turn(x_BHTd: Tensor, angles_Tr: Tensor) -> Tensor:
    turned = 2 * angles_Tr.shape[1]
    cos_Tr, sin_Tr = angles_Tr.cos().to(x_BHTd.dtype), angles_Tr.sin().to(x_BHTd.dtype)
    x_BHTr, y_BHTr = x_BHTd[..., 0:turned:2], x_BHTd[..., 1:turned:2]
    pairs_BHTr2 = torch.stack([x_BHTr * cos_Tr - y_BHTr * sin_Tr, y_BHTr * cos_Tr + x_BHTr * sin_Tr], -1)
    return torch.cat([pairs_BHTr2.flatten(-2), x_BHTd[..., turned:]], -1)


def block_class(config: dict) -> type[nn.Module]:
    """Return the class of the blocks, which has PLACES; `config` is config.json."""
    return Block


def convert(model: Any, extractor: dict | None, name: str, digest: str) -> TransformerUpstream:
    """Return the encoder of transformers' model as an upstream.

    `extractor` is preprocessor_config.json, which says whether waveforms are normalised; without it they are not.
    """
    encoder, attention = model.encoder, model.encoder.layers[0].self_attn
    heads, keys = (proj.out_features // attention.head_dim for proj in (attention.q_proj, attention.k_proj))
    require(
        keys == heads,
        f"upstream {name}: config.json has encoder_num_key_value_heads {keys}, and only as many as "
        f"encoder_num_attention_heads, {heads}, are supported",
    )
    front = FrontEnd(
        [
            ConvLayer(encoder.conv1, encoder.groupnorm, nn.Identity(), before=nn.Tanh()),
            ConvLayer(encoder.conv2, None, nn.GELU()),
            ConvLayer(encoder.conv3, None, nn.GELU()),
        ],
        None,
        None,
        nn.Identity(),
        WAV_EPS if (extractor or {}).get("do_normalize", False) else None,
    )
    blocks = [_block(layer, heads, encoder.rotary_emb.inv_freq) for layer in encoder.layers]
    return TransformerUpstream(name, digest, front, Position([], None, 0.0), blocks, encoder.layer_norm)


def _block(layer: Any, heads: int, rates_r: Tensor) -> Block:
    theirs, inner = layer.self_attn, layer.mlp
    projections = theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.o_proj
    attention = PairAttention(projections, heads, theirs.attention_dropout, rates_r)
    feed_forward = nn.Sequential(inner.fc1, inner.activation_fn, nn.Identity(), inner.fc2, nn.Identity())
    norms = layer.input_layernorm, layer.post_attention_layernorm
    return Block(attention, norms[0], feed_forward, norms[1], nn.Identity(), norm_first=True)
