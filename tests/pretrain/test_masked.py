"""Pre-training: masks and targets fit the frames, it learns, it goes on to the same weights."""

import numpy as np
import pytest
import torch

from hfftools.config import resolve
from hfftools.expdir import ExpDir
from hfftools.log import UserError
from hfftools.pretrain import kmeans, masked
from hfftools.pretrain.features import corpus as load_corpus
from hfftools.records import read_json, read_json_lines
from hfftools.train.experiment import read_config
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
    for word in ("crop_seconds=0.01", "batch_seconds=0.4", "threads=100000000000"):
        with pytest.raises(UserError, match=word.partition("=")[0]):
            masked.pretrain(tmp_path / "wrong", [], [*arguments, word])
    with pytest.raises(UserError, match="exp is not an experiment that hff-train made"):
        read_config(ExpDir(tmp_path / "exp"), [])


def test_utterances_count_once_and_short_ones_alone_are_refused(arguments, corpus, tmp_path):
    masked.pretrain(tmp_path / "once", [], [*arguments, "steps=1"])
    twice = [f"data=[{corpus}/train,{corpus}/train/]", *SMALL, "steps=1"]
    masked.pretrain(tmp_path / "twice", [], twice)
    inputs = [read_json(ExpDir(tmp_path / name).inputs, dict) for name in ("once", "twice")]
    assert inputs[0] == inputs[1]
    config = resolve(masked.Config, [], ["data=[data/clicks]"])
    with pytest.raises(UserError, match="data: no utterance of data/clicks lasts 0.5 s"):
        masked._batches(np.array([49, 12]), config, 0)
    assert [batch.tolist() for batch in masked._batches(np.array([49, 50]), config, 0)] == [[1]]


def test_the_loss_is_huberts_equation_3_over_valid_frames(arguments, tmp_path, monkeypatch):
    """alpha times the mean cross entropy of masked frames, and 1 - alpha of that of the other valid frames."""
    config = masked.configure([], [*arguments, "alpha=0.3"])
    run = masked._Objective(config, ExpDir(tmp_path), torch.device("cpu"))
    run.model.eval()
    rows = np.array([int(run.corpus.lens.argmin()), int(run.corpus.lens.argmax())])
    assert run.corpus.lens[rows[0]] < run.corpus.lens[rows[1]] <= 1000, "one row is padded, and none is cropped"
    drawn = []
    span_mask = masked._span_mask
    monkeypatch.setattr(masked, "_span_mask", lambda *given: drawn.append(span_mask(*given)) or drawn[-1])
    with torch.no_grad():
        loss, _, seconds = run.loss(rows, 3)
        mels = [torch.from_numpy(run.corpus.mel(row)) for row in rows]
        mel_BTM = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
        states, lens_B = run.model.encode(mel_BTM, torch.tensor([len(mel) for mel in mels]), [2], drawn[0])
        log_probs_BTSC = run.head(states[2]).unflatten(-1, (-1, 12)).log_softmax(-1)
    sums = {True: [], False: []}
    for b, row in enumerate(rows):
        for t in range(int(lens_B[b])):
            for s, target in enumerate(run.targets[run.target_starts[row] + t]):
                sums[bool(drawn[0][b, t])].append(-log_probs_BTSC[b, t, s, target].item())
    assert loss.item() == pytest.approx(0.3 * np.mean(sums[True]) + 0.7 * np.mean(sums[False]), rel=1e-4)
    assert seconds == sum(len(mel) for mel in mels) / 100


def test_mfcc_has_two_deltas_at_two_points_of_each_frame():
    """Deltas by regression over two frames on either side (HTK book), with the edge frames repeated."""
    mel_TM = torch.from_numpy(np.random.default_rng(0).normal(size=(31, 80)).astype(np.float32))
    k, m = np.arange(13)[:, None], np.arange(80)[None]
    scale = np.where(k == 0, np.sqrt(1 / 80), np.sqrt(2 / 80))
    cepstra_TC = mel_TM.numpy() @ (scale * np.cos(np.pi / 80 * (m + 0.5) * k)).T

    def delta(x_TC):
        padded = np.concatenate([x_TC[:1], x_TC[:1], x_TC, x_TC[-1:], x_TC[-1:]])
        return sum(n * (padded[2 + n : 2 + n + len(x_TC)] - padded[2 - n : 2 - n + len(x_TC)]) for n in (1, 2)) / 10

    first = delta(cepstra_TC)
    all_TC = np.concatenate([cepstra_TC, 2 * first, 4 * delta(first)], 1)  # factors that bring all to a like scale
    views = kmeans.mfcc(mel_TM)
    assert views.shape == (7, 2, 39)
    for t in range(7):
        early = (all_TC[4 * t + 1] + all_TC[4 * t + 2]) / 2
        late = (all_TC[4 * t + 4] + all_TC[4 * t + 5]) / 2
        np.testing.assert_allclose(views[t], np.stack([early, late]), atol=1e-4)
