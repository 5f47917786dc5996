"""The door to transformers: a folder of save_pretrained, or sizes, in, a TransformerUpstream out; nothing is downloaded."""

import json
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from hfftools.expdir import file_hash
from hfftools.log import UserError
from hfftools.nn.rate import RATE_HZ
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

MODELS = {  # model_type in config.json: class
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
    "wav2vec2-conformer": "Wav2Vec2ConformerModel",
}
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # one file or its shards
WAV_EPS = 1e-7  # what Wav2Vec2FeatureExtractor adds to the variance
MASKED = {"mask_time_prob": 0.05}  # above zero, or transformers would leave the mask embedding out; no masks are drawn


def load(folder: Path, name: str) -> TransformerUpstream:
    """Read a model; UserError that names what the folder lacks, or why the model cannot be run."""
    kind = _kind(folder, name)
    extractor = _read_json(folder / "preprocessor_config.json", name)
    if extractor.get("sampling_rate", RATE_HZ) != RATE_HZ:
        raise UserError(f"upstream {name}: {folder} was trained at {extractor['sampling_rate']} Hz, not at {RATE_HZ}")
    weights = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), None)
    if weights is None:
        raise UserError(f"upstream {name}: {folder} holds no weights ({' or '.join(WEIGHTS)})")
    model_class = _class(kind, name)
    try:
        with torch.random.fork_rng(devices=[]):
            model, report = model_class.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, **MASKED
            )
    except Exception as error:  # whatever type the reader of this or that file format raises
        line = str(error).split("\n")[0]
        raise UserError(f"upstream {name}: transformers cannot read {folder} ({line}); save it again") from None
    missing = sorted(report["missing_keys"])
    if "masked_spec_embed" in missing:
        missing.remove("masked_spec_embed")
        del model.masked_spec_embed
    if missing:  # transformers would only warn, and leave them random
        raise UserError(f"upstream {name}: the weights in {folder} lack {len(missing)} tensors, first {missing[0]}")
    return _upstream(model, extractor.get("do_normalize", True), name, file_hash(*weights))


def random(kind: str, sizes: dict, name: str) -> TransformerUpstream:
    """A model of a `model_type` with weights drawn from torch's global generator; `sizes` are what its config takes.

    No file is read, and `hash` is "random". Waveforms are normalised where its kin's are: by a front end of layer norms.
    """
    model_class = _class(kind, name)
    try:
        model = model_class(model_class.config_class(**{**sizes, **MASKED}))
    except Exception as error:  # whatever type the checks of this or that size raise
        line = " ".join(str(error).split())
        raise UserError(f"upstream {name}: transformers cannot build a {kind} of these sizes ({line})") from None
    return _upstream(model, getattr(model.config, "feat_extract_norm", "layer") == "layer", name, "random")


def blocks_of(folder: Path, name: str) -> str:
    """`transformer` or `macaron`, from config.json alone; UserError where load would say the same."""
    return "macaron" if _kind(folder, name) == "wav2vec2-conformer" else "transformer"


def _kind(folder: Path, name: str) -> str:
    if not folder.is_dir():
        raise UserError(f"upstream {name}: {folder} is not a folder; give one written by save_pretrained")
    kind = _read_json(folder / "config.json", name).get("model_type")
    return kind if kind in MODELS else _refuse(kind, name)


def _refuse(kind: str, name: str) -> NoReturn:
    raise UserError(f"upstream {name}: model type {kind} is not supported; known: {', '.join(MODELS)}")


def _class(kind: str, name: str) -> type:
    if kind not in MODELS:
        _refuse(kind, name)
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"upstream {name} needs the package transformers ({error}): pip install transformers") from None
    return getattr(transformers, MODELS[kind])


def _read_json(path: Path, name: str) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"upstream {name}: {path} does not exist; copy it from where the model comes from") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"upstream {name}: {path} is broken ({error}); copy it again") from None


def _upstream(model: nn.Module, normalise: bool, name: str, digest: str) -> TransformerUpstream:
    encoder, projection = model.encoder, model.feature_projection
    if getattr(model.config, "adapter_attn_dim", None) is not None:
        raise UserError(f"upstream {name}: models with language adapters inside are not supported")
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
        blocks = [_macaron(layer, rates) for layer in encoder.layers]
    else:
        convs, blocks = _position_convs(encoder.pos_conv_embed), _blocks(encoder.layers, norm_first)
    position = Position(convs, None if norm_first else encoder.layer_norm, encoder.dropout.p)
    final_norm = encoder.layer_norm if norm_first else None
    mask_embedding = getattr(model, "masked_spec_embed", None)
    return TransformerUpstream(name, digest, front, position, blocks, final_norm, mask_embedding)


def _position_convs(theirs: nn.Module) -> list[nn.Module]:
    if hasattr(theirs, "layers"):
        return list(theirs.layers)
    convs = [nn.Sequential(theirs.conv, theirs.padding, theirs.activation)]
    if getattr(theirs, "batch_norm", None) is not None:
        convs.insert(0, theirs.batch_norm)
    return convs


def _blocks(layers: nn.ModuleList, norm_first: bool) -> list[Block]:
    first, distance = layers[0].attention, None
    if hasattr(first, "rel_attn_embed"):
        distance = DistanceBias(first.rel_attn_embed, first.max_distance)
    blocks = [
        Block(
            _attention(layer.attention, distance),
            layer.layer_norm,
            _feed_forward(layer.feed_forward),
            layer.final_layer_norm,
            layer.dropout,
            norm_first,
        )
        for layer in layers
    ]
    if distance is not None:
        blocks[0].attention.distance = distance
    return blocks


def _attention(theirs: nn.Module, distance: DistanceBias | None) -> Attention:
    projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.out_proj)
    heads, dropout = theirs.num_heads, theirs.dropout
    if distance is None:
        return Attention(projections, heads, dropout)
    gate = (theirs.gru_rel_pos_linear, theirs.gru_rel_pos_const)
    return GatedAttention(projections, heads, dropout, distance, *gate)


def _feed_forward(theirs: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        theirs.intermediate_dense,
        theirs.intermediate_act_fn,
        theirs.intermediate_dropout,
        theirs.output_dense,
        theirs.output_dropout,
    )


def _macaron(layer: nn.Module, rates: Tensor | None) -> MacaronBlock:
    attention = espnet_attention(layer.self_attn, layer.self_attn.num_heads, rates)
    feed_forwards = [_feed_forward(layer.ffn1), _feed_forward(layer.ffn2)]
    norms = [layer.ffn1_layer_norm, layer.ffn2_layer_norm]
    return espnet_block(layer, attention, feed_forwards, norms, layer.conv_module.activation)
