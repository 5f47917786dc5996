"""Pre-training: masks and targets fit the frames, it learns, it goes on to the same weights."""

import numpy as np
import pytest
import torch

from hfftools.config import resolve
from hfftools.expdir import read_json_lines
from hfftools.log import UserError
from hfftools.pretrain import kmeans, masked
from hfftools.pretrain.features import corpus as load_corpus
from hfftools.upstream.conformer import Door, EncoderConfig

SMALL = [
    "encoder.dim=32", "encoder.layers=2", "encoder.heads=2", "encoder.expansion=2", "encoder.kernel=5", "steps=24",
    "batch_seconds=12", "targets.clusters=12", "log_steps=4", "save_steps=6", "bf16=false", "lr=3e-3",
]  # fmt: skip


@pytest.fixture
def arguments(corpus):
    return [f"data=[{corpus}/train]", *SMALL]


def test_masks_are_spans_of_valid_frames_and_cover_about_half():
    config = resolve(masked.Config, [], [])
    lens_B = torch.full((200,), 100)
    lens_B[0] = 6
    mask_BT = masked._span_mask(lens_B, 100, config, np.random.default_rng(0))
    assert 0.45 < mask_BT[1:].float().mean() < 0.6
    assert mask_BT.any(1).all() and not mask_BT[0, 6:].any()
    runs = "".join("1" if m else "0" for m in mask_BT[1].tolist()).split("0")
    assert all(len(run) >= config.mask_frames for run in runs[:-1] if run)


def test_targets_lie_on_the_encoders_frames(corpus, tmp_path):
    """One target vector for each frame that the encoder puts out, and the same MFCC for a shift of whole frames."""
    speech = load_corpus([f"{corpus}/train"], tmp_path)
    model = masked.ConformerUpstream(EncoderConfig(dim=16, layers=1, heads=2))
    mel_TM = torch.from_numpy(speech.mel(0))
    frames = model.subsample(mel_TM[None]).shape[1]
    views = kmeans.mfcc(mel_TM)
    assert views.shape == (frames, 2, 39)
    shifted = kmeans.mfcc(mel_TM[8:])
    assert torch.allclose(shifted[3:-3], views[5:-3], atol=1e-4)  # deltas look past the edges


def test_it_learns_and_its_encoder_loads(arguments, tmp_path):
    out = masked.pretrain(tmp_path / "exp", [], [*arguments, "steps=60"])
    losses = [record["loss"] for record in read_json_lines(tmp_path / "exp" / "history.jsonl")]
    assert losses[-1] < losses[0] - 0.1
    model = Door(str(out)).load()
    assert model.num_layers == 2 and len(model.hash) == 16


def test_a_second_iteration_clusters_a_layer_of_the_first(arguments, tmp_path):
    masked.pretrain(tmp_path / "one", [], arguments)
    more = [f"targets.source={tmp_path}/one", "targets.layer=1", f"init={tmp_path}/one", "alpha=1.0"]
    masked.pretrain(tmp_path / "two", [], [*arguments, *more])
    targets = np.load(tmp_path / "two" / "targets.npz")["targets"]
    assert targets.shape[1] == 1 and len(np.unique(targets)) > 4


def test_interrupted_it_ends_with_the_same_weights(arguments, tmp_path, monkeypatch):
    whole = masked.pretrain(tmp_path / "whole", [], arguments)
    real, saves = masked.save, []

    def stop_at_second(model, path, card):
        real(model, path, card)
        saves.append(path)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(masked, "save", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        masked.pretrain(tmp_path / "cut", [], arguments)
    monkeypatch.undo()
    cut = masked.pretrain(tmp_path / "cut", [], arguments)
    a, b = Door(str(whole)).load().state_dict(), Door(str(cut)).load().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_changed_options_and_empty_data_are_refused(arguments, tmp_path):
    masked.pretrain(tmp_path / "exp", [], arguments)
    with pytest.raises(UserError, match="seed was 0 and is now 1"):
        masked.pretrain(tmp_path / "exp", [], [*arguments, "seed=1"])
    with pytest.raises(UserError, match="name at least one data directory"):
        masked.pretrain(tmp_path / "none", [], SMALL)
