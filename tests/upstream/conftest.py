"""Tiny models with random weights, in the very forms that the doors read; nothing here needs a network."""

import json

import pytest
import torch

CONVS = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2"  # as many, as long and as strided as the real ones, but narrow
SIZES = dict(
    conv_feature_layers=CONVS,
    encoder_layers=3,
    encoder_embed_dim=32,
    encoder_ffn_embed_dim=48,
    encoder_attention_heads=4,
)
LARGE = dict(extractor_mode="layer_norm", conv_bias=True, layer_norm_first=True)


def perturb(model):
    """Weights away from the ones and zeros that they start from, so that no norm or bias is an identity."""
    for param in model.parameters():
        param.data += 0.1 * torch.randn_like(param)


def save_converted(form, path):
    """A checkpoint as s3prl converts them."""
    family, size = form.split("_")
    large = size == "large"
    config, task = {**SIZES, **(LARGE if large else {})}, {"normalize": large, "sample_rate": 16000}
    if family == "wav2vec2":
        from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

        config.update(quantize_targets=True, latent_vars=4, final_dim=8)
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
    large = size == "large"
    kind = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert"}[family]
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16,) * 7,
        do_stable_layer_norm=large,
        feat_extract_norm="layer" if large else "group",
        conv_bias=large,
    )
    model = getattr(transformers, f"{kind}Model")(config)
    perturb(model)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=large, return_attention_mask=large).save_pretrained(folder)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """form -> the path of its checkpoint, made once."""
    paths = {}

    def save(form):
        if form not in paths:
            torch.manual_seed(len(paths))
            root = tmp_path_factory.mktemp(form)
            paths[form] = root if form.startswith("hf_") else root / "checkpoint.pt"
            (save_pretrained if form.startswith("hf_") else save_converted)(form, paths[form])
        return paths[form]

    return save


@pytest.fixture(scope="session")
def spelled(saved):
    """form -> the name that load_upstream takes."""

    def spell(form):
        kind = "hf" if form.startswith("hf_") else f"{form.split('_')[0]}_local"
        return f"{kind}:{saved(form)}"

    return spell


@pytest.fixture
def edit_json():
    def edit(path, **changes):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit
