"""MMS: the adapters of a language, from the file that its name chooses, and what is refused."""

import shutil

import checkpoints
import pytest
import torch
from safetensors.torch import load_file, save_file

from hfftools.log import UserError
from hfftools.upstream.names import load_upstream, parse

ID = "some-lab/mms-tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a head, as MMS is published: in its weights one language, in files by themselves three."""
    import transformers

    folder = tmp_path_factory.mktemp("mms")
    torch.manual_seed(1)
    settings = {**checkpoints.hf_checkpoints.SIZES, **checkpoints.hf_checkpoints.SETTINGS["mms"], "vocab_size": 11}
    model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**settings))
    checkpoints.perturb(model)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    for language in ("fra", "deu", "uzb-script_latin"):
        tensors = {name: torch.randn_like(tensor) for name, tensor in model._get_adapters().items()}
        save_file(tensors, folder / f"adapter.{language}.safetensors", {"format": "pt"})
    torch.save(tensors, folder / "adapter.fas.bin")
    return folder


@torch.no_grad()
def states(model, wav_N):
    return model(wav_N[None], torch.tensor([len(wav_N)]), model.all_layers)[0]


@pytest.mark.parametrize("language", ["", "fra", "fas"])
@torch.no_grad()
def test_its_states_are_those_of_transformers(folder, language):
    import transformers

    wav_N = 0.1 * torch.randn(8000)
    theirs = transformers.Wav2Vec2ForCTC.from_pretrained(folder).eval()
    if language:
        theirs.load_adapter(language)
    inputs = transformers.AutoFeatureExtractor.from_pretrained(folder)(wav_N, sampling_rate=16000, return_tensors="pt")
    expected = theirs(inputs.input_values, output_hidden_states=True).hidden_states
    ours = states(load_upstream(f"hf:{folder}" + (f"@{language}" if language else "")), wav_N)
    for layer, h_BTD in enumerate(expected):
        assert h_BTD.std() > 0.1 and (h_BTD - ours[layer]).abs().max() < 1e-4, layer


def test_each_language_is_another_model_to_every_record(folder):
    sources = [parse(f"hf:{folder}{end}") for end in ("", "@fra", "@deu", "@fas")]
    assert len({source.digests()["upstream"] for source in sources}) == 4
    for source in sources:
        model = source.load()
        assert model.digests == source.digests() and model.name == source.text == source.pinned
    assert sources[1].short_name == f"{folder.name}-fra" and sources[1].random().num_layers == 3


def refused(name, what):
    with pytest.raises(UserError, match=what) as caught:
        load_upstream(name)
    assert str(caught.value).startswith(f"upstream {name}: ") and "\n" not in str(caught.value)


def test_what_is_refused(folder, tmp_path, saved):
    refused(f"hf:{folder}@frx", "has no adapter.frx.safetensors; it has deu, fas, fra, uzb-script_latin$")
    refused(f"hf:{saved('hf_wav2vec2_large')}@fra", "this model has no variants; leave out @fra$")
    refused(f"hf:{saved('hf_wav2vec2_mms')}@fra", "has no adapter.fra.safetensors; nor any other$")
    copy = shutil.copytree(folder, tmp_path / "copy")
    for number in range(50):
        (copy / f"adapter.a{number}.bin").touch()
    refused(f"hf:{copy}@frx", "did you mean fra")
    tensors = load_file(copy / "adapter.fra.safetensors")
    name = "encoder.layers.2.adapter_layer.linear_1.weight"
    save_file({key: tensors[key] for key in tensors if not key.endswith(name)}, copy / "adapter.fra.safetensors")
    refused(f"hf:{copy}@fra", rf"adapter.fra.safetensors has no tensor {name} of the shape \(8, 32\)$")
    (copy / "adapter.deu.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="adapter.deu.safetensors is damaged"):
        load_upstream(f"hf:{copy}@deu")


def test_a_language_of_a_repository_of_the_hub(folder, online, monkeypatch):
    commit = online.push(ID, folder)
    source = parse(f"hf:{ID}@fra")
    assert source.pinned == f"hf:{ID}@{commit}@fra" and source.digests() == {}
    model = source.load()
    assert "adapter.fra.safetensors" in online.names and "adapter.deu.safetensors" not in online.names
    assert model.digests == source.digests() == parse(f"hf:{folder}@fra").digests()
    refused(f"hf:{ID}@{commit}@frx", "has no adapter.frx.safetensors; it has deu, fas, fra, uzb-script_latin$")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_upstream(f"hf:{ID}@{commit}@fra").hash == model.hash
    refused(f"hf:{ID}@{commit}@deu", "hf download .* 'adapter.deu.safetensors'` on a machine")
