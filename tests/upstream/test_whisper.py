"""Whisper's encoder: recordings longer than its window, both forms, and its real weights where they are named."""

import json
import os
from pathlib import Path

import pytest
import torch

from hfftools.audio.waveform import load
from hfftools.data.batch import pad_batch
from hfftools.log import UserError
from hfftools.upstream.names import load_upstream, parse

SECOND = 16000


@pytest.fixture(scope="module", params=["cropped", "padded"])
def model(spelled, request):
    return load_upstream(spelled(f"hf_whisper_{request.param}")).requires_grad_(False)


def noise(*seconds):
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(int(s * SECOND), generator=generator) for s in seconds]


def test_a_long_recording_takes_each_frame_from_the_window_whose_middle_is_nearest(model):
    (wav,) = noise(65.25)
    states, (frames,) = model(wav[None], torch.tensor([len(wav)]), [0, 3])
    assert frames == 65.25 * 50 + 0.5
    # windows begin at 0, 20 and 40 s; the middles of what they share are at 25 and 45 s
    for begin_s, first_s, end_s in ((0, 0, 25), (20, 25, 45), (40, 45, 66)):
        window = wav[begin_s * SECOND : (begin_s + 30) * SECOND]
        alone, (count,) = model(window[None], torch.tensor([len(window)]), [0, 3])
        first, end = (first_s - begin_s) * 50, min(int(count), (end_s - begin_s) * 50)
        for layer, h in alone.items():
            assert (h[0, first:end] - states[layer][0, first_s * 50 : end_s * 50]).abs().max() < 1e-4


def test_long_and_short_recordings_in_one_batch(model):
    wavs = noise(50.01, 3, 30, 30.02, 0.005)
    wav_BN, num_B = pad_batch(wavs)
    for row, num in enumerate(num_B):
        wav_BN[row, num:] = 0.3
    states, lens_B = model(wav_BN, num_B, [3])
    assert lens_B.tolist() == [2501, 150, 1500, 1501, 0] and states[3].shape[1] == 2501
    assert model.out_lens(num_B).tolist() == lens_B.tolist()
    for row, wav in enumerate(wavs):
        alone, (frames,) = model(wav[None], torch.tensor([len(wav)]), [3])
        assert frames == lens_B[row]
        if frames:
            assert (alone[3][0, :frames] - states[3][row, :frames]).abs().max() < 1e-4


def test_both_forms_enter_the_blocks_alike_and_leave_them_differently(saved):
    wav = noise(2)[0]
    cropped, padded = (load_upstream(f"{kind}:{saved('hf_whisper_cropped')}") for kind in ("hf", "hf_padded"))
    one, other = (model(wav[None], torch.tensor([len(wav)]), [0, 3])[0] for model in (cropped, padded))
    assert (one[0] - other[0]).abs().max() < 1e-5 and (one[3] - other[3]).abs().mean() > 1e-3


def test_the_padded_form_is_another_model_to_every_record(saved):
    folder = saved("hf_whisper_cropped")
    cropped, padded = (parse(f"{kind}:{folder}") for kind in ("hf", "hf_padded"))
    assert cropped.digests()["upstream"] == padded.digests()["upstream"]
    assert cropped.digests()["upstream settings"] != padded.digests()["upstream settings"]
    for source in (cropped, padded):
        assert source.load().digests == source.digests()
        assert source.random().padded == source.load().padded == (source is padded)


def test_a_family_without_a_padded_form_refuses_it(saved):
    folder = saved("hf_wav2vec2_base")
    with pytest.raises(UserError, match=f"hf_padded:{folder}: wav2vec2 has no padded form; write hf:{folder}"):
        parse(f"hf_padded:{folder}")


def test_128_mel_bins(tmp_path, spelled, saved):
    import transformers

    config = json.loads((saved("hf_whisper_cropped") / "config.json").read_text())
    encoder = transformers.WhisperModel(transformers.WhisperConfig(**{**config, "num_mel_bins": 128}))
    encoder.save_pretrained(tmp_path)
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    extractor.save_pretrained(tmp_path)
    wav = noise(1)[0]
    mel = extractor(wav.numpy(), sampling_rate=SECOND, return_tensors="pt").input_features
    ours = load_upstream(f"hf_padded:{tmp_path}")
    states, _ = ours(wav[None], torch.tensor([len(wav)]), [0, 3])
    expected = encoder.eval().encoder(mel).last_hidden_state
    assert (states[3] - expected[:, :50]).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.skipif("HFF_TEST_WHISPER" not in os.environ, reason="HFF_TEST_WHISPER names no folder of real weights")
@torch.no_grad()
def test_the_real_weights_give_the_states_that_transformers_gives(corpus):
    import transformers

    folder = os.environ["HFF_TEST_WHISPER"]
    encoder = transformers.WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    wav = torch.as_tensor(load(str(next(Path(corpus).rglob("*.wav")))))
    model = load_upstream(f"hf_padded:{folder}")
    mel = extractor(wav.numpy(), sampling_rate=SECOND, return_tensors="pt").input_features
    expected = encoder(mel, output_hidden_states=True).hidden_states
    states, (frames,) = model(wav[None], torch.tensor([len(wav)]), model.all_layers)
    for layer, h in enumerate(expected):
        assert (h[:, :frames] - states[layer]).abs().max() < 1e-4 * max(1.0, h.abs().max())
