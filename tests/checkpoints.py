"""Tiny models with random weights, in the very forms that the doors read; nothing here needs a network."""

import json
import zlib
from collections.abc import Callable
from typing import NamedTuple

import hf_checkpoints
import pytest
import torch
from hf_checkpoints import perturb, save_pretrained

from hfftools.upstream.hf_wav2vec2 import LanguageBlock
from hfftools.upstream.transformer import Block
from hfftools.upstream.w2v_conformer import MacaronBlock


def frames_of_convs(field, stride=320):
    """Return the formula of a front end whose frames see so many samples."""
    return lambda num: max(0, (num - field) // stride + 1)


def frames_of_whisper(num):
    return (num // 160 + 1) // 2


def frames_of_parakeet(num):
    return -(-(num // 160) // 8)


class Form(NamedTuple):
    """One checkpoint, and the tests that use it."""

    family: str  # s3prl's; of a form hf_..., the model type in transformers' config.json
    states: bool = True  # in tests/upstream/test_forms.py
    tune: bool = False  # in tests/tune/test_grid.py
    export: bool = False  # in tests/infer/test_export.py
    frames: Callable[[int], int] = frames_of_convs(400)  # of so many samples
    stride: int = 320  # samples a frame
    middle: float = 200  # of what frame 0 sees, in samples
    blocks: type = Block  # the class of its blocks
    near: float = 1e-5  # how far its states may be from its package's: log-mel of noise comes out with larger rounding


MOONSHINE = dict(frames=frames_of_convs(895, 384), stride=384, middle=447.5)
PARAKEET = dict(frames=frames_of_parakeet, stride=1280, middle=0, blocks=MacaronBlock)
FORMS = {
    "hf_wav2vec2_base": Form("wav2vec2", export=True),  # base: group norm, norms after
    "hf_hubert_base": Form("hubert", tune=True, export=True),
    "hf_wavlm_base": Form("wavlm", tune=True, export=True),
    "hf_data2vec_base": Form("data2vec-audio", tune=True),
    "hf_wav2vec2_large": Form("wav2vec2", tune=True, export=True),  # large: layer norm, norms first
    "hf_wav2vec2_mms": Form("wav2vec2", tune=True, blocks=LanguageBlock),
    "hf_hubert_large": Form("hubert"),
    "hf_wavlm_large": Form("wavlm"),
    "hf_unispeech_large": Form("unispeech"),
    "hf_unispeechsat_base": Form("unispeech-sat", tune=True),
    "hf_wav2vec2conformer_rel": Form("wav2vec2-conformer", export=True, blocks=MacaronBlock),
    "hf_wav2vec2conformer_rot": Form("wav2vec2-conformer", tune=True, export=True, blocks=MacaronBlock),
    "hf_wav2vec2conformer_none": Form("wav2vec2-conformer", blocks=MacaronBlock),
    "hf_wav2vec2bert_shaw": Form(
        "wav2vec2-bert", tune=True, export=True, frames=frames_of_convs(560), middle=280, blocks=MacaronBlock, near=5e-5
    ),
    "hf_wav2vec2bert_rel": Form(
        "wav2vec2-bert", frames=frames_of_convs(560), middle=280, blocks=MacaronBlock, near=5e-5
    ),
    "hf_whisper_cropped": Form("whisper", tune=True, export=True, frames=frames_of_whisper, middle=0),
    "hf_whisper_padded": Form("whisper", frames=frames_of_whisper, middle=0),
    "hf_moonshine_partial": Form("moonshine", tune=True, export=True, **MOONSHINE),
    "hf_moonshine_whole": Form("moonshine", **MOONSHINE),
    "hf_parakeet_encoder": Form("parakeet_encoder", tune=True, export=True, **PARAKEET),
    "hf_parakeet_ctc": Form("parakeet_ctc", tune=True, **PARAKEET),  # without biases
    "hf_parakeet_tdt": Form("parakeet_tdt", **PARAKEET),  # 128 mel bins
    "wav2vec2_base": Form("wav2vec2", tune=True),
    "wav2vec2_large": Form("wav2vec2", tune=True),
    "hubert_base": Form("hubert", tune=True),
    "hubert_large": Form("hubert"),
    "wavlm_base": Form("wavlm", tune=True, export=True),
    "wavlm_large": Form("wavlm", tune=True),
    "data2vec_base": Form("data2vec", tune=True),
    "wav2vec2conformer_rel": Form("wav2vec2", tune=True, blocks=MacaronBlock),
    "wav2vec2conformer_rope": Form("wav2vec2", tune=True, blocks=MacaronBlock),
    "wav2vec2conformer_abs": Form("wav2vec2", blocks=MacaronBlock),
    "wav2vec2_lv60": Form("wav2vec2", states=False),  # 1.3 GB: for slow tests
}
CONVS = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2"  # as many, as long and as strided as the real ones, but narrow
SIZES = dict(
    conv_feature_layers=CONVS,
    encoder_layers=3,
    encoder_embed_dim=32,
    encoder_ffn_embed_dim=48,
    encoder_attention_heads=4,
)
LARGE = dict(extractor_mode="layer_norm", conv_bias=True, layer_norm_first=True)
CONFORMER = dict(layer_type="conformer", depthwise_conv_kernel_size=7)
SETTINGS = {  # of s3prl's models, by the second part of a form
    "base": {},
    "large": LARGE,
    "lv60": {  # wav2vec2_large_ll60k's own sizes
        **LARGE,
        "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "encoder_layers": 24,
        "encoder_embed_dim": 1024,
        "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
        "latent_vars": 320,
        "final_dim": 768,
    },
    "rel": {**LARGE, **CONFORMER, "attn_type": "espnet", "pos_enc_type": "rel_pos"},
    "rope": {**CONFORMER, "attn_type": "espnet", "pos_enc_type": "rope"},
    "abs": {**LARGE, **CONFORMER, "required_seq_len_multiple": 1},  # or the odd frame out enters their convolution
}
needs_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor does not compute in bfloat16"
)


def save_converted(form, path):
    """A checkpoint as s3prl converts them."""
    family, size = FORMS[form].family, form.split("_")[1]
    large = SETTINGS[size].get("extractor_mode") == "layer_norm"
    config, task = {**SIZES, **SETTINGS[size]}, {"normalize": large, "sample_rate": 16000}
    if family == "wav2vec2":
        from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

        config = {"quantize_targets": True, "latent_vars": 4, "final_dim": 8, **config}
        model = Wav2Vec2Model(Wav2Vec2Config(**config))
    elif family == "data2vec":
        from s3prl.upstream.data2vec.data2vec_model import Data2VecAudioConfig, Data2VecAudioModel

        config.update(extractor_mode="layer_norm", pos_conv_depth=5, conv_pos=95)
        task["normalize"] = True
        model = Data2VecAudioModel(Data2VecAudioConfig(**config))
        model.remove_pretraining_modules()
    elif family == "hubert":
        from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

        config.update(final_dim=8, label_rate=50.0)
        symbols = [["a", "b", "c"]]
        task["label_rate"] = 50.0
        model = HubertModel(HubertConfig(**config), HubertPretrainingConfig(**task), symbols)
    else:
        from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

        config.update(relative_position_embedding=True, gru_rel_pos=True, normalize=large)
        config.update(num_buckets=32, max_distance=80)
        model = WavLM(WavLMConfig(config))
    perturb(model)
    if family == "wavlm":
        torch.save({"cfg": config, "model": model.state_dict()}, path)
        return
    state = {"task_cfg": task, "model_cfg": config, "model_weight": model.state_dict()}
    if family == "hubert":
        state["dictionaries_symbols"] = symbols
    if family == "data2vec":
        state["model_weight"]["_ema"] = {}
    torch.save(state, path)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """form -> the path of its checkpoint, made once."""
    paths = {}

    def save(form):
        if form not in paths:
            torch.manual_seed(zlib.crc32(form.encode()))  # the same weights, whichever tests run
            root = tmp_path_factory.mktemp(form)
            paths[form] = root if form.startswith("hf_") else root / "checkpoint.pt"
            (save_pretrained if form.startswith("hf_") else save_converted)(form, paths[form])
        return paths[form]

    return save


@pytest.fixture(scope="session")
def spelled(saved):
    """form -> the name that load_upstream takes."""

    def spell(form):
        kind = "hf" if form.startswith("hf_") else f"{FORMS[form].family}_local"
        kind += "_padded" if form.endswith("_padded") else ""
        return f"{kind}:{saved(form)}"

    return spell


@pytest.fixture(scope="session")
def theirs(saved):
    """form -> its package's own model: one waveform [N] in, its hidden states out, of frames marked in [T] if any."""

    def load(form):
        path = str(saved(form))
        if not form.startswith("hf_"):
            expert = pytest.importorskip(f"s3prl.upstream.{FORMS[form].family}.expert").UpstreamExpert(path).eval()
            return lambda wav: expert([wav])["hidden_states"]
        return hf_checkpoints.load_states(form, path)

    return load


@pytest.fixture
def edit_json():
    def edit(path, **changes):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit
