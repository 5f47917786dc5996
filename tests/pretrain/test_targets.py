"""Targets of a teacher: at the frames that see the same speech, resumed in the middle, and used where it is not."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hfftools.audio import waveform
from hfftools.data import datadir
from hfftools.expdir import ExpDir
from hfftools.log import UserError
from hfftools.pretrain import kmeans, masked, targets
from hfftools.pretrain.teacher import nearest
from hfftools.records import read_json_lines
from hfftools.upstream.base import Upstream
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig, save
from hfftools.upstream.names import parse

SMALL = [
    "encoder.dim=16", "encoder.layers=1", "encoder.heads=2", "encoder.expansion=2", "encoder.kernel=5", "steps=4",
    "batch_seconds=12", "log_steps=2", "save_steps=2", "bf16=false", "device=cpu", "targets.clusters=10",
]  # fmt: skip


@pytest.fixture
def teacher(encoder, tmp_path):
    """The name of a teacher that a test may change or remove."""
    return str(shutil.copy(encoder, tmp_path / "teacher.safetensors"))


@pytest.fixture
def arguments(corpus, teacher):
    return [f"data=[{corpus}/train]", *SMALL, f"targets.source={teacher}", "targets.layer=2"]


@pytest.mark.parametrize(("stride", "middle"), [(320, 200.0), (320, 0.0), (1280, 640.0), (640, 680.0)])
def test_the_nearest_frame_of_a_teacher_is_found_by_what_it_sees(stride, middle):
    """Frame t of the encoder sees log-mel frames 4t to 4t + 6: samples 640 t to 640 t + 960 + 512, in the middle 680."""
    other = Upstream()
    other.stride_samples, other.middle_samples = stride, middle
    for points in (1, 2):
        found_TS = nearest(other, 40, 12, points)
        assert found_TS.shape == (12, points)
        for t in range(12):
            for s in range(points):
                moment = (640 * t + 640 * t + 960 + 512) / 2 - 56 + {1: [0], 2: [-160, 160]}[points][s]
                away = [abs(middle + stride * frame - moment) for frame in range(40)]
                assert away[int(found_TS[t, s])] == pytest.approx(min(away))
    assert nearest(other, 3, 12, 1).max() == 2, "beyond the last frame of the teacher stands that frame"
    assert nearest(other, 0, 2, 1).tolist() == [[0], [0]]


def test_targets_are_the_nearest_centres_to_the_states_of_a_teacher_of_twice_the_rate(corpus, saved, tmp_path):
    name = f"hf:{saved('hf_wav2vec2_base')}"
    words = [f"data=[{corpus}/train]", *SMALL, f"targets.source={name}", "targets.layer=1", "targets.points=2"]
    centres = []

    class Maker(kmeans.Maker):
        def fit(self, seed):
            centres.append(super().fit(seed))
            return centres[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmeans, "Maker", Maker)
        file = masked.pretrain(tmp_path / "exp", [], words, targets_only=True)
    frames = np.load(file)["targets"]
    assert frames.dtype == np.int16 and frames.shape[1] == 2 and not (tmp_path / "exp" / "config.yaml").exists()
    upstream, start = parse(name).load(), 0
    for utt in datadir.read(corpus / "train")[:5]:
        wav_BN = torch.from_numpy(waveform.load(utt.source))[None]
        with torch.inference_mode():
            states, lens_B = upstream(wav_BN, torch.tensor([wav_BN.shape[1]]), [1])
        count = int(ConformerUpstream(EncoderConfig()).out_lens(torch.tensor(wav_BN.shape[1])))
        for t in range(count):
            for s, moment in enumerate((640 * t + 680 - 160, 640 * t + 680 + 160)):
                row = min(int((moment - upstream.middle_samples) / upstream.stride_samples + 0.5), int(lens_B[0]) - 1)
                away_K = ((states[1][0, row].numpy() - centres[0]) ** 2).sum(1)
                assert away_K[frames[start + t, s]] == pytest.approx(away_K.min(), rel=1e-3)
        start += count


def test_the_making_of_targets_resumes(arguments, tmp_path, monkeypatch):
    whole = np.load(masked.pretrain(tmp_path / "whole", [], arguments, targets_only=True))["targets"]
    monkeypatch.setattr(targets, "PIECE", 5)
    calls = {"fit": 0, "assign": 0}

    class Maker(kmeans.Maker):
        stop = True

        def fit(self, seed):
            calls["fit"] += 1
            return super().fit(seed)

        def assign(self, rows, centres_KD):
            calls["assign"] += 1
            if Maker.stop and calls["assign"] == 3:
                raise KeyboardInterrupt
            return super().assign(rows, centres_KD)

    monkeypatch.setattr(kmeans, "Maker", Maker)
    with pytest.raises(KeyboardInterrupt):
        masked.pretrain(tmp_path / "cut", [], arguments, targets_only=True)
    Maker.stop = False
    cut = np.load(masked.pretrain(tmp_path / "cut", [], arguments, targets_only=True))["targets"]
    pieces = -(-len(datadir.read(arguments[0][6:-1])) // 5)
    assert calls == {"fit": 1, "assign": pieces + 1}, "the centres and two pieces are those of the first call"
    np.testing.assert_array_equal(cut, whole)
    assert not (tmp_path / "cut" / "targets").exists()


def test_it_trains_with_kept_targets_where_the_teacher_is_not(arguments, teacher, tmp_path, corpus):
    file = masked.pretrain(tmp_path / "made", [], arguments, targets_only=True)
    digest = parse(teacher).digests()["upstream"]
    (tmp_path / "teacher.safetensors").unlink()
    exp = ExpDir(tmp_path / "other")
    exp.root.mkdir()
    shutil.copy(file, exp.targets)
    masked.pretrain(exp.root, [], arguments)
    with safe_open(exp.encoder, "pt") as opened:
        card = json.loads(opened.metadata()["card"])
    wanted = {"source": teacher, "layer": 2, "clusters": 10, "digest of the upstream": digest}
    assert wanted.items() <= card["targets"].items()
    masked.pretrain(exp.root, [], arguments)  # once more: nothing is left to do
    for word in ("targets.layer=1", f"data=[{corpus}/dev]"):
        fresh = ExpDir(tmp_path / f"fresh_{word.partition('=')[0]}")
        fresh.root.mkdir()
        shutil.copy(file, fresh.targets)
        with pytest.raises(UserError, match=r"teacher\.safetensors does not exist"):
            masked.pretrain(fresh.root, [], [*arguments, word])


def test_targets_of_another_teacher_are_made_again_or_refused(arguments, teacher, tmp_path):
    exp = ExpDir(tmp_path / "exp")
    masked.pretrain(exp.root, [], arguments, targets_only=True)
    first = np.load(exp.targets)["targets"]
    torch.manual_seed(5)
    sizes = EncoderConfig(dim=32, layers=3, heads=2, expansion=2, kernel=5)
    save(ConformerUpstream(sizes), tmp_path / "teacher.safetensors", {})
    masked.pretrain(exp.root, [], arguments)
    assert (np.load(exp.targets)["targets"] != first).any()
    save(ConformerUpstream(sizes), tmp_path / "teacher.safetensors", {})
    with pytest.raises(UserError, match="content of targets.source: upstream has changed"):
        masked.pretrain(exp.root, [], arguments)


def test_minutes_end_the_training_and_its_schedule(arguments, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(masked.time, "monotonic", lambda: now[0])
    real = masked._Objective.loss

    def slow(self, batch, step):
        now[0] += 6.0  # seconds a step
        return real(self, batch, step)

    monkeypatch.setattr(masked._Objective, "loss", slow)
    words = [*arguments, "steps=1000", "minutes=1", "warmup=0", "log_steps=1", "save_steps=4"]
    masked.pretrain(tmp_path / "exp", [], words)
    records = read_json_lines(tmp_path / "exp" / "history.jsonl")
    assert [record["step"] for record in records] == list(range(1, 11))
    shares = [record["lr"] / 1e-3 for record in records]
    np.testing.assert_allclose(shares, [0.5 + 0.5 * np.cos(np.pi * n / 10) for n in range(1, 11)], atol=2e-3)
