"""Moonshine: short utterances in a batch, checkpoints with and without its decoder, what is refused, exact positions."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfftools.log import UserError
from hfftools.upstream.moonshine import PairAttention
from hfftools.upstream.names import load_upstream, parse


@pytest.mark.parametrize("form", ["hf_moonshine_partial", "hf_moonshine_whole"])
@torch.no_grad()
def test_short_utterances_next_to_long_ones(form, spelled):
    """The statistics of the group norm are those of each utterance, down to one frame and where an end is left over."""
    model = load_upstream(spelled(form))
    num_B = torch.tensor([20000, 895, 1278, 1279, 894])
    wav_BN = 0.1 * torch.randn(5, 20000, generator=torch.Generator().manual_seed(2)) + 0.05
    states, lens_B = model(wav_BN, num_B, model.all_layers)
    assert lens_B.tolist() == [50, 1, 1, 2, 0]
    for row, num in enumerate(num_B.tolist()):
        alone, _ = model(wav_BN[row : row + 1, :num], num_B[row : row + 1], model.all_layers)
        for layer, h_BTD in alone.items():
            assert ((h_BTD[0, : lens_B[row]] - states[layer][row, : lens_B[row]]).abs() < 1e-4).all()


@torch.no_grad()
def test_scores_depend_on_distance_alone():
    torch.manual_seed(0)
    attention = PairAttention([torch.nn.Identity()] * 4, 2, 0.0, torch.tensor([1.0, 0.1]))
    q, k, v = attention.project(torch.randn(1, 1, 12).expand(1, 9, 12))
    scores = (q @ k.transpose(-1, -2))[0]
    for away in range(-8, 9):
        diagonal = scores.diagonal(away, 1, 2)
        assert (diagonal - diagonal[:, :1]).abs().max() < 1e-4
    assert scores.std() > 0.1 and torch.equal(v, v[:, :, :1].expand_as(v))
    assert torch.equal(q[..., 4:], q[:, :, :1, 4:].expand(-1, -1, 9, -1))  # those beyond the rates stay


def test_a_recogniser_is_an_upstream_without_its_decoder(saved, tmp_path, caplog):
    import transformers

    config = transformers.MoonshineConfig.from_pretrained(saved("hf_moonshine_partial"))
    theirs = transformers.MoonshineForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "hff"):
        model = load_upstream(f"hf:{tmp_path}")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "are not of the encoder and are left out: decoder (15)" in line
    wav_BN = 0.1 * torch.randn(1, 8000)
    with torch.no_grad():
        expected = theirs.model.encoder(wav_BN).last_hidden_state
        states, _ = model(wav_BN, torch.tensor([8000]), [3])
    assert (states[3] - expected).abs().max() < 1e-5


def test_the_encoder_is_enough(saved, tmp_path):
    folder = shutil.copytree(saved("hf_moonshine_whole"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    save_file(encoder, folder / "model.safetensors", {"format": "pt"})
    wav_BN, num_B = torch.randn(1, 4000), torch.tensor([4000])
    one, other = (
        load_upstream(f"hf:{path}")(wav_BN, num_B, [3])[0][3] for path in (folder, saved("hf_moonshine_whole"))
    )
    assert len(encoder) < len(tensors) and torch.equal(one, other)


def test_fewer_keys_than_heads_are_refused(saved, tmp_path):
    sizes = json.loads((saved("hf_moonshine_partial") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "encoder_num_key_value_heads": 2}))
    with pytest.raises(
        UserError, match="^upstream .*has encoder_num_key_value_heads 2, and only as many as .*, 4, are"
    ):
        parse(f"hf:{tmp_path}").random()


def test_waveforms_are_normalised_only_where_the_extractor_says_so(spelled):
    fronts = [load_upstream(spelled(f"hf_moonshine_{form}")).front for form in ("partial", "whole")]
    assert [front.wav_eps is None for front in fronts] == [True, False]
