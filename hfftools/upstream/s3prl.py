"""Load upstreams of s3prl: the name of one of its upstreams, or a checkpoint converted for it.

s3prl knows where checkpoints lie and how to read them; the layers it builds are run by TransformerUpstream. Its module
s3prl.hub is never imported: it needs parts of torchaudio that are gone since 2.9, while the families below do not.
"""

import importlib
import re
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from hfftools import memory
from hfftools.data.inputs import file_digest
from hfftools.log import UserError, log, require
from hfftools.upstream import huggingface
from hfftools.upstream.base import Upstream, model_digests
from hfftools.upstream.checkpoint_files import cache_file, fetch
from hfftools.upstream.front_end import ConvLayer, FrontEnd
from hfftools.upstream.shapes import SHAPES
from hfftools.upstream.source import Source
from hfftools.upstream.transformer import (
    Activation,
    Attention,
    Block,
    DistanceBias,
    GatedAttention,
    Position,
    TransformerUpstream,
)
from hfftools.upstream.w2v_conformer import MacaronBlock, espnet_attention, espnet_block

FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec")
ALIASES = {
    "wav2vec2_base": "wav2vec2_base_960",
    "wav2vec2_large": "wav2vec2_large_ll60k",  # facebook/wav2vec2-large-lv60
    "hubert_large": "hubert_large_ll60k",
    "data2vec_base": "data2vec_base_960",
    "data2vec_large": "data2vec_large_ll60k",
}
WAV_EPS = 1e-5  # fairseq normalises waveforms with layer_norm, and this is its epsilon


def registered() -> dict[str, str]:
    """Return {name: family} of every checkpoint that s3prl registers and hff can run."""
    known = {}
    for family in FAMILIES:
        hub = _import(family, "hubconf")
        for name, value in vars(hub).items():
            registered = callable(value) and getattr(value, "__module__", "") == hub.__name__
            by_hand = name.endswith(("_local", "_custom", "_url"))
            if registered and not by_hand and not name.startswith("_"):
                known[name] = family
    return known


class Door(Source):
    """A registered name or alias, downloaded on first use; or `<family>_local:FILE`, a converted checkpoint."""

    kinds = tuple(f"{family}_local" for family in FAMILIES)

    def __init__(self, text: str):
        super().__init__(text)
        if self.kind:
            self.family = self.kind.removesuffix("_local")
            require(
                Path(self.path).is_file(),
                f"upstream {text}: {self.path} does not exist; give a checkpoint converted for s3prl's {self.family}",
            )
            if self.family == "wavlm":  # of the others fairseq's settings in the file decide
                self.places = Block.PLACES
        else:
            self.real = ALIASES.get(text, text)
            self.places = MacaronBlock.PLACES if "conformer" in self.real else Block.PLACES

    @classmethod
    def names(cls) -> list[str]:
        return [*ALIASES, *registered()]

    @classmethod
    def claims(cls, text: str) -> bool:
        return text in SHAPES or super().claims(text)  # most names are known without the import of s3prl

    def load(self) -> TransformerUpstream:
        """Return the model; raise UserError for a file that is unreadable or not of the family, or without a network."""
        if not self.kind and self.real != self.text:
            log.info("upstream %s is s3prl's %s", self.text, self.real)
        family = self.family if self.kind else registered()[self.real]
        path = Path(self.path) if self.kind else fetch(url_of(self.real, family))
        try:
            # weights are drawn before they are loaded
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's, about the weight norm that s3prl builds with
                model, normalise = _read(family, path)
        except Exception as error:  # a file cut short, of another kind or of another family: of whatever type
            if isinstance(error, UserError) or memory.ran_out(error):
                raise
            fix = "if it is fairseq's, convert it first" if self.kind else "delete it to have it downloaded again"
            line = str(error).split("\n")[0]
            raise UserError(
                f"upstream {self.text}: {path} is not a checkpoint of s3prl's {family} ({line}); {fix}"
            ) from None
        return _upstream(model, normalise, self.text, file_digest(path))

    def digests(self) -> dict[str, str]:
        file = Path(self.path) if self.kind else cache_file(url_of(self.real, registered()[self.real]))
        return model_digests(file_digest(file)) if file.is_file() else {}

    def check_sizes(self) -> None:
        require(
            bool(self.kind) or self.text in SHAPES,
            f"upstream {self.text}: no sizes are known for it; known: {', '.join(sorted(SHAPES))}, or hf:FOLDER with a "
            "config.json",
        )

    def random(self) -> Upstream:
        """Return a model of the published sizes with random weights; the model itself where it is a file."""
        self.check_sizes()
        if self.kind:
            return self.load()
        model_type, sizes = SHAPES[self.text]
        return huggingface.random(model_type, dict(sizes), self.text)


class _Found(Exception):
    pass


def url_of(name: str, family: str) -> str:
    """Return the URL that s3prl would download for a registered name: its own function is stopped before it does so."""
    hub: Any = _import(family, "hubconf")

    def stop(url: str, **_) -> None:
        raise _Found(url)

    with patch.object(hub, "_urls_to_filepaths", stop):
        try:
            getattr(hub, name)()
        except _Found as found:
            return found.args[0]
    raise UserError(f"upstream {name}: s3prl names no single file to download for it")


def _import(family: str, part: str) -> ModuleType:
    try:
        return importlib.import_module(f"s3prl.upstream.{family}.{part}")
    except ImportError as error:
        raise UserError(f"s3prl's models need the package s3prl ({error}): pip install s3prl") from None


def _read(family: str, path: Path) -> tuple[nn.Module, bool]:
    """Return s3prl's model with the checkpoint's weights, and whether it wants normalised waveforms; no code is run."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    _check_settings(state["cfg"] if family == "wavlm" else state["model_cfg"])
    if family == "wavlm":
        wavlm = _import("wavlm", "WavLM")
        config = wavlm.WavLMConfig(state["cfg"])
        model = wavlm.WavLM(config)
        model.load_state_dict(state["model"])
        return model, config.normalize
    convert = _import(family, "convert")
    # a torch whose `load` gives the state: s3prl's own call leaves weights_only to torch and the environment
    with patch.object(convert, "torch", SimpleNamespace(load=lambda *_, **__: state)):
        model, task = convert.load_converted_model(str(path))
    return model, task.normalize


def _check_settings(settings: dict[str, Any]) -> None:
    """Raise ValueError unless the settings that s3prl gives to `eval` are what they ought to be: sizes of convolutions."""
    layers = str(settings.get("conv_feature_layers", ""))
    if not re.fullmatch(r"[\d\s()\[\],+*]*", layers) or "**" in layers or len(layers) > 1000:
        raise ValueError(f"conv_feature_layers is not a list of sizes: {layers[:80]!r}")


def _upstream(model: Any, normalise: bool, name: str, digest: str) -> TransformerUpstream:
    encoder = model.encoder
    if getattr(model, "input_quantizer", None) is not None:
        raise UserError(f"upstream {name}: models that quantise what enters their blocks are not supported")
    front = FrontEnd(
        [_conv_layer(layer) for layer in model.feature_extractor.conv_layers],
        model.layer_norm,
        model.post_extract_proj,
        model.dropout_input,
        WAV_EPS if normalise else None,
    )
    norm_first = encoder.layer_norm_first
    if hasattr(encoder, "embed_positions"):  # a ConformerEncoder builds a positional convolution, and passes it by
        convs = []
    else:
        for conv in encoder.pos_conv.modules():
            _renew_weight_norm(conv)
        convs = list(encoder.pos_conv) if isinstance(encoder.pos_conv[0], nn.Sequential) else [encoder.pos_conv]
    position = Position(convs, None if norm_first else encoder.layer_norm, encoder.dropout)
    first: Any = getattr(encoder.layers[0], "self_attn", None)
    distance = None
    if getattr(first, "has_relative_attention_bias", False):
        distance = DistanceBias(first.relative_attention_bias, first.max_distance)
    blocks = [_block(layer, distance, name) for layer in encoder.layers]
    if distance is not None:
        blocks[0].attention.distance = distance
    final_norm = encoder.layer_norm if norm_first else None
    return TransformerUpstream(name, digest, front, position, blocks, final_norm, getattr(model, "mask_emb", None))


def _renew_weight_norm(conv: Any) -> None:
    """Replace torch's former weight norm, whose computed tensor in the module prevents copies, by the new one."""
    if hasattr(conv, "weight_g"):
        g, v = conv.weight_g.detach(), conv.weight_v.detach()
        nn.utils.remove_weight_norm(conv)
        nn.utils.parametrizations.weight_norm(conv, dim=2)
        conv.parametrizations.weight.original0.data, conv.parametrizations.weight.original1.data = g, v


def _conv_layer(layer: Any) -> ConvLayer:
    """Return our layer of s3prl's: convolution, dropout of 0, perhaps a norm, activation.

    Their layer norm stands between two transpositions.
    """
    norms = [part for part in layer.modules() if isinstance(part, (nn.GroupNorm, nn.LayerNorm))]
    return ConvLayer(layer[0], norms[0] if norms else None, layer[-1])


def _block(layer: Any, distance: DistanceBias | None, name: str) -> Block | MacaronBlock:
    if hasattr(layer, "conv_module"):
        return _macaron(layer, name)
    if not hasattr(layer, "fc1"):
        known = "those of Transformers and wav2vec 2.0 Conformers"
        raise UserError(f"upstream {name}: blocks of the class {type(layer).__name__} are not supported, only {known}")
    attention = _attention(layer.self_attn, distance)
    feed_forward = nn.Sequential(layer.fc1, Activation(layer.activation_fn), layer.dropout2, layer.fc2, layer.dropout3)
    norms = layer.self_attn_layer_norm, layer.final_layer_norm
    return Block(attention, norms[0], feed_forward, norms[1], layer.dropout1, layer.layer_norm_first)


def _attention(theirs: Any, distance: DistanceBias | None = None) -> Attention:
    projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.out_proj)
    heads, dropout = theirs.num_heads, theirs.dropout_module.p
    if distance is None:
        return Attention(projections, heads, dropout)
    return GatedAttention(projections, heads, dropout, distance, theirs.grep_linear, theirs.grep_a)


def _macaron(layer: Any, name: str) -> MacaronBlock:
    theirs, feeds = layer.self_attn, (layer.ffn1, layer.ffn2)
    if hasattr(theirs, "linear_q"):
        attention = espnet_attention(
            theirs, theirs.h, theirs.rotary_emb.inv_freq if hasattr(theirs, "rotary_emb") else None
        )
    elif layer.pos_enc_type == "rel_pos":
        raise UserError(f"upstream {name}: relative positions need fairseq's attn_type espnet")
    else:
        attention = _attention(theirs)
    # the SiLU are new: s3prl's work in place, on what the linear layer before them has put out
    feed_forwards = [nn.Sequential(feed.w_1, nn.SiLU(), feed.dropout1, feed.w_2, feed.dropout2) for feed in feeds]
    return espnet_block(layer, attention, feed_forwards, [feed.layer_norm for feed in feeds], nn.SiLU())
