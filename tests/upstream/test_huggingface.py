"""What folders of save_pretrained may lack, and models of transformers' shapes without any folder."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfftools.log import UserError
from hfftools.upstream import hf_wav2vec2, huggingface
from hfftools.upstream.names import load_upstream, parse
from hfftools.upstream.w2v_conformer import RotaryAttention


def test_huggingface_folder_lacks(saved, tmp_path, edit_json):
    def refused(folder, what):
        with pytest.raises(UserError, match=what) as caught:
            load_upstream(f"hf:{folder}")
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)

    refused(tmp_path / "none", "is not a folder")
    folder = tmp_path / "model"
    for file, what in (
        ("config.json", "config.json does not exist"),
        ("preprocessor_config.json", "preprocessor_config.json does not exist"),
        ("model.safetensors", "holds no weights"),
    ):
        shutil.copytree(saved("hf_hubert_base"), folder, dirs_exist_ok=True)
        (folder / file).unlink()
        refused(folder, what)
    (folder / "model.safetensors").write_bytes(b"broken")
    refused(folder, "transformers cannot read")
    shutil.copytree(saved("hf_hubert_base"), folder, dirs_exist_ok=True)
    edit_json(folder / "config.json", num_hidden_layers=4)
    refused(folder, "model.safetensors lacks 16 tensors, first encoder.layers.3")
    edit_json(folder / "config.json", model_type="sew")
    for door in (load_upstream, parse):
        with pytest.raises(UserError, match="model type sew is not supported; known: wav2vec2, .*wav2vec2-conformer, "):
            door(f"hf:{folder}")
    edit_json(folder / "config.json", model_type="hubert")
    edit_json(folder / "preprocessor_config.json", sampling_rate=8000)
    refused(folder, "trained at 8000 Hz")
    (folder / "config.json").write_text("{")
    refused(folder, "is broken")


def test_without_a_mask_embedding(saved, tmp_path):
    folder = shutil.copytree(saved("hf_wavlm_base"), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["masked_spec_embed"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = load_upstream(f"hf:{folder}")
    assert model.mask_embedding is None
    states, _ = model(torch.randn(1, 4000), torch.tensor([4000]), [3], augment=lambda x_BTD, *_: 0 * x_BTD)
    assert states[3].isfinite().all()


def test_mask_embedding_is_found_where_the_config_would_not_use_it(saved, tmp_path, edit_json):
    folder = shutil.copytree(saved("hf_wavlm_base"), tmp_path / "model")
    edit_json(folder / "config.json", mask_time_prob=0.0)
    expected = load_file(folder / "model.safetensors")["masked_spec_embed"]
    assert torch.equal(load_upstream(f"hf:{folder}").mask_embedding, expected)


SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=[16] * 7)


@pytest.mark.parametrize("kind", hf_wav2vec2.MODELS)
def test_random_has_the_shape_asked_for(kind):
    torch.manual_seed(5)
    one, other = (huggingface.random(kind, SIZES, "mine") for _ in range(2))
    torch.manual_seed(5)
    again = huggingface.random(kind, SIZES, "mine")
    assert (one.name, one.hash, one.num_layers, one.dim, one.stride_samples) == ("mine", "random", 2, 32, 320)
    assert one.mask_embedding.shape == (32,) and not any(part.training for part in one.modules())
    batch = torch.randn(1, 4000), torch.tensor([4000]), [0, 2]
    with torch.no_grad():
        states = [model(*batch)[0][2] for model in (one, again, other)]
    assert states[0].isfinite().all() and torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_random_takes_a_whole_config(saved):
    config = json.loads((saved("hf_wav2vec2conformer_rot") / "config.json").read_text())
    model = huggingface.random(config["model_type"], config, "mine")
    assert model.num_layers == 3 and isinstance(model.blocks()[0].attention, RotaryAttention)
    assert model.front.wav_eps is None and huggingface.random("data2vec-audio", SIZES, "mine").front.wav_eps is not None


def test_random_refuses():
    with pytest.raises(UserError, match="^upstream mine: model type sew is not supported; known: wav2vec2, "):
        huggingface.random("sew", SIZES, "mine")
    with pytest.raises(UserError, match="^upstream mine: transformers cannot build a wavlm of these sizes .*$"):
        huggingface.random("wavlm", {**SIZES, "num_attention_heads": 5}, "mine")
