"""Convert wav2vec 2.0, its Conformers and kin as transformers builds them (`MODELS` below): a family of `hf:FOLDER`.

Each layer of theirs is handed over to the classes of transformer.py, front_end.py and w2v_conformer.py, which run it.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hfftools.upstream.front_end import ConvLayer, FrontEnd
from hfftools.upstream.transformer import (
    Attention,
    Block,
    DistanceBias,
    GatedAttention,
    Position,
    TransformerUpstream,
)
from hfftools.upstream.w2v_conformer import MacaronBlock, espnet_attention, espnet_block

MODELS = {  # model_type in config.json: class in transformers
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "unispeech": "UniSpeechModel",
    "unispeech-sat": "UniSpeechSatModel",
    "data2vec-audio": "Data2VecAudioModel",
    "wav2vec2-conformer": "Wav2Vec2ConformerModel",
}
OPTIONS = {"mask_time_prob": 0.05}  # above zero, or transformers would omit the mask embedding; no masks are drawn
OPTIONAL = ("masked_spec_embed",)  # some checkpoints lack it
WAV_EPS = 1e-7  # what Wav2Vec2FeatureExtractor adds to the variance


class LanguageBlock(Block):
    """A block of MMS (arXiv:2305.13516): an adapter of one language follows its feed-forward, with a residual."""

    PLACES = {**Block.PLACES, "language": "language"}

    def __init__(self, *parts: Any, language: nn.Sequential):
        super().__init__(*parts)
        self.language = language

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        x_BTD = super().forward(x_BTD, valid_BT)
        return x_BTD + self.language(x_BTD)


def block_class(config: dict) -> type[nn.Module]:
    """Return the class of the blocks of a model with this config.json."""
    if config["model_type"] == "wav2vec2-conformer":
        return MacaronBlock
    return LanguageBlock if variant_files(config) else Block


def variant_files(config: dict) -> tuple[str, ...]:
    """Return the names of files with the adapters of a language, {}; without layer norms first, transformers has none."""
    adapted = config.get("adapter_attn_dim") is not None and config.get("do_stable_layer_norm", False)
    return ("adapter.{}.safetensors", "adapter.{}.bin") if adapted else ()


def variant_tensors(model: Any) -> dict[str, Tensor]:
    """Return the weights of the language adapters of transformers' model."""
    return {name: tensor for name, tensor in model.named_parameters() if ".adapter_layer." in name}


def convert(model: Any, extractor: dict | None, name: str, digest: str) -> TransformerUpstream:
    """Return a model of transformers as an upstream.

    `extractor` is preprocessor_config.json, which says whether waveforms are normalised; without it they are where models
    of the same sizes were trained so: those whose front end has layer norms.
    """
    encoder, projection = model.encoder, model.feature_projection
    if extractor is None:
        normalise = getattr(model.config, "feat_extract_norm", "layer") == "layer"
    else:
        normalise = extractor.get("do_normalize", True)
    front = FrontEnd(
        [
            ConvLayer(layer.conv, getattr(layer, "layer_norm", None), layer.activation)
            for layer in model.feature_extractor.conv_layers
        ],
        getattr(projection, "layer_norm", None),
        projection.projection,
        projection.dropout,
        WAV_EPS if normalise else None,
    )
    norm_first = getattr(model.config, "do_stable_layer_norm", False)
    if hasattr(encoder.layers[0], "conv_module"):  # a Conformer builds a positional convolution, and passes it by
        convs, norm_first = [], True
        rates = getattr(encoder.embed_positions, "inv_freq", None)
        blocks: Sequence[nn.Module] = [_macaron(layer, rates) for layer in encoder.layers]
    else:
        convs, blocks = _position_convs(encoder.pos_conv_embed), _blocks(encoder.layers, norm_first)
    position = Position(convs, None if norm_first else encoder.layer_norm, encoder.dropout.p)
    final_norm = encoder.layer_norm if norm_first else None
    mask_embedding = getattr(model, "masked_spec_embed", None)
    return TransformerUpstream(name, digest, front, position, blocks, final_norm, mask_embedding)


def _position_convs(theirs: Any) -> list[nn.Module]:
    if hasattr(theirs, "layers"):
        return list(theirs.layers)
    convs: list[nn.Module] = [nn.Sequential(theirs.conv, theirs.padding, theirs.activation)]
    if getattr(theirs, "batch_norm", None) is not None:
        convs.insert(0, theirs.batch_norm)
    return convs


def _blocks(layers: Any, norm_first: bool) -> list[Block]:
    first, distance = layers[0].attention, None
    if hasattr(first, "rel_attn_embed"):
        distance = DistanceBias(first.rel_attn_embed, first.max_distance)
    blocks = [_block(layer, distance, norm_first) for layer in layers]
    if distance is not None:
        blocks[0].attention.distance = distance
    return blocks


def _block(layer: Any, distance: DistanceBias | None, norm_first: bool) -> Block:
    parts = _attention(layer.attention, distance), layer.layer_norm, feed_forward(layer.feed_forward)
    rest = layer.final_layer_norm, layer.dropout, norm_first
    adapter = getattr(layer, "adapter_layer", None)
    if adapter is None:
        return Block(*parts, *rest)
    language = nn.Sequential(adapter.norm, adapter.linear_1, adapter.act_fn, adapter.linear_2)
    return LanguageBlock(*parts, *rest, language=language)


def _attention(theirs: Any, distance: DistanceBias | None) -> Attention:
    projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.out_proj)
    heads, dropout = theirs.num_heads, theirs.dropout
    if distance is None:
        return Attention(projections, heads, dropout)
    gate = (theirs.gru_rel_pos_linear, theirs.gru_rel_pos_const)
    return GatedAttention(projections, heads, dropout, distance, *gate)


def feed_forward(theirs: Any) -> nn.Sequential:
    """Return the layers of their feed-forward, in order."""
    return nn.Sequential(
        theirs.intermediate_dense,
        theirs.intermediate_act_fn,
        theirs.intermediate_dropout,
        theirs.output_dense,
        theirs.output_dropout,
    )


def _macaron(layer: Any, rates: Tensor | None) -> MacaronBlock:
    attention = espnet_attention(layer.self_attn, layer.self_attn.num_heads, rates)
    feed_forwards = [feed_forward(layer.ffn1), feed_forward(layer.ffn2)]
    norms = [layer.ffn1_layer_norm, layer.ffn2_layer_norm]
    return espnet_block(layer, attention, feed_forwards, norms, layer.conv_module.activation)
