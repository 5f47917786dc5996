"""w2v-BERT 2.0: its log-mel next to the extractor's, and what is refused."""

import shutil

import pytest
import torch
from hf_checkpoints import quiet_high_frequencies

from hfftools.log import UserError
from hfftools.upstream.names import load_upstream
from hfftools.upstream.w2v_bert import TracedMel


@pytest.mark.parametrize("traced", [False, True])
def test_its_log_mel_is_the_extractor_s(traced, saved, spelled):
    from transformers import AutoFeatureExtractor

    mel, wav_N = load_upstream(spelled("hf_wav2vec2bert_shaw")).front.mel, quiet_high_frequencies()
    if traced:
        mel.__class__ = TracedMel
    extractor = AutoFeatureExtractor.from_pretrained(saved("hf_wav2vec2bert_shaw"))
    theirs = extractor(wav_N.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    num_frames = (32000 - 400) // 160 + 1
    ours_BTM = mel(wav_N[None], torch.tensor([num_frames]))
    assert ours_BTM.shape == (1, 198, 80) and theirs.shape == (1, 99, 160)
    assert (ours_BTM.reshape(1, 99, 160) - theirs).abs().max() < 1e-4


def test_an_extractor_of_another_width_is_refused(saved, tmp_path, edit_json):
    folder = shutil.copytree(saved("hf_wav2vec2bert_shaw"), tmp_path / "model")
    edit_json(folder / "preprocessor_config.json", num_mel_bins=40)
    with pytest.raises(
        UserError, match="^upstream .*describes 2 frames of 40 bins, and the model takes 160 numbers; .*$"
    ):
        load_upstream(f"hf:{folder}")
