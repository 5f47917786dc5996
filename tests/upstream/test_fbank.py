"""The log-mel baseline keeps the contract of an upstream."""

import pytest
import torch

from hfftools.data.batch import pad_batch
from hfftools.log import UserError
from hfftools.upstream.fbank import FbankUpstream


def test_contract():
    model = FbankUpstream()
    assert (model.name, model.hash) == ("fbank", "fbank")
    assert (model.num_layers, model.dim, model.stride_samples) == (0, 320, 640)
    assert model.all_layers == [0] and len(model.blocks()) == 0 and model.frame_rate_hz == 25
    assert not list(model.parameters())


def test_there_is_nothing_inside_to_mask():
    batch = torch.randn(1, 4000), torch.tensor([4000]), [0]
    FbankUpstream()(*batch, augment=None)
    with pytest.raises(UserError, match="fbank has no blocks, and nothing inside to mask"):
        FbankUpstream()(*batch, augment=lambda x_BTD, lens_B: x_BTD)


def test_lengths_and_frames():
    model = FbankUpstream()
    for num in (100, 512, 991, 992, 1631, 1632, 16000):
        states, lens = model(torch.randn(1, num), torch.tensor([num]), [0])
        mel = max(0, (num - 512) // 160 + 1)
        assert lens[0] == model.out_lens(torch.tensor([num]))[0] == mel // 4
        assert states[0].shape == (1, max(1, lens[0]), 320)
    mel_BTM, _ = model.logmel(wav := torch.randn(1, 16000), num := torch.tensor([16000]))
    assert torch.equal(model(wav, num, [0])[0][0][0, 2], mel_BTM[0, 8:12].flatten())


def test_padding_changes_no_valid_frame():
    model = FbankUpstream()
    wavs = [torch.randn(n) for n in (16000, 7000, 1632)]
    wav_BN, num_B = pad_batch(wavs)
    states, lens = model(torch.nn.functional.pad(wav_BN, (0, 1234)), num_B, [0])
    for row, wav in enumerate(wavs):
        solo, (frames,) = model(wav[None], torch.tensor([len(wav)]), [0])
        assert frames == lens[row] and (solo[0][0, :frames] - states[0][row, :frames]).abs().max() < 1e-4
