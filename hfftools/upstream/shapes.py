"""List the sizes of well-known upstreams, by s3prl's names and our aliases, to measure costs with random weights.

They are those of the published configurations (fairseq's, Microsoft's for WavLM, as transformers and torchaudio repeat
them), written down here and not read from checkpoints, so that nothing is downloaded.
"""

from typing import Any

BASE, LARGE, XLARGE, XXLARGE = (12, 768, 12, 3072), (24, 1024, 16, 4096), (48, 1280, 16, 5120), (48, 1920, 16, 7680)


def _sizes(shape: tuple[int, int, int, int], front: str = "group", conv_bias: bool = False, **more) -> dict:
    """Return a configuration in transformers' words.

    `shape` is blocks, width, heads and feed-forward; `front` is the norm of the front end; `more` is what else differs.
    """
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    return {**dict(zip(names, shape, strict=True)), "feat_extract_norm": front, "conv_bias": conv_bias, **more}


# layer norms in the front end, and before each sublayer
_FIRST: dict[str, Any] = {"front": "layer", "do_stable_layer_norm": True}
_DISTANCE: dict[str, Any] = {"num_buckets": 320, "max_bucket_distance": 800}
# five positional convolutions
_DEEP: dict[str, Any] = {"front": "layer", "num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19}

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
SHAPES: dict[str, tuple[str, dict]] = {}  # name: (model_type, sizes)
for _kind, _rows in _KINDS.items():
    for _row, _names in _rows:
        SHAPES |= dict.fromkeys(_names.split(), (_kind, _row))
