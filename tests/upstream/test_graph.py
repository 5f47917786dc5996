"""The parts that stand in for others in an exported graph give what those give."""

import copy

import pytest
import torch

from hfftools.nn.logmel import LogMel
from hfftools.upstream.graph import DftMel, GroupedLayer, IndexedAttention, IndexedBias, simplify
from hfftools.upstream.names import load_upstream

STAND_INS = {
    "hff_tiny": DftMel,
    "hf_wav2vec2_base": GroupedLayer,
    "hf_moonshine_partial": GroupedLayer,
    "hf_parakeet_encoder": IndexedAttention,
    "hf_wavlm_large": IndexedBias,
    "hf_wav2vec2conformer_rel": IndexedAttention,
    "wavlm_base": IndexedBias,
}


def test_mel_energies_by_convolution():
    torch.manual_seed(0)
    wav_BN = 0.1 * torch.randn(2, 20000)
    wav_BN[1, 4000:] = 0
    mel = LogMel().mel
    found, wanted = DftMel(mel)(wav_BN), mel(wav_BN)
    assert found.shape == wanted.shape
    assert torch.allclose(found.clamp(min=1e-10).log(), wanted.clamp(min=1e-10).log(), atol=1e-4)


@pytest.mark.parametrize("form", STAND_INS)
def test_the_states_stay_the_same(form, spelled):
    upstream = load_upstream(form if form == "hff_tiny" else spelled(form)).eval()
    real = copy.deepcopy(upstream)
    simplify(upstream)
    assert any(type(module) is STAND_INS[form] for module in upstream.modules())
    assert all(torch.equal(a, b) for a, b in zip(real.parameters(), upstream.parameters(), strict=True))
    torch.manual_seed(1)
    wav_BN, num_samples_B = 0.1 * torch.randn(3, 33000), torch.tensor([33000, 9000, 450])
    with torch.no_grad():
        found, found_lens_B = upstream(wav_BN, num_samples_B, upstream.all_layers)
        wanted, lens_B = real(wav_BN, num_samples_B, real.all_layers)
    assert torch.equal(found_lens_B, lens_B)
    for layer, h_BTD in wanted.items():
        for row, frames in enumerate(lens_B.tolist()):
            assert torch.allclose(found[layer][row, :frames], h_BTD[row, :frames], atol=1e-4, rtol=1e-4), layer
