"""Parakeet: its log-mel next to the extractor's, encoders inside recognisers, and what is refused."""

import json
import logging
import shutil

import pytest
import torch
from hf_checkpoints import load_parakeet, parakeet_extractor, quiet_high_frequencies

from hfftools.log import UserError
from hfftools.upstream.graph import DftMel, simplify
from hfftools.upstream.names import load_upstream, parse


@pytest.mark.parametrize("form", ["hf_parakeet_encoder", "hf_parakeet_tdt"])
@pytest.mark.parametrize("traced", [False, True])
def test_its_log_mel_is_the_extractor_s(traced, form, spelled):
    model = load_upstream(spelled(form))
    if traced:
        simplify(model)
        assert isinstance(model.front.mel, DftMel)
    wavs = [quiet_high_frequencies(), 0.1 * torch.randn(17000, generator=torch.Generator().manual_seed(3))]
    for wav_N in wavs:
        theirs = parakeet_extractor(model.front.num_mels)(wav_N.numpy(), sampling_rate=16000, return_tensors="pt")
        ours_BTM = model.front.log_mel(wav_N[None], torch.tensor([len(wav_N)]))
        frames = int(theirs.attention_mask.sum())
        assert ours_BTM.shape[1] == frames == len(wav_N) // 160
        assert (ours_BTM - theirs.input_features[:, :frames]).abs().max() < (3e-4 if traced else 2e-5)


@pytest.mark.parametrize("form", ["hf_parakeet_encoder", "hf_parakeet_ctc"])
def test_a_batch_gives_what_transformers_gives_for_it(form, saved, spelled):
    wavs = [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (23000, 11111, 4000)]
    encoder, extractor = load_parakeet(form.split("_")[2], saved(form))
    inputs = extractor([wav.numpy() for wav in wavs], sampling_rate=16000, return_tensors="pt")
    model = load_upstream(spelled(form))
    with torch.no_grad():
        theirs = encoder(**inputs, output_hidden_states=True)
        num_B = torch.tensor([len(wav) for wav in wavs])
        states, lens_B = model(torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), num_B, model.all_layers)
    assert lens_B.tolist() == theirs.attention_mask.sum(1).tolist() == [18, 9, 4]
    for layer, h_BTD in enumerate(theirs.hidden_states):
        for row, frames in enumerate(lens_B):
            assert (h_BTD[row, :frames] - states[layer][row, :frames]).abs().max() < 1e-4


@pytest.mark.parametrize("form, left_out", [("ctc", "ctc_head (2)"), ("tdt", "joint (2)")])
def test_a_recogniser_is_an_upstream_without_its_head(form, left_out, saved, caplog):
    with caplog.at_level(logging.INFO, "hff"):
        load_upstream(f"hf:{saved(f'hf_parakeet_{form}')}")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "are not of the encoder and are left out: " in line and left_out in line and "encoder (" not in line


def test_the_extractor_that_a_processor_saved(saved, tmp_path):
    folder = shutil.copytree(saved("hf_parakeet_ctc"), tmp_path / "model")
    extractor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    assert load_upstream(f"hf:{folder}").digests == load_upstream(f"hf:{saved('hf_parakeet_ctc')}").digests


@pytest.mark.parametrize(
    "key, value, ours", [("feature_size", 128, 80), ("preemphasis", 0.9, 0.97), ("n_fft", 400, 512)]
)
def test_an_extractor_of_another_log_mel_is_refused(key, value, ours, saved, tmp_path, edit_json):
    folder = shutil.copytree(saved("hf_parakeet_encoder"), tmp_path / "model")
    edit_json(folder / "preprocessor_config.json", **{key: value})
    with pytest.raises(UserError, match=f"^upstream .*json has {key} {value}, and this family needs {ours}; copy .*$"):
        load_upstream(f"hf:{folder}")


def test_a_transformers_without_the_family_is_refused(saved, monkeypatch):
    import transformers

    monkeypatch.setattr(parse(f"hf:{saved('hf_parakeet_ctc')}").family, "MODELS", {"parakeet_ctc": "ParrotEncoder"})
    wanted = f"transformers {transformers.__version__} has no ParrotEncoder; pip install --upgrade transformers$"
    source = parse(f"hf:{saved('hf_parakeet_ctc')}")
    for load in (source.load, source.random):
        with pytest.raises(UserError, match=wanted):
            load()
