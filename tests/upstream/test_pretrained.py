"""Every tensor of an upstream comes from its checkpoint, in whatever form it is stored; what is missing is an error."""

import json
import logging
import re
import shutil

import checkpoints
import pytest
import torch
from hf_checkpoints import SIZES, perturb
from safetensors.torch import load_file, save_file

from hfftools.log import UserError
from hfftools.upstream.names import load_upstream, parse

HF_FORMS = [form for form in checkpoints.FORMS if form.startswith("hf_")]
HEADS = ("ctc_head", "decoder", "encoder_projector", "joint")
RENAMED = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def same(tensor):
    return tuple(tensor.shape), tensor.float().sum().item(), tensor.float().abs().sum().item()


@pytest.mark.parametrize("form", HF_FORMS)
def test_every_tensor_is_the_checkpoint_s_and_each_missing_one_is_counted(form, spelled, saved, tmp_path):
    name = spelled(form)
    stored = load_file(saved(form) / "model.safetensors")
    known = {same(tensor) for tensor in stored.values()}
    model = load_upstream(name)
    own = [key for key, tensor in model.named_parameters() if same(tensor) not in known]
    assert not own, own  # no random one
    folder = shutil.copytree(saved(form), tmp_path / "model")
    family = parse(name).family
    left_out = (*getattr(family, "OPTIONAL", ()), *(HEADS if form.startswith("hf_parakeet") else ()))
    needed = {key for key in stored if key not in left_out and key.partition(".")[0] not in left_out}
    kept = min(needed)
    save_file({kept: stored[kept]}, folder / "model.safetensors", {"format": "pt"})
    first = min(needed - {kept})
    if form.startswith("hf_parakeet"):
        first = first.removeprefix("encoder.")  # what transformers loads is the encoder alone
    with pytest.raises(UserError, match=f"{folder}/model.safetensors lacks {len(needed) - 1} tensors, first {first}$"):
        load_upstream(f"{name.partition(':')[0]}:{folder}")


def test_the_encoder_of_whisper_is_enough(spelled, saved, tmp_path):
    folder = shutil.copytree(saved("hf_whisper_base"), tmp_path / "model")
    stored = load_file(folder / "model.safetensors")
    encoder = {key: tensor for key, tensor in stored.items() if key.startswith("encoder.")}
    assert len(encoder) < len(stored)
    save_file(encoder, folder / "model.safetensors", {"format": "pt"})
    wav_BN, num_B, layers = torch.randn(1, 8000), torch.tensor([8000]), [0, 3]
    whole, alone = (
        load_upstream(name)(wav_BN, num_B, layers)[0] for name in (spelled("hf_whisper_base"), f"hf:{folder}")
    )
    assert all(torch.equal(whole[n], alone[n]) for n in layers)


def rewrite(folder, how):
    """Store the weights of a folder in another form."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    if how == "weight_g":
        for new, old in RENAMED.items():
            tensors = {key.replace(new, old): tensor for key, tensor in tensors.items()}
        assert any(key.endswith("weight_g") for key in tensors)
    if how in ("float16", "bfloat16"):
        tensors = {key: tensor.to(getattr(torch, how)) for key, tensor in tensors.items()}
    if how == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif how.startswith("shards"):
        suffix = how.partition(" of ")[2]
        keys, places = sorted(tensors), {}
        for number in range(3):
            shard = f"{suffix.partition('.')[0]}-0000{number + 1}-of-00003.{suffix.partition('.')[2]}"
            part = {key: tensors[key] for key in keys[number::3]}
            places |= dict.fromkeys(part, shard)
            save = torch.save if suffix.endswith("bin") else lambda t, p: save_file(t, p, {"format": "pt"})
            save(part, folder / shard)
        (folder / f"{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    else:
        save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    "how",
    ["plain", "weight_g", "float16", "bfloat16", "bin", "shards of model.safetensors", "shards of pytorch_model.bin"],
)
@pytest.mark.parametrize("head", ["Wav2Vec2ForCTC", "HubertForSequenceClassification", "WavLMForCTC"])
def test_a_fine_tuned_checkpoint_in_any_form(head, how, tmp_path, caplog):
    import transformers

    torch.manual_seed(0)
    model_class = getattr(transformers, head)
    theirs = model_class(model_class.config_class(**SIZES, vocab_size=12)).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    rewrite(tmp_path, how)
    with caplog.at_level(logging.INFO, "hff"):
        model = load_upstream(f"hf:{tmp_path}")
    (line,) = [record.getMessage() for record in caplog.records]
    kept = {"ForCTC": 2, "ForSequenceClassification": 4}[re.sub("^.*?For", "For", head)]
    assert f"{kept} tensors of the checkpoint are not of the encoder and are left out: " in line and "\n" not in line
    wav = torch.randn(1, 4000)
    with torch.no_grad():
        expected = theirs.base_model(wav, output_hidden_states=True).hidden_states
        states, _ = model(wav, torch.tensor([4000]), model.all_layers)
    limit = {"float16": 0.02, "bfloat16": 0.2}.get(how, 1e-5)
    assert all((h - states[layer]).abs().max() < limit for layer, h in enumerate(expected))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_shard_that_is_missing_is_named(saved, tmp_path):
    folder = shutil.copytree(saved("hf_hubert_base"), tmp_path / "model")
    rewrite(folder, "shards of model.safetensors")
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        UserError, match="holds no model-00002-of-00003.safetensors, which model.safetensors.index.json li"
    ):
        load_upstream(f"hf:{folder}")
    index = folder / "model.safetensors.index.json"
    for content, what in (
        ('{"weight_map": {"a": "../b"}}', "names files outside"),
        ("[]", "is broken"),
        ("{", "is broken"),
    ):
        index.write_text(content)
        with pytest.raises(UserError, match=f"{index} {what}"):
            load_upstream(f"hf:{folder}")


def test_the_extractor_of_a_saved_processor(saved, tmp_path):
    folder = shutil.copytree(saved("hf_hubert_large"), tmp_path / "model")
    extractor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    assert load_upstream(f"hf:{folder}").digests == load_upstream(f"hf:{saved('hf_hubert_large')}").digests
