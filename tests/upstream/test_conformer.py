"""Our own encoder keeps the contract of an upstream, in memory and through its file."""

import pytest
import torch

from hfftools.data.batch import pad_batch
from hfftools.log import UserError
from hfftools.upstream import conformer
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ConformerUpstream(EncoderConfig(dim=32, layers=3, heads=4, num_mels=40)).eval()


@torch.no_grad()
def test_padding_changes_no_valid_frame(model):
    wavs = [torch.randn(n) for n in (16000, 9000, 2000, 1500)]
    wav_BN, num_B = pad_batch(wavs)
    dirty_BN = torch.nn.functional.pad(wav_BN, (0, 4000))
    for row, wav in enumerate(wavs):
        dirty_BN[row, len(wav) :] = 0.3
    states, lens = model(dirty_BN, num_B, model.all_layers)
    for row, wav in enumerate(wavs):
        solo, (frames,) = model(wav[None], torch.tensor([len(wav)]), model.all_layers)
        assert frames == lens[row] > 0
        for layer, h in solo.items():
            assert (h[0, :frames] - states[layer][row, :frames]).abs().max() < 1e-4, (row, layer)


def test_lengths(model):
    for num in (300, 512, 1471, 1472, 1473, 2111, 2112, 16000):
        states, lens = model(torch.randn(1, num), torch.tensor([num]), [0])
        frames = max(0, (num - 512) // 160 + 1)
        for _ in range(2):
            frames = max(0, (frames - 3) // 2 + 1)
        assert lens[0] == model.out_lens(torch.tensor([num]))[0] == frames and states[0].shape[1] == max(1, frames)
        assert states[0].isfinite().all()


def test_nothing_above_the_highest_layer_is_computed(model):
    calls = []
    hooks = [block.register_forward_hook(lambda *_, n=n: calls.append(n)) for n, block in enumerate(model.blocks(), 1)]
    wav, num = torch.randn(1, 8000), torch.tensor([8000])
    full, _ = model(wav, num, model.all_layers)
    calls.clear()
    states, _ = model(wav, num, [2, 0])
    for hook in hooks:
        hook.remove()
    assert calls == [1, 2] and list(states) == [2, 0]
    assert all(torch.equal(h, full[layer]) for layer, h in states.items())


@torch.no_grad()
def test_augment_enters_the_first_block(model):
    wav, num = torch.randn(2, 8000), torch.tensor([8000, 5000])
    (mel, mel_lens), masked = model.logmel(wav, num), torch.zeros(2, 11, dtype=torch.bool)
    masked[:, 2:5] = True

    def augment(x_BTD, lens_B, _):
        assert torch.equal(lens_B, model.out_lens(num))
        return torch.where(masked[:, :, None], model.mask_embedding, x_BTD)

    ours, expected = model(wav, num, [0, 3], augment)[0], model.encode(mel, mel_lens, [0, 3], masked)[0]
    assert all(torch.equal(h, expected[layer]) for layer, h in ours.items())
    assert not torch.equal(ours[3], model(wav, num, [3])[0][3])


@torch.no_grad()
def test_save_and_load(model, tmp_path):
    path = tmp_path / "encoder.safetensors"
    conformer.save(model, path, {"note": "test"})
    loaded = conformer.load(path, "mine").eval()
    assert loaded.name == "mine" and loaded.config == model.config and len(loaded.hash) == 16
    wav, num = torch.randn(1, 8000), torch.tensor([8000])
    ours, theirs = model(wav, num, [3])[0][3], loaded(wav, num, [3])[0][3]
    assert (ours - theirs).abs().max() < 2e-2  # the file holds half precision
    conformer.save(loaded, tmp_path / "again.safetensors", {"note": "test"})
    assert torch.equal(conformer.load(tmp_path / "again.safetensors", "mine").eval()(wav, num, [3])[0][3], theirs)


def test_missing_and_broken_files_are_named(model, tmp_path):
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(UserError, match=f"{path} does not exist"):
        conformer.load(path, "mine")
    conformer.save(model, path, {})
    for content in (b"", b"no weights", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path} is (empty|damaged).*hff-pretrain"):
            conformer.load(path, "mine")


def test_subsampling_is_two_convolutions_with_gelu_then_a_linear_layer_and_a_norm():
    torch.manual_seed(0)
    part = conformer.Subsample(5, 6).double()
    mel_BTM = torch.randn(2, 11, 5, dtype=torch.float64)

    def convolve(x_BTC, conv):
        frames = (x_BTC.shape[1] - 3) // 2 + 1
        rows = [torch.einsum("bkc,dck->bd", x_BTC[:, 2 * t : 2 * t + 3], conv.weight) for t in range(frames)]
        x_BTD = torch.stack(rows, 1) + conv.bias
        return 0.5 * x_BTD * (1 + torch.erf(x_BTD / 2**0.5))

    x_BTD = convolve(convolve(mel_BTM, part.conv1), part.conv2) @ part.project.weight.T + part.project.bias
    centred = x_BTD - x_BTD.mean(-1, keepdim=True)
    torch.testing.assert_close(part(mel_BTM), centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt())
