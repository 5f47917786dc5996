"""Names of well-known upstreams in, models of their shape with random weights out: to tell costs, never quality.

The sizes are those of the published configurations (fairseq's, Microsoft's for WavLM, as transformers and torchaudio repeat
them), written down here and not read from checkpoints; names are s3prl's, its aliases here, and a few that s3prl lacks.
Nothing is downloaded. What is on this machine anyway (hff_tiny, fbank, files) is loaded as it is.
"""

import json
from pathlib import Path

from hfftools.log import UserError
from hfftools.upstream import huggingface
from hfftools.upstream.base import Upstream
from hfftools.upstream.fbank import FbankUpstream
from hfftools.upstream.names import BUNDLED, load_upstream, split_pair
from hfftools.upstream.pair import PairUpstream

BASE, LARGE, XLARGE, XXLARGE = (12, 768, 12, 3072), (24, 1024, 16, 4096), (48, 1280, 16, 5120), (48, 1920, 16, 7680)


def _sizes(shape: tuple[int, int, int, int], front: str = "group", conv_bias: bool = False, **more) -> dict:
    """In transformers' words: blocks, width, heads and feed-forward; the norm of the front end, and what else differs."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    return {**dict(zip(names, shape, strict=True)), "feat_extract_norm": front, "conv_bias": conv_bias, **more}


_FIRST = {"front": "layer", "do_stable_layer_norm": True}  # layer norms in the front end, and before each sublayer
_DISTANCE = {"num_buckets": 320, "max_bucket_distance": 800}
_DEEP = {"front": "layer", "num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19}  # five positional convolutions

_KINDS = {  # transformers' model_type: sizes: names
    "wav2vec2": [
        (_sizes(BASE), "wav2vec2 wav2vec2_base wav2vec2_base_960"),
        (_sizes(LARGE), "wav2vec2_large_960"),  # as the base: group norm in the front end, norms after the sublayers
        (
            _sizes(LARGE, conv_bias=True, **_FIRST),
            "wav2vec2_large wav2vec2_large_ll60k wav2vec2_large_lv60_cv_swbd_fsh wav2vec2_large_voxpopuli_100k "
            "xlsr_53 xls_r_300m",
        ),
        (_sizes(XLARGE, conv_bias=True, **_FIRST), "xls_r_1b"),
        (_sizes(XXLARGE, conv_bias=True, **_FIRST), "xls_r_2b"),
    ],
    "hubert": [
        (
            _sizes(BASE),
            "hubert hubert_base hubert_base_robust_mgr mhubert_base_vp_en_es_fr_it3 contentvec contentvec_km100 "
            "contentvec_km500 ms_hubert",
        ),
        (_sizes(LARGE, **_FIRST), "hubert_large hubert_large_ll60k"),
    ],
    "wavlm": [
        (_sizes(BASE, **_DISTANCE), "wavlm wavlm_base wavlm_base_plus"),
        (_sizes(LARGE, **_DISTANCE, **_FIRST), "wavlm_large"),
    ],
    "data2vec-audio": [
        (_sizes(BASE, **_DEEP), "data2vec data2vec_base data2vec_base_960"),
        (_sizes(LARGE, **_DEEP), "data2vec_large data2vec_large_ll60k"),
    ],
    "wav2vec2-conformer": [
        (_sizes(LARGE, "layer", True, position_embeddings_type="relative"), "wav2vec2_conformer_relpos"),
        (_sizes(LARGE, "layer", True, position_embeddings_type="rotary"), "wav2vec2_conformer_rope"),
    ],
}
_HERE = [*BUNDLED, FbankUpstream.name]
SHAPES = {name: (kind, sizes) for kind, rows in _KINDS.items() for sizes, names in rows for name in names.split()}


def check_shape(name: str) -> None:
    """UserError, before anything is built, for a name without a shape, with those that have one."""
    for half in split_pair(name):
        if not (half in SHAPES or half in _HERE or ":" in half or "/" in half or Path(half).exists()):
            raise UserError(
                f"upstream {half}: no shape is known for it; known: {', '.join([*_HERE, *sorted(SHAPES)])}, "
                "or hf:FOLDER with a config.json"
            )


def random_upstream(name: str) -> Upstream:
    """The upstream of a name, on the CPU and in eval mode, its weights drawn at random unless they are here already.

    `hf:FOLDER` needs no more than its config.json. UserError as by check_shape, or by load_upstream for what is here.
    """
    check_shape(name)
    if len(halves := split_pair(name)) == 2:
        return PairUpstream(*map(random_upstream, halves)).eval()
    if name in SHAPES:
        kind, sizes = SHAPES[name]
        return huggingface.random(kind, dict(sizes), name)
    if name.startswith("hf:"):
        sizes = _read_config(Path(name.removeprefix("hf:")), name)
        return huggingface.random(sizes.get("model_type", "of no kind"), sizes, name)
    return load_upstream(name)


def _read_config(folder: Path, name: str) -> dict:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"upstream {name}: {folder}/config.json: {error.strerror}; save_pretrained writes it") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"upstream {name}: {folder}/config.json is broken ({error}); copy it again") from None
