"""Full-size shapes with random weights: they load, fit in memory and stay invariant to padding. By hand: -m slow."""

import resource

import pytest
import torch

from hfftools.upstream.names import load_upstream


@pytest.mark.slow
def test_wav2vec2_large_shape_within_6_gib(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(tmp_path)
    upstream = load_upstream(f"hf:{tmp_path}")
    assert (upstream.num_layers, upstream.dim) == (24, 1024)
    wav_BN, lens_B = torch.randn(2, 160000), torch.tensor([160000, 90000])
    with torch.inference_mode():
        hidden, frames_B = upstream(wav_BN, lens_B, [0, 12, 24])
        alone, _ = upstream(wav_BN[1:, :90000], lens_B[1:], [0, 12, 24])
    assert frames_B.tolist() == [499, (90000 - 400) // 320 + 1]
    for layer in (0, 12, 24):
        assert (hidden[layer][1, :281] - alone[layer][0]).abs().max() < 1e-3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 6 * 2**20
