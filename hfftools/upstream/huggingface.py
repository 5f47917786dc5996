"""The door to transformers: a folder of save_pretrained in, a TransformerUpstream out; nothing is ever downloaded."""

import json
from pathlib import Path

import torch
from torch import nn

from hfftools.log import UserError
from hfftools.upstream.cache import file_hash
from hfftools.upstream.transformer import Attention, Block, ConvLayer, FrontEnd, Position, TransformerUpstream

MODELS = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel"}  # model_type in config.json: class
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # one file or its shards
WAV_EPS = 1e-7  # what Wav2Vec2FeatureExtractor adds to the variance
RATE_HZ = 16000


def load(folder: Path, name: str) -> TransformerUpstream:
    """Read a model; UserError that names what the folder lacks, or why the model cannot be run."""
    if not folder.is_dir():
        raise UserError(f"upstream {name}: {folder} is not a folder; give one written by save_pretrained")
    config, extractor = (_read_json(folder / file, name) for file in ("config.json", "preprocessor_config.json"))
    kind = config.get("model_type")
    if kind not in MODELS:
        raise UserError(f"upstream {name}: model type {kind} is not supported; known: {', '.join(MODELS)}")
    if extractor.get("sampling_rate", RATE_HZ) != RATE_HZ:
        raise UserError(f"upstream {name}: {folder} was trained at {extractor['sampling_rate']} Hz, not at {RATE_HZ}")
    weights = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), None)
    if weights is None:
        raise UserError(f"upstream {name}: {folder} holds no weights ({' or '.join(WEIGHTS)})")
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"upstream {name} needs the package transformers ({error}): pip install transformers") from None
    try:
        with torch.random.fork_rng(devices=[]):
            model, report = getattr(transformers, MODELS[kind]).from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # whatever type the reader of this or that file format raises
        line = str(error).split("\n")[0]
        raise UserError(f"upstream {name}: transformers cannot read {folder} ({line}); save it again") from None
    missing = [key for key in report["missing_keys"] if "masked_spec_embed" not in key]
    if missing:  # transformers would only warn, and leave them random
        raise UserError(f"upstream {name}: the weights in {folder} lack {len(missing)} tensors, first {missing[0]}")
    return _upstream(model, extractor.get("do_normalize", True), name, file_hash(*weights))


def _read_json(path: Path, name: str) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"upstream {name}: {path} does not exist; copy it from where the model comes from") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"upstream {name}: {path} is broken ({error}); copy it again") from None


def _upstream(model: nn.Module, normalise: bool, name: str, digest: str) -> TransformerUpstream:
    encoder, projection, norm_first = model.encoder, model.feature_projection, model.config.do_stable_layer_norm
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
    theirs = encoder.pos_conv_embed
    convs = [nn.Sequential(theirs.conv, theirs.padding, theirs.activation)]
    if getattr(theirs, "batch_norm", None) is not None:
        convs.insert(0, theirs.batch_norm)
    position = Position(convs, None if norm_first else encoder.layer_norm, encoder.dropout.p)
    blocks = [_block(layer, norm_first) for layer in encoder.layers]
    return TransformerUpstream(name, digest, front, position, blocks, encoder.layer_norm if norm_first else None)


def _block(layer: nn.Module, norm_first: bool) -> Block:
    theirs, feed = layer.attention, layer.feed_forward
    projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.out_proj)
    feed_forward = nn.Sequential(
        feed.intermediate_dense,
        feed.intermediate_act_fn,
        feed.intermediate_dropout,
        feed.output_dense,
        feed.output_dropout,
    )
    attention = Attention(projections, theirs.num_heads, theirs.dropout)
    return Block(attention, layer.layer_norm, feed_forward, layer.final_layer_norm, layer.dropout, norm_first)
