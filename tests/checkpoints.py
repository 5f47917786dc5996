"""Tiny models with random weights, in the very forms that the doors read; nothing here needs a network."""

import json
import zlib
from functools import partial
from typing import NamedTuple

import pytest
import torch


def frames_of(family, num):
    """The frames of `num` samples, by the formula of a family."""
    return (num // 160 + 1) // 2 if family == "whisper" else max(0, (num - 400) // 320 + 1)


class Form(NamedTuple):
    """One checkpoint, and the tests that use it."""

    family: str  # s3prl's; of a form hf_..., the model type in transformers' config.json
    states: bool = True  # in tests/upstream/test_forms.py
    tune: bool = False  # in tests/tune/test_grid.py
    export: bool = False  # in tests/infer/test_export.py


FORMS = {
    "hf_wav2vec2_base": Form("wav2vec2", export=True),  # base: group norm, norms after
    "hf_hubert_base": Form("hubert", tune=True, export=True),
    "hf_wavlm_base": Form("wavlm", tune=True, export=True),
    "hf_data2vec_base": Form("data2vec-audio", tune=True),
    "hf_wav2vec2_large": Form("wav2vec2", tune=True, export=True),  # large: layer norm, norms first
    "hf_hubert_large": Form("hubert"),
    "hf_wavlm_large": Form("wavlm"),
    "hf_unispeech_large": Form("unispeech"),
    "hf_unispeechsat_base": Form("unispeech-sat", tune=True),
    "hf_wav2vec2conformer_rel": Form("wav2vec2-conformer", export=True),
    "hf_wav2vec2conformer_rot": Form("wav2vec2-conformer", tune=True, export=True),
    "hf_wav2vec2conformer_none": Form("wav2vec2-conformer"),
    "hf_whisper_cropped": Form("whisper", tune=True, export=True),
    "hf_whisper_padded": Form("whisper"),
    "wav2vec2_base": Form("wav2vec2", tune=True),
    "wav2vec2_large": Form("wav2vec2", tune=True),
    "hubert_base": Form("hubert", tune=True),
    "hubert_large": Form("hubert"),
    "wavlm_base": Form("wavlm", tune=True, export=True),
    "wavlm_large": Form("wavlm", tune=True),
    "data2vec_base": Form("data2vec", tune=True),
    "wav2vec2conformer_rel": Form("wav2vec2", tune=True),
    "wav2vec2conformer_rope": Form("wav2vec2", tune=True),
    "wav2vec2conformer_abs": Form("wav2vec2"),
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
HF_SIZES = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7)
HF_LARGE = dict(feat_extract_norm="layer", conv_bias=True)
WHISPER_SIZES = dict(d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=48, vocab_size=30)
WHISPER_SIZES |= dict(decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16)
WHISPER_SIZES |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
HF_CLASSES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "unispeech": "UniSpeech",
    "unispeechsat": "UniSpeechSat",
    "data2vec": "Data2VecAudio",
    "wav2vec2conformer": "Wav2Vec2Conformer",
    "whisper": "Whisper",
}
HF_SETTINGS = {  # of transformers' models, by the last part of a form
    "base": {},
    "large": {**HF_LARGE, "do_stable_layer_norm": True},
    "rel": {**HF_LARGE, "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 7},
    "rot": {"position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 7, "hidden_act": "swish"},
    "none": {**HF_LARGE, "position_embeddings_type": None, "conv_depthwise_kernel_size": 7},
}

needs_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor does not compute in bfloat16"
)


def perturb(model):
    """Weights away from the ones and zeros that they start from, so that no norm or bias is an identity."""
    for param in model.parameters():
        param.data += 0.1 * torch.randn_like(param)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)


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


def save_pretrained(form, folder):
    """A folder as transformers saves them."""
    import transformers

    _, family, size = form.split("_")
    settings = WHISPER_SIZES if family == "whisper" else {**HF_SIZES, **HF_SETTINGS[size]}
    if family == "wavlm":
        settings.update(num_buckets=32, max_bucket_distance=80)
    model_class = getattr(transformers, f"{HF_CLASSES[family]}Model")
    model = model_class(model_class.config_class(**settings))
    perturb(model)
    model.save_pretrained(folder)
    if family == "whisper":
        transformers.WhisperFeatureExtractor().save_pretrained(folder)
        return
    large = family == "data2vec" or settings.get("feat_extract_norm") == "layer"
    transformers.Wav2Vec2FeatureExtractor(do_normalize=large, return_attention_mask=large).save_pretrained(folder)


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


def whisper_states(encoder, extractor, padded, wav, masked_T=None):
    """The states of transformers' encoder for one waveform: its own, or of its blocks over the utterance's frames."""
    mel = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    frames = (len(wav) // 160 + 1) // 2
    if padded and masked_T is None:
        return [h[:, :frames] for h in encoder(mel, output_hidden_states=True).hidden_states]
    gelu = torch.nn.functional.gelu
    x_BTD = gelu(encoder.conv2(gelu(encoder.conv1(mel)))).transpose(1, 2)
    x_BTD = x_BTD if padded else x_BTD[:, :frames]
    if masked_T is not None:
        x_BTD[:, : len(masked_T)][:, masked_T] = 0.0
    states = [x_BTD + encoder.embed_positions.weight[: x_BTD.shape[1]]]
    for layer in encoder.layers:
        states.append(layer(states[-1], None))
    return [h[:, :frames] for h in [*states[:-1], encoder.layer_norm(states[-1])]]


@pytest.fixture(scope="session")
def theirs(saved):
    """form -> its package's own model: one waveform [N] in, its hidden states out, of frames marked in [T] if any."""

    def load(form):
        path = str(saved(form))
        if not form.startswith("hf_"):
            expert = pytest.importorskip(f"s3prl.upstream.{FORMS[form].family}.expert").UpstreamExpert(path).eval()
            return lambda wav: expert([wav])["hidden_states"]
        import transformers

        model = transformers.AutoModel.from_pretrained(path).eval()
        if FORMS[form].family == "whisper":
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(path)
            return partial(whisper_states, model.encoder, extractor, form.endswith("_padded"))
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(path)

        def states(wav, masked_T=None):
            inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_values
            masked = {} if masked_T is None else {"mask_time_indices": masked_T[None]}
            return model(inputs, output_hidden_states=True, **masked).hidden_states

        return states

    return load


@pytest.fixture
def edit_json():
    def edit(path, **changes):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit
